"""The command line as a person or a script meets it: options, output, exit status."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import iekd
from iekd.cli.main import app
from iekd.cli.progress import Display
from iekd.config.methods import METHODS, combined, method_spec
from iekd.launchers.local import LocalLauncher
from iekd.models.artifact import load_model
from iekd.runs.status import RUNNING, Status
from iekd.runs.store import Store

TRAIN_KEYS = {"run", "path", "state", "seconds", "teacher", "learners", "diverged", "dataset", "device"}


@contextlib.contextmanager
def own_signals():
    """`iekd train` takes over the signals of its process, which here is the tests'."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def iekd_(*words, **environment):
    with own_signals():
        return CliRunner().invoke(app, [str(w) for w in words], env=environment)


@pytest.mark.parametrize("command", ["models", "datasets"])
def test_names_are_whole_in_a_narrow_terminal(command):
    words = [sys.executable, "-m", "iekd", command]
    shown = subprocess.run(words, env={**os.environ, "COLUMNS": "80"}, capture_output=True, text=True, check=True)
    told = subprocess.run([*words, "--json"], capture_output=True, text=True, check=True)
    names = [row["name"] for rows in json.loads(told.stdout).values() for row in rows if isinstance(rows, list)]
    assert len(names) > 3
    assert [name for name in names if name not in shown.stdout] == []
    assert max(map(len, shown.stdout.splitlines())) <= 80


