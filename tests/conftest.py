"""Fixtures of all tests but tests/ui: small data, small configurations, and an environment of their own."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iekd import plugins
from iekd.config.run import make_config
from iekd.data import Dataset, Split
from iekd.errors import UserError
from iekd.export import check, int8, onnx_file
from iekd.models import catalog
from iekd.models.registration import BUILDERS

os.environ["COLUMNS"] = "200"  # of every table; a console takes it when it is made
# networks this small wait more than they compute on two threads, above all beside other programs; so do the processes
# that tests start. A test that is about threads sets its own number
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
gc.disable()  # until all tests are collected, see below
CHECKOUT = Path(__file__).parents[1]
# those with long tests; "tests" is this folder itself
FOLDERS = ("ui", "docs", "engine", "export", "runs", "tests", "launchers", "models", "bench", "cli", "hub", "explain")
CLASSES = ("blue", "green", "red")


def pytest_collection_modifyitems(items):
    """Long files first, so that no worker waits at the end for another that has just begun one."""

    def size(item):
        folder = Path(item.path).parent.name
        return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)

    items.sort(key=size)  # stable: a file's tests stay together and in order


def pytest_collection_finish():
    """Thousands of collected tests are no garbage: without this, every collection looks through all of them again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def forgotten(monkeypatch):
    """Models that a test registers, and plugins that it has imported, are unknown to the others."""
    monkeypatch.setattr(plugins, "_loaded", set(plugins._loaded))
    monkeypatch.setattr(plugins, "_registering", dict(plugins._registering))
    before = set(BUILDERS)
    yield
    for name in set(BUILDERS) - before:
        del BUILDERS[name]
        catalog._MODELS.measures.pop(name, None)
        catalog._MODELS.measured.pop(name, None)


@pytest.fixture(scope="module", autouse=True)
def long_lived():
    """Nor is what a file of tests leaves behind for good, such as torch's modules and what its compiler remembers."""
    yield
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter):
    """One line about the tests of the page that had no browser, and how to get one."""
    missing = [report for report in terminalreporter.stats.get("skipped", []) if "no browser" in str(report.longrepr)]
    if missing:
        files = ", ".join(sorted({report.nodeid.split("::")[0] for report in missing}))
        reason = missing[0].longrepr[2].removeprefix("Skipped: ")
        terminalreporter.write_line(f"{len(missing)} tests of {files} were left out: {reason}")


@pytest.fixture(autouse=True)
def one_thread():
    yield
    torch.set_num_threads(1)  # whatever a test about threads has set


@pytest.fixture(autouse=True)
def surroundings(request, monkeypatch, tmp_path_factory):
    """No shipped checkpoints, no downloads and no folders of this machine, unless a test asks for them."""
    if "ui" in Path(request.path).relative_to(Path(__file__).parent).parts:
        return
    place = tmp_path_factory.mktemp("place")
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(place / "no-checkpoints"))
    monkeypatch.setenv("IEKD_CACHE_DIR", str(place / "cache"))
    monkeypatch.setenv("IEKD_LOCK_DIR", str(place / "locks"))
    monkeypatch.delenv("IEKD_DATA_DIR", raising=False)
    monkeypatch.delenv("IEKD_RUNS_DIR", raising=False)
    monkeypatch.chdir(place)


@pytest.fixture(scope="session")
def refuses():
    """`refuses(call, *words)`: the call raises a UserError whose message is one line, ends like a sentence, and holds
    the words (the value, the remedy)."""

    def check(call, *words, kind=UserError):
        with pytest.raises(kind) as caught:
            call()
        text = str(caught.value)
        assert "\n" not in text
        assert text[0].isupper() or text[0] in "'\"0123456789", text
        assert text.endswith((".", "?")), text
        for word in words:
            assert str(word) in text, f"{word!r} is not in: {text}"
        return text

    return check


