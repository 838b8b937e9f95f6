"""Names that the console cannot show, folders instead of files, and folders that cannot be written: as processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
CLASSES = ("Ж", "犬", "naïve 🙂")
OPTIONS = [
    "--methods", "baseline", "--teacher", "none", "--student", "resnet8", "--epochs", "1", "--resolution", "16",
    "--batch-size", "8", "--device", "cpu", "--name", "Versuch 犬",
]  # fmt: skip


def iekd(*words, cwd, **environment):
    own = {"PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment}
    command = [sys.executable, "-m", "iekd", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **own}, capture_output=True, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures of classes that few consoles can show."""
    root = tmp_path_factory.mktemp("place")
    for i, name in enumerate(CLASSES):
        folder = root / "tiere 犬" / name
        folder.mkdir(parents=True)
        for j in range(12):
            Image.new("RGB", (16, 16), (80 * i, 10 * j, 40)).save(folder / f"犬{j}.png")
    return root


@pytest.fixture(scope="module")
def trained(place):
    """(folder of runs, the run, how `iekd train` ended) with a console of Western Europe."""
    runs = place / "runs"
    done = iekd("train", "--dataset", "folder:tiere 犬", *OPTIONS, "--runs-dir", runs, cwd=place,
                PYTHONIOENCODING="cp1252")  # fmt: skip
    (run,) = [path for path in runs.iterdir() if not path.name.startswith(".")]
    return runs, run, done


def shown(text, encoding):
    return text.encode(encoding, "backslashreplace")


def test_training_ends_well_on_a_console_that_cannot_show_a_name(trained):
    _, run, done = trained
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert "Error" not in (run / "log.txt").read_text("utf-8")
    assert "犬" in (run / "report.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("encoding", "words", "name"),
    [
        ("ascii", ["runs", "list"], "Versuch 犬"), ("cp1252", ["runs", "show", "RUN"], "犬"),
        ("ascii", ["compare", "--run", "RUN", "tiere 犬/naïve 🙂"], "naïve 🙂"),
        ("cp1252", ["compare", "--run", "RUN", "nichts 犬.png"], "nichts 犬.png"),
        ("cp1252", ["eval", "--checkpoint", "MODEL", "--dataset", "folder:fehlt 犬"], "fehlt 犬"),
        ("ascii", ["train", "--dataset", "folder:fehlt 犬"], "fehlt 犬"), ("ascii", ["--help"], "iekd"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)  # fmt: skip
def test_every_command_shows_what_it_can(trained, place, encoding, words, name):
    runs, run, _ = trained
    replaced = [w.replace("RUN", run.name).replace("MODEL", str(run / "models" / "baseline-seed0")) for w in words]
    done = iekd(*replaced, cwd=place, PYTHONIOENCODING=encoding, IEKD_RUNS_DIR=str(runs))
    assert b"Traceback" not in done.stderr
    assert done.returncode == (1 if name.endswith(".png") else 2 if name.startswith("fehlt") else 0)
    assert shown(name, encoding) in done.stdout + done.stderr


def test_a_grid_is_shown_too(place):
    done = iekd(
        "table", "--dataset", "folder:tiere 犬", "--pairs", "resnet8:resnet8", "--methods", "baseline", "--epochs", 1,
        "--teacher-epochs", 1, "--resolution", 16, "--batch-size", 8, "--device", "cpu",
        "--runs-dir", "grid", "--out", "tafel 犬", cwd=place, PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    assert shown("tafel 犬", "ascii") in done.stdout


def test_compare_takes_the_images_of_a_folder(trained, place):
    import json

    runs, trained_run, _ = trained
    run = trained_run.name
    mixed = place / "mixed"
    if not mixed.is_dir():
        shutil.copytree(place / "tiere 犬" / "Ж", mixed / "inner")
        (mixed / "notes.txt").write_text("no image")
        (mixed / ".hidden").mkdir()
        shutil.copy(mixed / "inner" / "犬0.png", mixed / ".hidden" / "x.png")
    answer = iekd("compare", "--run", run, "mixed", "'mixed/inner/犬1.png'", "--runs-dir", runs, "--json", cwd=place)
    assert answer.returncode == 0, answer.stderr
    images = json.loads(answer.stdout.splitlines()[-1])["images"]
    inside = sorted(str(path.relative_to(place)) for path in (mixed / "inner").iterdir())
    assert [image["path"] for image in images] == [*inside, "mixed/inner/犬1.png"]
    assert all(image["predictions"] for image in images)
    (place / "empty").mkdir(exist_ok=True)
    answer = iekd("compare", "--run", run, "empty", "--runs-dir", runs, cwd=place, PYTHONIOENCODING="utf-8")
    assert answer.returncode == 1
    assert "The folder 'empty' has no images" in answer.stderr.decode()


@pytest.mark.parametrize(
    ("words", "variable"),
    [
        (["train", "--dataset", "folder:tiere.zip", *OPTIONS, "--runs-dir", "runs"], "IEKD_CACHE_DIR"),
        (["train", "--dataset", "cifar10", *OPTIONS, "--runs-dir", "runs"], "IEKD_CACHE_DIR"),
        (["train", "--dataset", "folder:tiere 犬", *OPTIONS, "--runs-dir", "/proc/nothing"], "IEKD_RUNS_DIR"),
        (["serve", "--runs-dir", "/proc/nothing"], "IEKD_RUNS_DIR"),
    ],
    ids=["zip", "download", "runs", "page"],
)
def test_a_folder_that_cannot_be_written_is_named_with_its_variable(place, words, variable):
    if not (place / "tiere.zip").is_file():
        shutil.make_archive(str(place / "tiere"), "zip", place / "tiere 犬")
    environment = {"HOME": "/proc/nothing", "IEKD_CACHE_DIR": "", "PYTHONIOENCODING": "utf-8"}
    done = iekd(*words, cwd=place, **environment)
    said = done.stderr.decode()
    assert done.returncode in (1, 2)
    assert "Traceback" not in said
    assert "'/proc/nothing" in said
    assert "cannot be written" in said
    assert variable in said