def last_json(result) -> dict:
    return json.loads(result.stdout.strip().splitlines()[-1], parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def options(tiny_options):
    return [word for key, value in tiny_options.items() for word in (f"--{key.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, options):
    """(runs directory, result of `iekd train --json`)"""
    runs = tmp_path_factory.mktemp("cli") / "runs"
    result = iekd_("train", *options, "--methods", "baseline,ie-ft", "--seeds", "0,1", "--runs-dir", runs, "--json")
    return runs, result


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("to compare")
    rng = np.random.default_rng(0)
    for name in ("a.png", "b ü.png"):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"<html>")
    return folder


def test_train_prints_its_results_as_the_last_line(trained, picture_folder):
    runs, result = trained
    assert result.exit_code == 0, result.stderr
    printed = last_json(result)
    assert set(printed) == TRAIN_KEYS
    assert printed["state"] == "finished"
    assert printed["dataset"] == f"folder:{picture_folder}"
    assert printed["device"] == "cpu"
    assert printed["seconds"] > 0
    assert Path(printed["path"]).is_dir()
    assert Path(printed["path"]).parent == runs
    assert Path(printed["path"]).name == printed["run"]
    assert set(printed["teacher"]) == {"model", "accuracy", "params"}
    assert printed["teacher"]["model"] == "resnet8"
    assert [(r["method"], r["seed"]) for r in printed["learners"]] == [
        ("baseline", 0), ("ie-ft", 0), ("baseline", 1), ("ie-ft", 1)
    ]  # fmt: skip
    for learner in printed["learners"]:
        assert set(learner) == {"method", "seed", "accuracy_last", "accuracy_best", "params"}
        assert 0 <= learner["accuracy_last"] <= learner["accuracy_best"] <= 100
        assert learner["params"] == 77_587  # resnet8, colour, three classes


def test_standard_output_is_for_the_json_alone(trained):
    assert len(trained[1].stdout.strip().splitlines()) == 1


def test_train_leaves_a_folder_with_loadable_models(trained):
    runs, result = trained
    run = Store(runs).get(last_json(result)["run"])
    assert set(run.model_folders) == {"teacher", "baseline-seed0", "ie-ft-seed0", "baseline-seed1", "ie-ft-seed1"}
    for folder in run.model_folders.values():
        load_model(folder)
    assert not run.alive()


def test_every_method_trains(options, tmp_path):
    """From the command's options to the report, with every term of its loss in the metrics."""
    names = [*METHODS, *combined()]
    result = iekd_("train", *options, "--methods", ",".join(names), "--runs-dir", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    printed = last_json(result)
    assert [learner["method"] for learner in printed["learners"]] == names
    assert printed["diverged"] == {}
    run = Store(tmp_path).get(printed["run"])
    trained = [row for row in run.metrics()[0] if row["stage"] == "students" and row["kind"] == "train"]
    for name in names:
        (row, *_) = [row["values"] for row in trained if row["learner"] == f"{name}-seed0"]
        spec = method_spec(name)
        assert set(row) == {"loss", "lr", "accuracy", "cross_entropy", *(term.name for term in spec.terms)}
        assert spec.explores or all(row[term.name] > 0 for term in spec.terms), name
        assert f"{name}-seed0" in run.model_folders


def test_train_shows_a_table_to_people(options, tmp_path):
    result = iekd_(
        "train", *options, "--methods", "baseline", "--teacher", "none", "--name", "[red]x", "--runs-dir", tmp_path
    )
    assert result.exit_code == 0, result.stderr
    for words in ("baseline", "parameters", "77,587", "is finished", str(tmp_path)):
        assert words in result.stdout


def test_the_runs_directory_may_be_in_the_environment(options, tmp_path):
    result = iekd_(
        "train", *options, "--methods", "baseline", "--teacher", "none", "--json", IEKD_RUNS_DIR=str(tmp_path / "r")
    )
    assert result.exit_code == 0, result.stderr
    assert len(Store(tmp_path / "r").list()) == 1


def test_a_failed_run_is_exit_status_one(options, tmp_path):
    broken = ["--lr", "100", "--weight-decay", "1", "--epochs", "50", "--schedule", "cosine"]
    result = iekd_(
        "train", *options, "--methods", "baseline", "--teacher", "none", *broken, "--runs-dir", tmp_path, "--json"
    )
    assert result.exit_code == 1
    assert "learning rate" in result.stderr
    printed = last_json(result)
    assert set(printed) >= TRAIN_KEYS
    assert printed["state"] == "failed"
    assert "learning rate" in printed["error"]


def test_the_version_is_printed():
    result = iekd_("--version")
    assert (result.exit_code, result.stdout.strip()) == (0, iekd.__version__)


def test_a_run_in_the_background_needs_no_terminal(options, tmp_path, wait_until):
    words = ("--methods", "baseline", "--teacher", "none", "--runs-dir", tmp_path, "--json")
    result = iekd_("train", *options, *words, "--detach")
    assert result.exit_code == 0, result.stderr
    run = Store(tmp_path).get(last_json(result)["run"])
    wait_until(lambda: not run.status.live)
    assert run.status.state == "finished"


def test_training_continues_when_its_output_is_closed(tmp_path, tiny_config):
    """As in `iekd train | head -1`."""
    read, write = os.pipe()
    os.close(read)
    run, handle = Store(tmp_path).create(tiny_config(methods=("baseline",), teacher="none"))
    os.close(handle)
    file = os.fdopen(write, "w")
    row = {"kind": "test", "epoch": 1.0, "learner": "baseline-seed0", "values": {"accuracy": 50.0}}
    try:
        display = Display(Console(file=file), run.id)
        display.__enter__()
        for _ in range(3):
            display.update(run.status, row)
        assert not display.seen
        display.__exit__(None, None, None)
    finally:
        with contextlib.suppress(OSError):
            file.close()


def test_progress_says_how_far_reading_is():
    display = Display(Console(file=io.StringIO()), "a run")
    for progress, said in ((0.0, "loading"), (0.45, "reading images, 45%"), (1.0, "loading")):
        display.update(Status(state="running", stage="loading", stage_progress=progress), None)
        assert display.bar.tasks[0].description == said


def test_progress_says_what_is_left():
    display = Display(Console(file=io.StringIO()), "a run")
    display.update(Status(state="running", stage="students", eta_range=(180.0, 360.0)), None)
    assert display.bar.tasks[0].fields["left"] == "about 3 to 6 min left"
    display.update(Status(state="running", stage="students"), None)
    assert display.bar.tasks[0].fields["left"] == ""


def test_one_interrupt_stops_and_keeps(options, tmp_path, wait_until):
    """Ctrl-C in a terminal: the run is stopped, the JSON is printed, models are saved, exit status 130."""
    path = os.pathsep.join([str(Path(iekd.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    words = [
        "train",
        *options,
        "--methods",
        "baseline",
        "--teacher",
        "none",
        "--epochs",
        "10000",
        "--runs-dir",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "iekd", *words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        store = Store(tmp_path)
        wait_until(lambda: process.poll() is not None or any(run.metrics()[0] for run in store.list()))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    printed = json.loads(stdout.strip().splitlines()[-1])
    assert printed["state"] == "stopped"
    load_model(store.get(printed["run"]).model_folders["baseline-seed0"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "fashion-minst"], ["fashion-minst", "fashion-mnist"]),
        (["--dataset", "folder:/no/such/folder"], ["/no/such/folder"]),
        (["--teacher", "resnet-20"], ["resnet-20", "resnet20"]),
        (["--student", "resnet9"], ["resnet9", "resnet"]),
        (["--methods", "ie_ft"], ["ie_ft", "ie-ft"]),
        (["--methods", ","], ["Methods"]),
        (["--methods", ""], ["Methods"]),
        (["--seeds", "one"], ["one", "0,1,2"]),
        (["--seeds", ""], ["Seeds"]),
        (["--seeds", "0,0"], ["0", "twice"]),
        (["--epochs", "0"], ["0", "1"]),
        (["--epochs", "-1"], ["-1"]),
        (["--epochs", "ten"], ["ten"]),
        (["--lr", "0"], ["0"]),
        (["--lr", "nan"], ["nan"]),
        (["--batch-size", "1"], ["1", "2"]),
        (["--inheritance-weight", "-5"], ["-5"]),
        (["--teacher-from", "nowhere.pth"], ["nowhere.pth", "file"]),
        (["--teacher-from", "run:nothing"], ["no run 'nothing'"]),
        (["--teacher-from", "train", "--teacher-mean", "0.5", "--teacher-std", "0.5"], ["teacher's file only"]),
        (["--teacher-mean", "red"], ["Teacher mean 'red'", "0.491,0.482,0.447"]),
        (["--teacher-mean", "0.5"], ["Teacher std is missing"]),
        (["--limit-train", "-1"], ["-1"]),
        (["--device", "gpu"], ["gpu", "cuda"]),
        (["--schedule", "linear"], ["linear", "cosine"]),
        (["--precision", "fp8"], ["fp8", "bf16"]),
        (["--teacher", "none"], ["teacher", "ie-ft"]),
        (["--epoch", "3"], ["--epoch", "--epochs"]),
        (["--device", "mps"], ["'mps'", "Choose 'auto' or 'cpu'"]),  # tests run on Linux
    ],
    ids=lambda v: "".join(v) if isinstance(v, list) else "",
)
def test_bad_options_are_exit_status_two_and_start_nothing(tmp_path, words, said):
    result = iekd_("train", *words, "--runs-dir", tmp_path / "runs")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in said:
        assert word in result.stderr
    assert not (tmp_path / "runs").exists()


def test_an_option_without_effect_is_reported_and_the_run_trains(options, tmp_path):
    words = ["--methods", "baseline", "--temperature", "2", "--no-auto-encoder", "--runs-dir", tmp_path, "--json"]
    result = iekd_("train", *options, *words)
    assert last_json(result)["state"] == "finished"
    notes = {line.split()[1]: line for line in result.stderr.splitlines() if "no effect" in line}
    assert notes.keys() == {"--auto-encoder", "--auto-encoder-epochs", "--temperature"}
    assert "kd, dkd, dist" in notes["--temperature"]


def test_a_teacher_from_an_earlier_run(trained, options, picture_folder):
    """`--teacher-from` with a run of the same folder, and then with the file of one of its models."""
    runs, result = trained
    run = Store(runs).get(last_json(result)["run"])
    folder = run.model_folders["ie-ft-seed1"]
    (student,) = (r for r in last_json(result)["learners"] if (r["method"], r["seed"]) == ("ie-ft", 1))
    for source in (f"run:{run.id}/ie-ft-seed1", folder, folder / "model.safetensors"):
        words = ["--methods", "baseline", "--teacher-from", source, "--runs-dir", runs, "--json"]
        printed = last_json(iekd_("train", *options, *words))
        assert printed["state"] == "finished"
        assert printed["teacher"]["accuracy"] == pytest.approx(student["accuracy_last"])
    several = iekd_("train", *options, "--teacher-from", f"run:{run.id}", "--runs-dir", runs)
    assert several.exit_code == 2
    assert f"run:{run.id}/baseline-seed0" in several.stderr.replace("\n", " ")


def test_an_unwritable_runs_directory(tmp_path, options):
    (tmp_path / "file").write_text("")
    result = iekd_("train", *options, "--runs-dir", tmp_path / "file" / "runs")
    assert result.exit_code == 2
    assert str(tmp_path / "file" / "runs") in result.stderr
    assert "--runs-dir" in result.stderr


def test_the_list_has_means_over_seeds_and_names_what_diverged(trained, tmp_path, picture_folder):
    before, result = trained
    run = Store(before).get(last_json(result)["run"])
    accuracies = [r["accuracy_last"] for r in run.report["learners"] if r["method"] == "ie-ft"]
    shutil.copytree(run.path, tmp_path / run.id)
    copy = Store(tmp_path).get(run.id)
    copy.write_status(replace(copy.status, diverged={"kd-seed0": "it did"}))
    shown = " ".join(iekd_("runs", "list", "--runs-dir", tmp_path).stdout.split())
    assert f"ie-ft {np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f} (2 seeds)" in shown
    assert "kd-seed0 diverged" in shown
    assert f"folder:.../{Path(picture_folder).name}" in shown
    assert str(picture_folder) not in shown
    (row,) = last_json(iekd_("runs", "list", "--runs-dir", tmp_path, "--json"))["runs"]
    assert list(row["diverged"]) == ["kd-seed0"]
    assert row["dataset"] == f"folder:{picture_folder}"


def test_list_show_and_delete(options, tmp_path):
    trained = last_json(
        iekd_(
            "train",
            *options,
            "--methods",
            "baseline",
            "--teacher",
            "none",
            "--name",
            "mine",
            "--runs-dir",
            tmp_path,
            "--json",
        )
    )
    run_id = trained["run"]

    (row,) = last_json(iekd_("runs", "list", "--runs-dir", tmp_path, "--json"))["runs"]
    assert (row["run"], row["name"], row["state"], row["methods"], row["seeds"]) == (
        run_id,
        "mine",
        "finished",
        ["baseline"],
        [0],
    )
    assert row["learners"] == trained["learners"]
    table = iekd_("runs", "list", "--runs-dir", tmp_path)
    assert table.exit_code == 0
    assert run_id in table.stdout

    shown = last_json(iekd_("runs", "show", run_id, "--runs-dir", tmp_path, "--json"))
    assert shown["run"] == run_id
    assert shown["status"]["state"] == "finished"
    assert shown["config"]["name"] == "mine"
    assert shown["report"]["learners"][0]["method"] == "baseline"
    page = iekd_("runs", "show", run_id, "--runs-dir", tmp_path)
    assert page.exit_code == 0
    for words in (run_id, "iekd train", "baseline", "The run is finished."):
        assert words in page.stdout

    again = iekd_("runs", "stop", run_id, "--runs-dir", tmp_path)
    assert again.exit_code == 2
    assert "finished already" in again.stderr

    assert last_json(iekd_("runs", "delete", run_id, "--runs-dir", tmp_path, "--json")) == {
        "run": run_id,
        "deleted": True,
    }
    assert last_json(iekd_("runs", "list", "--runs-dir", tmp_path, "--json")) == {"runs": []}
    gone = iekd_("runs", "show", run_id, "--runs-dir", tmp_path)
    assert gone.exit_code == 2
    assert run_id in gone.stderr


def test_a_running_run_is_stopped(tmp_path, tiny_config, wait_until):
    store = Store(tmp_path)
    run = store.get(LocalLauncher(store).submit(tiny_config(methods=("baseline",), teacher="none", epochs=10_000)))
    wait_until(lambda: run.status.state == RUNNING and run.metrics()[0])
    refused = iekd_("runs", "delete", run.id, "--runs-dir", tmp_path)
    assert refused.exit_code == 2
    assert "Stop it first" in refused.stderr
    assert last_json(iekd_("runs", "stop", run.id, "--runs-dir", tmp_path, "--json")) == {
        "run": run.id,
        "state": "stopped",
    }
    assert not run.alive()


def test_deleting_asks_at_a_terminal_and_nowhere_else(tmp_path, tiny_config):
    """A pipe is not asked: scripts would wait for ever."""
    import pty

    store = Store(tmp_path)
    for answer, gone in (("n", False), ("y", True)):
        run, handle = store.create(tiny_config())
        os.close(handle)
        run.write_status(replace(run.status, state="stopped"))
        ours, theirs = pty.openpty()
        words = [sys.executable, "-m", "iekd", "runs", "delete", run.id, "--runs-dir", str(tmp_path)]
        with subprocess.Popen(words, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as asked:
            os.write(ours, f"{answer}\n".encode())
            said = asked.communicate(timeout=60)[0].decode()
        os.close(ours)
        os.close(theirs)
        assert "cannot be undone" in said
        assert run.path.is_dir() != gone
    assert iekd_("runs", "delete", store.list()[0].id, "--runs-dir", tmp_path).exit_code == 0


@pytest.mark.parametrize("command", ["show", "stop", "delete"])
def test_a_run_that_does_not_exist(trained, command):
    runs, result = trained
    run_id = last_json(result)["run"]
    nearly = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")
    answer = iekd_("runs", command, nearly, "--runs-dir", runs)
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert f"Did you mean '{run_id}'" in answer.stderr.replace("\n", " ")


def test_no_runs_yet(tmp_path):
    result = iekd_("runs", "list", "--runs-dir", tmp_path / "none")
    assert result.exit_code == 0
    assert "No runs" in result.stdout
    assert not (tmp_path / "none").exists(), "looking creates nothing"


def test_a_broken_run_does_not_hide_the_others(tmp_path, tiny_config):
    store = Store(tmp_path)
    (good, a), (bad, b) = store.create(tiny_config()), store.create(tiny_config())
    os.close(a), os.close(b)
    (bad.path / "config.json").write_text("{")
    result = iekd_("runs", "list", "--runs-dir", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    assert good.id in [row["run"] for row in last_json(result)["runs"]]
    assert iekd_("runs", "delete", bad.id, "--runs-dir", tmp_path).exit_code == 0


def test_compare_says_what_each_model_says(trained, pictures):
    runs, result = trained
    files = [pictures / "a.png", pictures / "b ü.png"]
    answer = iekd_("compare", "--run", last_json(result)["run"], *files, "--runs-dir", runs, "--json")
    assert answer.exit_code == 0, answer.stderr
    images = last_json(answer)["images"]
    assert [image["path"] for image in images] == [str(f) for f in files]
    for image in images:
        assert set(image) - {"unlike"} == {"path", "predictions"}
        assert list(image["predictions"]) == ["teacher", "baseline", "ie-ft"]
        for said in image["predictions"].values():
            assert {p["label"] for p in said} == {"blue", "green", "red"}
            scores = [p["score"] for p in said]
            assert scores == sorted(scores, reverse=True)
            assert sum(scores) == pytest.approx(1, abs=1e-5)
    table = iekd_("compare", "--run", last_json(result)["run"], *files, "--runs-dir", runs)
    assert table.exit_code == 0
    assert "ie-ft" in table.stdout


def test_a_broken_picture_is_named_and_the_good_ones_are_answered(trained, pictures):
    runs, result = trained
    answer = iekd_(
        "compare", "--run", last_json(result)["run"], *(pictures / f for f in ("a.png", "broken.png", "none.png")),
        "--runs-dir", runs, "--json",
    )  # fmt: skip
    assert answer.exit_code == 1
    assert "broken.png" in answer.stderr
    assert "none.png" in answer.stderr
    good, broken, none = last_json(answer)["images"]
    assert good["predictions"]["teacher"]
    assert broken["predictions"] == none["predictions"] == {}
    assert broken["error"]


def test_compare_without_models(trained, pictures, tmp_path, tiny_config):
    answer = iekd_("compare", pictures / "a.png", "--runs-dir", trained[0])
    assert answer.exit_code == 2
    assert "shipped" in answer.stderr
    answer = iekd_("compare", "--run", "nonsense", pictures / "a.png", "--runs-dir", trained[0])
    assert answer.exit_code == 2
    assert "nonsense" in answer.stderr
    empty, handle = Store(tmp_path).create(tiny_config())
    os.close(handle)
    answer = iekd_("compare", "--run", empty.id, pictures / "a.png", "--runs-dir", tmp_path)
    assert answer.exit_code == 2
    assert empty.id in answer.stderr


def test_models_and_datasets_are_listed():
    printed = last_json(iekd_("models", "--json"))
    assert {"resnet8", "resnet20", "resnet56"} <= {m["name"] for m in printed["models"]}
    assert printed["checkpoints"] == []
    assert "resnet110" in iekd_("models").stdout
    names = [d["name"] for d in last_json(iekd_("datasets", "--json"))["datasets"]]
    assert names == ["fashion-mnist-sample", "cifar10-sample", "fashion-mnist", "cifar10", "cifar100"]
    listed = iekd_("datasets").stdout
    for name in [*names, "folder:PATH"]:
        assert name in listed


def test_shipped_models_are_listed_with_or_without_an_accuracy(trained, tmp_path):
    runs, result = trained
    shipped = tmp_path / "shipped"
    shutil.copytree(Store(runs).get(last_json(result)["run"]).model_folders["teacher"], shipped / "one")
    card = json.loads((shipped / "one" / "model.json").read_text())
    shutil.copytree(shipped / "one", shipped / "two")
    (shipped / "two" / "model.json").write_text(json.dumps({**card, "accuracy": None}))
    printed = last_json(iekd_("models", "--json", IEKD_CHECKPOINTS_DIR=str(shipped)))
    assert [c["name"] for c in printed["checkpoints"]] == ["one", "two"]
    listed = iekd_("models", IEKD_CHECKPOINTS_DIR=str(shipped))
    assert listed.exit_code == 0, listed.exception
    assert "one" in listed.stdout


@pytest.mark.parametrize(
    "words", [[], ["runs"], ["--help"], ["train", "--help"], ["runs", "list", "--help"], ["serve", "--help"]]
)
def test_help_is_at_hand(words):
    assert "Usage" in iekd_(*words).output


@pytest.mark.parametrize("words", [["trian"], ["runs", "sow"], ["compare"], ["runs", "show"], ["serve", "--port", "x"]])
def test_misspelt_commands_are_exit_status_two(words):
    result = iekd_(*words)
    assert result.exit_code == 2
    assert result.stderr


def test_the_module_is_the_command(fresh_python):
    code = "import sys, runpy; sys.argv = ['iekd', 'models', '--json']; runpy.run_module('iekd', run_name='__main__')"
    assert "resnet8" in fresh_python(code)


def test_training_says_first_what_it_will_take(options, tmp_path, monkeypatch):
    """On standard error, so that --json stays JSON; and in yellow where memory is short."""
    from iekd.runs import estimate

    words = ["train", *options, "--teacher", "none", "--methods", "baseline", "--json", "--runs-dir", tmp_path]
    result = iekd_(*words)
    assert result.exit_code == 0, result.output
    assert last_json(result)["state"] == "finished"
    said = next(line for line in result.stderr.splitlines() if line.startswith("Estimate: about "))
    assert result.stderr.index(said) < result.stderr.index("Run ")
    assert "MB of memory" in said
    assert "The run needs about" not in result.stderr
    monkeypatch.setattr(estimate, "free_memory", lambda: 1e6)
    monkeypatch.setattr(estimate.psutil, "swap_memory", lambda: type("Swap", (), {"free": 0}))
    result = iekd_(*words)
    assert "Warning: The run needs about" in result.stderr
    assert result.exit_code == 1, "what surely cannot fit is not begun"
    assert "1 MB are free" in last_json(result)["error"]


def test_the_list_says_what_a_run_waits_for(tmp_path, tiny_config):
    run, handle = Store(tmp_path).create(tiny_config())
    run.write_status(Status(waiting="Waiting for the GPU, which run 7 of user ada uses."))
    assert "which run 7" in " ".join(iekd_("runs", "list", "--runs-dir", tmp_path).stdout.split())
    assert "run 7" in last_json(iekd_("runs", "list", "--json", "--runs-dir", tmp_path))["runs"][0]["waiting"]
    os.close(handle)
