"""`iekd export --format web`: which models of a run come on the page."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from iekd.cli.common import out
from iekd.cli.export import print_certificates
from iekd.cli.main import app
from iekd.export import Certificate
from iekd.runs.models import models_of_page
from iekd.runs.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def run(store, complete, tiny_config):
    """Two methods and two seeds."""
    return complete(store, tiny_config(methods=("baseline", "ie-ft"), seeds=(0, 1)))[0]


def names(folders):
    return [folder.name for folder in folders]


def test_a_run_is_its_teacher_and_the_students_of_one_seed(run, refuses):
    assert names(models_of_page(run)) == ["teacher", "baseline-seed0", "ie-ft-seed0"]
    assert names(models_of_page(run, "1")) == ["teacher", "baseline-seed1", "ie-ft-seed1"]
    assert names(models_of_page(run, "ie-ft-seed1")) == ["teacher", "ie-ft-seed1"]
    assert names(models_of_page(run, "teacher")) == ["teacher"]
    refuses(lambda: models_of_page(run, "kd-seed0"), "kd-seed0", "ie-ft-seed0")


def test_the_command_writes_the_page_and_says_what_was_checked(store, run, tmp_path):
    words = ["export", run.id, "--format", "web", "--out", tmp_path / "page", "--title", "Colours", "--examples", 2]
    done = CliRunner().invoke(app, [*map(str, words), "--runs-dir", str(store.root), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert [c["file"] for c in found["certificates"]] == ["0-teacher.onnx", "1-baseline.onnx", "2-ie-ft.onnx"]
    assert all(c["test_images"] == 60 for c in found["certificates"])
    with out.capture() as shown:
        print_certificates([Certificate.from_json(values) for values in found["certificates"]])
    for values in found["certificates"]:
        (line,) = (line for line in shown.get().splitlines() if values["file"] in line)
        assert f"{values['accuracy']:.2f}" in line
    page = (tmp_path / "page" / "index.html").read_text("utf-8")
    assert "<h1>Colours</h1>" in page
    assert len(list((tmp_path / "page" / "examples").iterdir())) == 2
    again = CliRunner().invoke(app, [*map(str, words), "--runs-dir", str(store.root)])
    assert again.exit_code == 2
    assert "is there already" in again.output


def test_a_folder_is_this_model_alone_and_a_stranger_is_named(store, run, tmp_path):
    folder = run.path / "models" / "ie-ft-seed0"
    words = ["export", folder, "--format", "web", "--out", tmp_path / "page", "--dataset", "none"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert "The page is in" in done.output
    assert "test images are part of it" not in done.output
    assert [path.name for path in (tmp_path / "page" / "models").glob("*.onnx")] == ["0-ie-ft.onnx"]
    words[1], words[5] = "no-such-run", tmp_path / "other"
    done = CliRunner().invoke(app, [*map(str, words), "--runs-dir", str(store.root)])
    assert done.exit_code == 2
    assert "no-such-run" in done.output
    assert not (tmp_path / "other").exists()
