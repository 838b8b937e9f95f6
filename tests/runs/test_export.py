"""Exports of a run's models: its own dataset and teacher are found, and what is not there is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.engine.scoring import balanced_accuracy
from iekd.export import FORMATS, Certificate
from iekd.models.artifact import CARD, ModelCard
from iekd.runs import exported
from iekd.runs.export import export_saved, run_of
from iekd.runs.exported import certificates_in, export_folder, export_in_run
from iekd.runs.store import Run, Store
from iekd.runs.transfer import export_run


@pytest.fixture
def run(finished, tmp_path) -> Run:
    """A copy of a finished run: teacher, baseline and ie-ft of two seeds."""
    shutil.copytree(finished[0].path, tmp_path / "runs" / finished[0].id)
    return Store(tmp_path / "runs").get(finished[0].id)


def iekd_(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def exporting(run, learner, *words):
    done = iekd_("export", f"{run.id}/{learner}", "--runs-dir", run.path.parent, *words, "--json")
    return done, (json.loads(done.stdout.splitlines()[-1]) if done.exit_code == 0 else None)


def test_a_learner_is_checked_on_its_own_test_images(run, tmp_path):
    done, told = exporting(run, "ie-ft-seed1", "--format", "onnx", "--out", tmp_path / "shoes.onnx", "--license", "MIT")
    assert done.exit_code == 0, done.output
    (row,) = (r for r in run.report["learners"] if (r["method"], r["seed"]) == ("ie-ft", 1))
    found = told["certificate"]
    assert found["accuracy"] == pytest.approx(row["accuracy_last"])
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy(row["class_accuracy"].values()))
    assert found["test_images"] == run.report["test_images"]
    assert [row["model"] for row in found["latencies"]] == ["teacher", "student", "shoes.onnx"]
    assert found["not_checked"] == found["warnings"] == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "shoes.certificate.json", "shoes.certificate.md", "shoes.onnx", "shoes.use_it.py",
    ]  # fmt: skip
    assert told["beside"]["use_it.py"] == str(tmp_path / "shoes.use_it.py")
    assert json.loads(Path(told["beside"]["certificate.json"]).read_text()) == found
    assert "Comparing with the original" in done.stderr


def test_no_place_of_this_machine_goes_with_it(run, tmp_path):
    exporting(run, "ie-ft-seed0", "--out", tmp_path / "out")
    data = Path(run.config.dataset.removeprefix("folder:"))
    for path in (tmp_path / "out").iterdir():
        for place in (data.parent, tmp_path):
            assert str(place).encode() not in path.read_bytes(), path.name
    page = (tmp_path / "out" / "certificate.md").read_text()
    assert f"iekd export {run.id}/ie-ft-seed0 --format onnx" in page
    assert f"--dataset folder:{data.name}" in page


def test_where_the_images_are_gone_it_is_exported_and_said(run, tmp_path):
    config = run.config.model_copy(update={"dataset": f"folder:{tmp_path / 'gone'}"})
    (run.path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    done, told = exporting(run, "baseline-seed0", "--format", "safetensors", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert told["certificate"]["accuracy"] is None
    (said,) = told["certificate"]["not_checked"]
    assert said.startswith("The accuracy: ")
    assert "'gone'" in said
    assert str(tmp_path) not in said, "the certificate goes to others"


def changed_since(run, tmp_path):
    """The run's dataset as a folder of its own in which a file has been replaced since."""
    copy = tmp_path / "pictures"
    shutil.copytree(run.config.dataset.removeprefix("folder:"), copy)
    config = run.config.model_copy(update={"dataset": f"folder:{copy}"})
    (run.path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(next(copy.rglob("test/red/*.png")))
    return config.dataset


def test_images_that_have_changed_are_not_those_of_the_run(run, tmp_path):
    name = changed_since(run, tmp_path)
    certificate = export_saved(run.model_folders["teacher"], "safetensors", tmp_path / "out")
    assert certificate.accuracy is None
    assert "changed" in certificate.not_checked[0]
    certificate = export_saved(run.model_folders["teacher"], "safetensors", tmp_path / "again", dataset=name)
    assert certificate.accuracy is not None, "asked for by name"


def test_no_dataset_on_purpose(run, tmp_path):
    certificate = export_saved(run.model_folders["teacher"], "safetensors", tmp_path / "out", dataset="none")
    assert certificate.not_checked == ("The accuracy: No dataset was asked for.",)


def test_a_model_that_has_left_its_run(run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run.model_folders["ie-ft-seed0"], moved)
    assert run_of(moved) is None
    assert run_of(run.model_folders["ie-ft-seed0"]).id == run.id
    certificate = export_saved(moved, "safetensors", tmp_path / "out")
    assert "--dataset" in certificate.not_checked[0]
    again = export_saved(moved, "safetensors", tmp_path / "again", dataset=run.config.dataset)
    assert again.accuracy == pytest.approx(ModelCard.read(moved).accuracy)


def test_a_dataset_that_would_have_to_be_downloaded_is_not(run, tmp_path, monkeypatch):
    moved = tmp_path / "moved"
    shutil.copytree(run.model_folders["teacher"], moved)
    card = json.loads((moved / CARD).read_text())
    (moved / CARD).write_text(json.dumps({**card, "datasets": ["cifar10"]}))
    monkeypatch.setattr("torchvision.datasets.CIFAR10", lambda *a, **k: pytest.fail("downloads"))
    certificate = export_saved(moved, "safetensors", tmp_path / "out")
    assert "--dataset cifar10" in certificate.not_checked[0]


@pytest.mark.parametrize(
    ("learner", "words", "told"),
    [
        ("ie-ft-seed7", [], ["ie-ft-seed7", "ie-ft-seed0"]),
        ("teacher", ["--format", "onyx"], ["onyx", "onnx"]),
        ("teacher", ["--format", "tflite"], ["tflite", "onnx", "web"]),
        ("teacher", ["--dataset", "cifar11"], ["cifar11", "cifar10"]),
        ("teacher", ["--dataset", "fashion-mnist-sample", "--test-fraction", "2"], ["Test fraction '2"]),
        ("teacher", ["--dataset", "fashion-mnist-sample", "--data-seed", "-1"], ["Data seed '-1'"]),
    ],
)
def test_what_is_not_there_is_refused(run, tmp_path, learner, words, told):
    done, _ = exporting(run, learner, "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    for word in told:
        assert word in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_of_several_models_needs_a_name(run, tmp_path):
    done = iekd_("export", run.id, "--runs-dir", run.path.parent, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert f"{run.id}/ie-ft-seed0" in done.stderr


def test_what_is_there_already_is_left_alone(run, tmp_path):
    (tmp_path / "x.certificate.md").write_text("mine")
    (tmp_path / "full").mkdir()
    for out in ("x.onnx", "full"):
        done, _ = exporting(run, "teacher", "--out", tmp_path / out)
        assert done.exit_code == 2
        assert "is there already" in done.stderr
    assert (tmp_path / "x.certificate.md").read_text() == "mine"
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(
    ("format_name", "out", "said"),
    [
        ("onnx", "x.pt2", "or take '.onnx' for a file"),
        ("safetensors", "x.safetensors", "Leave the ending out"),
        ("web", "x.html", "a folder and not the file 'x.html'"),
    ],
)
def test_a_name_that_does_not_go_with_the_format_is_said_before_the_images_are_read(
    run, tmp_path, format_name, out, said
):
    done, _ = exporting(run, "teacher", "--format", format_name, "--out", tmp_path / out)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Loading" not in done.stderr


def test_where_nothing_can_be_written_is_said(run, tmp_path):
    (tmp_path / "file").write_text("")
    done, _ = exporting(run, "teacher", "--format", "safetensors", "--out", tmp_path / "file" / "out")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr
    assert "--out" in done.stderr


def test_a_full_disk_leaves_nothing(run, small_disk):
    place, fill = small_disk
    fill(100_000)
    before = sorted(place.iterdir())
    done, _ = exporting(run, "teacher", "--format", "safetensors", "--out", place / "out")
    assert done.exit_code == 2
    assert "No space left" in done.stderr
    assert sorted(place.iterdir()) == before


def test_a_missing_package_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done, _ = exporting(run, "teacher", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "pip install onnx onnxscript onnxruntime" in done.stderr


def test_the_page_exports_once_and_again_after_the_run_went_on(run, monkeypatch):
    started, real = [], subprocess.run
    monkeypatch.setattr(exported.subprocess, "run", lambda *a, **k: started.append(a) or real(*a, **k))
    first = export_in_run(run, "baseline-seed0", "safetensors")
    assert export_in_run(run, "baseline-seed0", "safetensors") == first
    assert len(started) == 1
    folder = export_folder(run, "baseline-seed0", "safetensors")
    assert folder.parent.parent == run.path
    assert first.accuracy is not None
    weights = run.model_folders["baseline-seed0"] / "model.safetensors"
    weights.touch()
    assert export_in_run(run, "baseline-seed0", "safetensors").created >= first.created
    assert len(started) == 2


def test_a_page_is_made_once_for_the_models_of_a_seed_and_shows_nobody_my_images(run, monkeypatch, refuses):
    """With the real command line and certificates, but without the minutes of ONNX, which tests/cli has."""
    made = []

    def make(folders, out, *, examples, **_):
        made.append(([folder.name for folder in folders], examples))
        (out / "models").mkdir(parents=True)
        certificates = []
        for i, card in enumerate(map(ModelCard.read, folders)):
            values = dict.fromkeys((f.name for f in fields(Certificate)), 1) | {"latencies": ()}
            values |= {"role": card.role, "method": card.method, "seed": card.seed}
            certificates.append(Certificate(**values))
            path = out / "models" / f"{i}-x.certificate.json"
            path.write_text(json.dumps(certificates[-1].to_json()))
        return certificates

    def here(words, **_):
        done = iekd_(*words[3:])
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    monkeypatch.setattr("iekd.runs.export.export_saved_page", make)
    monkeypatch.setattr(exported.subprocess, "run", here)
    assert export_in_run(run, "ie-ft-seed1", "web").method == "ie-ft"
    assert made == [(["teacher", "baseline-seed1", "ie-ft-seed1"], 0)], "the images are those of a folder of the user's"
    folder = export_folder(run, "ie-ft-seed1", "web")
    assert [(c.role, c.method, c.seed) for c in certificates_in(folder)][1:] == [
        ("student", "baseline", 1), ("student", "ie-ft", 1),
    ]  # fmt: skip
    assert export_in_run(run, "baseline-seed1", "web").method == "baseline"
    assert export_in_run(run, "teacher", "web").role == "teacher"
    assert [names for names, _ in made[1:]] == [["teacher", "baseline-seed0", "ie-ft-seed0"]]
    (run.model_folders["baseline-seed1"] / "model.safetensors").touch()
    export_in_run(run, "ie-ft-seed1", "web")
    assert len(made) == 3, "one of its models has changed since"
    refuses(lambda: export_in_run(run, "nobody", "web"), "nobody")


def test_the_page_gets_the_reason_why_not(run, refuses):
    (run.model_folders["baseline-seed0"] / "model.safetensors").write_bytes(b"broken")
    refuses(lambda: export_in_run(run, "baseline-seed0", "safetensors"), "cannot be loaded")
    refuses(lambda: export_in_run(run, "nobody", "safetensors"), "nobody")
    refuses(lambda: export_in_run(run, "baseline-seed0", "../../x"), "../../x")


def test_an_export_that_hangs_is_ended(run, monkeypatch, refuses):
    monkeypatch.setattr(exported, "PATIENCE", 0.01)
    refuses(lambda: export_in_run(run, "teacher", "safetensors"), "iekd export")


def test_exports_stay_out_of_a_run_that_moves(run, tmp_path):
    (run.path / "exports" / "x").mkdir(parents=True)
    (run.path / "exports" / "x" / "model.onnx").write_bytes(b"large")
    export_run(run, tmp_path / "run.zip", checkpoints=False)
    assert b"exports" not in (tmp_path / "run.zip").read_bytes()


def test_the_command_line_offers_every_format():
    assert all(name in iekd_("export", "--help").stdout for name in FORMATS)