def coloured_images(count: int, size: int, seed: int) -> Split:
    """Noise whose strongest channel is the class: easy, but not trivial."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 160, (count, size, size, 3))
    images[np.arange(count), :, :, 2 - labels] += 90
    return Split(images.clip(0, 255).astype(np.uint8), labels.astype(np.int64))


@pytest.fixture(scope="session")
def tiny() -> Dataset:
    """96 training and 60 test images of 16 x 16 in three classes."""
    return Dataset("tiny", CLASSES, coloured_images(96, 16, 0), coloured_images(60, 16, 1))


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory, tiny) -> Path:
    """The tiny dataset as train/<class>/*.png and test/<class>/*.png."""
    root = tmp_path_factory.mktemp("pictures")
    for part, split in (("train", tiny.train), ("test", tiny.test)):
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            Image.fromarray(image).save(root / part / CLASSES[label] / f"{i:03}.png")
    return root


@pytest.fixture(scope="session")
def tiny_options(picture_folder) -> dict:
    """Options of the smallest run worth the name; a test adds its own."""
    return {
        "dataset": f"folder:{picture_folder}", "resolution": 16, "teacher": "resnet8", "student": "resnet8",
        "epochs": 1, "teacher_epochs": 1, "auto_encoder_epochs": 1, "batch_size": 32,
        "device": "cpu", "precision": "fp32", "validation_fraction": 0,
    }  # fmt: skip


@pytest.fixture(scope="session")
def tiny_config(tiny_options):
    """`tiny_config(**changes)` -> RunConfig."""
    return lambda **changes: make_config(**{**tiny_options, **changes})


@pytest.fixture(scope="session")
def small():
    """`small(**changes)`: for the benchmark; steps take milliseconds, and the first has the full learning rate."""

    def make(**changes):
        values = {
            "dataset": "fashion-mnist-sample", "resolution": 8, "teacher": "resnet8", "student": "resnet8",
            "methods": ("baseline", "ie-ft"), "batch_size": 8, "schedule": "multi-step", "device": "cpu",
            "precision": "fp32",
        }  # fmt: skip
        return make_config(**{**values, **changes})

    return make


@pytest.fixture
def full_float32(monkeypatch):
    """On a GPU, float32 convolutions without TF32's short mantissa: two ways of one step can then be told apart."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="session")
def wait_until():
    """`wait_until(condition)` polls until it is true; the limit is for hangs only, generous on purpose."""

    def wait(condition, limit=600.0):
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail("waited too long")
            time.sleep(0.02)

    return wait


@pytest.fixture
def launcher(tmp_path, wait_until):
    """A launcher; whatever it started and still lives is ended after the test, by its own process id."""
    from iekd.launchers.local import LocalLauncher, worker_process
    from iekd.runs.store import Store

    made = LocalLauncher(Store(tmp_path / "runs"))
    yield made
    for run in made.store.list():
        process = worker_process(run.status)
        if run.alive() and process is not None:
            process.kill()
        wait_until(lambda run=run: not run.alive())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB, and `fill(left)`, which leaves so many bytes of it."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.decode().strip()}")

    def fill(left: int) -> Path:
        filler = place / "filler"
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(place).free - left)
        return filler

    yield place, fill
    # lazily: pytest keeps the log's tracebacks, and with them what a failed attempt had read
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def complete():
    """`complete(store, config)` trains a run in this process; returns it and what its watcher saw."""
    from iekd.runs.worker import execute

    def train(store, config, stop=lambda: False):
        run, handle = store.create(config)
        watched = []
        try:
            execute(run, stop, lambda status, row: watched.append((status.state, status.stage, status.progress, row)))
        finally:
            os.close(handle)
        return run, watched

    return train


@pytest.fixture(scope="session", autouse=True)
def exported_once(tmp_path_factory):
    """What torch's ONNX exporter, which takes seconds, made of a network with the same weights is kept in a file for
    all tests and workers."""
    shared = tmp_path_factory.getbasetemp()
    shared = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "exported"
    shared.mkdir(exist_ok=True)

    def remembering(graph_of):
        def remembered(job):
            import onnx

            told = hashlib.sha256(repr((type(job.model), job.card.mean, job.card.std, job.card.resolution)).encode())
            for name, value in job.model.state_dict().items():
                told.update(name.encode() + value.numpy().tobytes())
            file = shared / told.hexdigest()
            if not file.exists():
                graph = graph_of(job)
                part = file.with_name(f"{file.name}-{os.getpid()}")
                onnx.save(graph, part)
                part.replace(file)
            return onnx.load(file)

        return remembered

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "ROUNDS", 10)  # nothing here asks how fast a network is
        graph_of = remembering(onnx_file.graph_of)
        for module in (onnx_file, int8):
            patch.setattr(module, "graph_of", graph_of)
        yield


@pytest.fixture(scope="session")
def stages():
    """`stages(run)`: the names of the stages that a run went through."""

    def read(run):
        rows = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
        return [row["stage"] for row in rows if row["event"] == "stage"]

    return read


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_config, complete):
    """(run, what its watcher saw) of one complete run: teacher, auto-encoder, two students of two seeds."""
    from iekd.runs.store import Store

    config = tiny_config(methods=("baseline", "ie-ft"), seeds=(0, 1), epochs=2)
    return complete(Store(tmp_path_factory.mktemp("runs")), config)


@pytest.fixture(scope="session")
def written_run():
    """`written_run(store, plain=86.0, taught=88.0, teacher=94.0, **settings)`: the folder of a finished run with those
    accuracies, which nobody trained. Its curves rise to them."""
    from iekd.results.significance import OverImages, summarise
    from iekd.runs.files import write_json
    from iekd.runs.status import FINISHED

    def write(store, plain=86.0, taught=88.0, teacher=94.0, **settings):
        run, handle = store.create(make_config(**settings))
        os.close(handle)
        config, writer = run.config, run.metrics_writer()
        means = {method: plain if method == "baseline" else taught for method in config.methods}
        accuracies = {m: {s: mean + 0.1 * i for i, s in enumerate(config.seeds)} for m, mean in means.items()}
        for epoch in range(1, config.epochs + 1):
            for method, seed in config.learner_names:
                row = {"stage": "students", "learner": f"{method}-seed{seed}", "epoch": epoch, "step": epoch}
                accuracy = accuracies[method][seed] - 10 * (config.epochs - epoch)
                writer.append({**row, "kind": "train", "values": {"cross_entropy": 1.0, "accuracy": 1.0}})
                writer.append({**row, "kind": "test", "values": {"accuracy": accuracy, "loss": 1.0}})
        writer.close()
        images = {m: OverImages(mean - plain - 1, mean - plain + 1, 1000) for m, mean in means.items()}
        report = {
            "run": run.id, "path": str(run.path), "state": FINISHED, "seconds": 75.0, "device": "cpu",
            "dataset": config.dataset, "guess": 10.0, "test_images": 1000, "diverged": {},
            "teacher": {"model": config.teacher, "accuracy": teacher, "params": 9},
            "learners": [{"method": m, "seed": s, "accuracy_last": value, "accuracy_best": value, "params": 3}
                         for m, by_seed in accuracies.items() for s, value in by_seed.items()],
            "summary": [found.to_json() for found in summarise(accuracies, images=images)],
        }  # fmt: skip
        write_json(run.path / "report.json", report)
        run.write_status(replace(run.status, state=FINISHED, started=1.0, ended=76.0))
        return run

    return write


@pytest.fixture
def checkpoints_everywhere(monkeypatch):
    """A checkpoint after each step, however long writing it takes."""
    monkeypatch.setenv("IEKD_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr("iekd.runs.attempt.SHARE", float("inf"))


@pytest.fixture(scope="session")
def fresh_python():
    """`fresh_python(code)` runs code in an interpreter of its own that imports this checkout; returns its output."""

    def run(code, *, check=True):
        path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done.stdout

    return run
