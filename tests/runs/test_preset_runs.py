"""The presets for photographs and for few images, trained for a few steps on tiny ones."""

from __future__ import annotations

import math
import os

import pytest
import torch
from safetensors.torch import save_file

from iekd.config.run import make_config
from iekd.models.artifact import ModelCard
from iekd.models.registry import build
from iekd.runs.prepare import prepare
from iekd.runs.status import FINISHED
from iekd.runs.store import Store
from iekd.runs.worker import execute

NET = "timm:test_resnet"
SHORT = {"epochs": 1, "teacher_epochs": 1, "auto_encoder_epochs": 1, "device": "cpu", "precision": "fp32"}


@pytest.fixture
def run_with(picture_folder, tmp_path):
    """`run_with(preset, **values)`: (what was prepared, the run, which has finished)."""

    def start(preset: str, **values):
        options = {"dataset": f"folder:{picture_folder}", "methods": "baseline,kd", **SHORT, **values}
        prepared = prepare(make_config(preset=preset, **options), tmp_path / "runs")
        run, handle = Store(tmp_path / "runs").create(prepared.config)
        execute(run, lambda: False)
        os.close(handle)
        assert run.status.state == FINISHED, run.status.error
        return prepared, run

    return start


def weights_of(path, classes: int = 5) -> str:
    torch.manual_seed(0)
    save_file(build(NET, classes).state_dict(), path)
    return str(path)


def trained_steps(run, stage: str) -> list[dict]:
    return [row for row in run.metrics()[0] if (row["stage"], row["kind"]) == (stage, "train")]


def test_photos_are_trained_with_random_weights_unless_it_is_told_otherwise(run_with, tmp_path):
    networks = {"teacher": NET, "student": NET, "resolution": 32}
    prepared, run = run_with("photos", **networks)
    assert prepared.start is prepared.student is None
    assert not run.status.fine_tunes
    assert "first weights" not in run.log_tail(200)
    steps = trained_steps(run, "students")
    assert max(row["step"] for row in steps) == 3, "87 images in batches of 32, the smaller one as well"
    assert {row["learner"] for row in steps} == {"baseline-seed0", "kd-seed0"}
    assert all(math.isfinite(row["values"]["loss"]) for row in steps)
    assert run.config.optimizer == "adamw"
    assert run.config.augmentation == "resized-crop"
    own = ModelCard.read(run.path / "models" / "baseline-seed0")
    assert own.resolution == 32
    file = weights_of(tmp_path / "w.safetensors")
    prepared, run = run_with("photos", **networks, teacher_from=file, student_from=file, methods="kd")
    assert not any("random weights" in str(one) for one in prepared.cautions()), "its learning rate suits trained ones"
    assert run.status.fine_tunes
    log = run.log_tail(200)
    for role in ("Teacher", "Student"):
        assert f"{role}: its first weights are from file w.safetensors" in log
    assert ModelCard.read(run.path / "models" / "kd-seed0").mean != own.mean, "what its weights expect"


def test_small_data_is_trained_as_it_says(run_with):
    prepared, run = run_with(
        "small-data", teacher="resnet8", student="resnet8", resolution=16, methods="baseline,ie-ft+kd"
    )
    assert prepared.start is prepared.student is None
    steps = trained_steps(run, "students")
    assert max(row["step"] for row in steps) == 3
    assert all(math.isfinite(row["values"]["loss"]) for row in steps)
    assert len(trained_steps(run, "teacher")) > 0
    assert (run.config.auto_augment, run.config.drop_last, run.config.warm_up) == ("trivialaugment", False, 0.05)
    assert run.report["teacher"]["from"] == "trained by this run"
    assert [one["method"] for one in run.report["learners"]] == ["baseline", "ie-ft+kd"]
