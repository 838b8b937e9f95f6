"""Runs whose networks begin with somebody's weights: fine-tuned teachers, warm starts, resolutions, and no network."""

from __future__ import annotations

import contextlib
import os
import shutil

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from iekd.models import pretrained
from iekd.models.artifact import ModelCard
from iekd.models.registry import build
from iekd.runs import worker
from iekd.runs.prepare import prepare
from iekd.runs.status import FINISHED
from iekd.runs.store import Store
from iekd.runs.teachers import check_teacher, find_teacher
from iekd.runs.worker import execute


def weights_of(name: str, classes: int, path, seed: int = 5, channels: int = 3):
    torch.manual_seed(seed)
    save_file(build(name, classes, channels).state_dict(), path)
    return str(path)


def trained(store, config, watch=None):
    run, handle = store.create(config)
    execute(run, lambda: False, watch)
    os.close(handle)
    return run


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory, tiny_config):
    """A finished run whose teacher began with a file of seven classes."""
    root = tmp_path_factory.mktemp("fine-tuned")
    path = weights_of("resnet8", 7, root / "seven.safetensors")
    config = tiny_config(teacher_from=path, methods=("baseline", "kd"), teacher_epochs=2, threads=1)
    return trained(Store(root / "runs"), config), root


def test_a_teacher_of_other_classes_is_fine_tuned_in_words(fine_tuned):
    run, _ = fine_tuned
    assert run.status.state == FINISHED, run.status.error
    assert run.status.fine_tunes
    log = run.log_tail(200)
    for words in (
        "Stage: fine-tune the teacher on these classes",
        "classifier) is new",
        "7 classes",
        "seven.safetensors",
    ):
        assert words in log
    assert run.report["teacher"]["from"] == "file seven.safetensors, fine-tuned by this run"
    assert "learning rate 0.1 is for random weights" in " ".join(run.status.cautions)


def test_before_the_start_a_rate_that_spoils_a_file_to_fine_tune_is_warned_of(fine_tuned, tmp_path, tiny_config):
    """What is used as it is, or was fine-tuned before, is spoiled by no rate."""
    run, root = fine_tuned

    def warned(runs=tmp_path, **changes) -> bool:
        values = {"teacher_from": str(root / "seven.safetensors"), "methods": ("kd",), **changes}
        said = " ".join(map(str, prepare(tiny_config(**values), runs).cautions()))
        return "trained ones that the teacher begins with. Set teacher-lr" in said

    assert warned()
    assert not warned(teacher_lr=0.01)
    assert not warned(teacher_from=weights_of("resnet8", 3, tmp_path / "three.safetensors"))
    folder = shutil.copytree(run.path / "models" / "teacher", tmp_path / "model")
    assert not warned(teacher_from=str(folder))
    assert not warned(root / "runs", teacher_from=f"run:{run.id}/teacher")


def test_a_fine_tuned_teacher_is_found_again_for_the_very_same_weights(fine_tuned, tiny_config):
    run, root = fine_tuned
    config = run.config
    found = find_teacher(config, root / "runs")
    assert found is not None
    assert found.parent == root / "runs" / "teachers"
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (found, run.path / "models" / "teacher"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    copy = shutil.copy(root / "seven.safetensors", root / "copy.safetensors")
    other = weights_of("resnet8", 7, root / "other.safetensors", seed=6)
    for change, there in (
        ({"teacher_from": str(copy)}, True), ({"teacher_from": other}, False), ({"teacher_backbone": 0.2}, False),
        ({"teacher_lr": 0.01}, False), ({"teacher_from": "auto"}, False), ({"lr": 0.05}, False), ({"epochs": 3}, True),
    ):  # fmt: skip
        assert (find_teacher(config.model_copy(update=change), root / "runs") is not None) == there, change
    again = trained(Store(root / "runs"), config.model_copy(update={"methods": ("kd",)}))
    assert again.report["teacher"]["from"] == "file seven.safetensors, fine-tuned by an earlier run"
    assert again.report["learners"][0]["accuracy_last"] == run.report["learners"][1]["accuracy_last"]
    prepared = prepare(config, root / "runs")
    assert prepared.teacher == found
    assert "an earlier run has fine-tuned it" in prepared.sentences()[0]
    assert not any("random weights" in str(one) for one in prepared.cautions()), "nothing is spoiled any more"
    begins = prepare(config.model_copy(update={"teacher_lr": 0.02}), root / "runs")
    assert "(2 epochs, learning rate 0.02, layers with weights 0.002)" in begins.sentences()[0]


class Interrupted(BaseException):
    pass


def test_a_run_goes_on_although_the_file_it_began_with_is_gone(fine_tuned, tmp_path, tiny_config, monkeypatch):
    """And equals the uninterrupted one."""
    monkeypatch.setenv("IEKD_CHECKPOINT_SECONDS", "0")
    whole, root = fine_tuned
    file = shutil.copy(root / "seven.safetensors", tmp_path / "seven.safetensors")
    run, handle = Store(tmp_path / "runs").create(whole.config.model_copy(update={"teacher_from": str(file)}))

    def watch(status, row):
        if row and (row["stage"], row["kind"], row["step"]) == ("teacher", "train", 6):
            raise Interrupted

    saved = worker.Run.write_status
    with monkeypatch.context() as dead, contextlib.suppress(Interrupted):  # a dead process writes no final state
        dead.setattr(worker.Run, "write_status", lambda self, s: saved(self, s) if s.state == "running" else None)
        execute(run, lambda: False, watch)
    os.close(handle)
    os.unlink(file)
    assert list((run.path / "checkpoints").glob("teacher-*"))
    handle = run.reopen()
    execute(run, lambda: False)
    os.close(handle)
    assert run.status.state == FINISHED, run.status.error
    for name in ("teacher", "kd-seed0"):
        ours, theirs = (load_file(r.path / "models" / name / "model.safetensors") for r in (run, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_an_earlier_student_goes_on_with_another_learning_rate(fine_tuned, tiny_config):
    run, root = fine_tuned
    config = tiny_config(student_from=f"run:{run.id}/kd-seed0", teacher="none", methods=("baseline",), lr=1e-9)
    prepared = prepare(config, root / "runs")
    assert prepared.student.title == f"run {run.id} (kd-seed0)"
    again = trained(Store(root / "runs"), prepared.config)
    ours = load_file(again.path / "models" / "baseline-seed0" / "model.safetensors")
    theirs = load_file(run.path / "models" / "kd-seed0" / "model.safetensors")
    assert all(
        torch.allclose(ours[k], v, atol=1e-6) for k, v in theirs.items() if "running" not in k and "num" not in k
    )
    assert f"its first weights are from run {run.id} (kd-seed0)" in again.log_tail(100)
    assert (
        ModelCard.read(again.path / "models" / "baseline-seed0").mean
        == ModelCard.read(run.path / "models" / "kd-seed0").mean
    )


def test_what_cannot_work_is_refused_before_the_start(tmp_path, tiny_config, refuses):
    runs, seven = tmp_path / "runs", weights_of("resnet8", 7, tmp_path / "seven.safetensors")
    field, grey = refuses_in(tmp_path), weights_of("resnet8", 7, tmp_path / "grey.safetensors", channels=1)
    for change, name, words in (
        ({"teacher_from": "pretrained"}, "teacher_from", ["no pretrained weights for resnet8"]),
        ({"student_from": "pretrained"}, "student_from", ["no pretrained weights for resnet8"]),
        ({"student_from": seven, "student": "resnet14"}, "student_from", ["seven.safetensors", "resnet8"]),
        ({"student_from": grey}, "student_from", ["grey images", "in colour"]),
        ({"teacher_from": grey}, "teacher_from", ["grey images", "in colour"]),
        ({"student_from": "run:nothing"}, "student_from", ["no run 'nothing'"]),
        ({"student_from": str(tmp_path / "gone.pt")}, "student_from", ["no file"]),
    ):
        text = refuses(lambda change=change: prepare(tiny_config(**change), runs), *words)
        assert field(tiny_config(**change)) == name, text
    for word in ("auto", "train"):
        refuses(lambda word=word: tiny_config(student_from=word), word, "leave it out")


def refuses_in(tmp_path):
    from iekd.errors import UserError

    def field(config) -> str:
        with pytest.raises(UserError) as caught:
            prepare(config, tmp_path / "runs")
        return caught.value.field

    return field


def test_an_unset_resolution_is_that_of_the_weights(tmp_path, tiny_config):
    path = weights_of("timm:test_resnet", 3, tmp_path / "w.safetensors")
    for change, side in (
        ({"teacher": "timm:test_resnet", "teacher_from": path}, 160),
        ({"student": "timm:test_resnet", "student_from": path}, 160),
        ({"student": "timm:test_resnet", "student_from": path, "resolution": 64}, 64),
        ({"student": "timm:test_resnet"}, None),
    ):
        values = {"resolution": None, "methods": ("kd",), "student": "resnet8", **change}
        prepared = prepare(tiny_config(**values), tmp_path / "runs")
        assert prepared.config.resolution == side, change
        assert bool(prepared.notes) == (side == 160)
        assert prepare(prepared.config, tmp_path / "runs").config == prepared.config


def test_a_hole_is_smaller_than_the_images_that_the_weights_ask_for(tmp_path, tiny_config, refuses, monkeypatch):
    """It was measured against the dataset's own, which are other ones."""
    values = {"resolution": None, "methods": ("kd",)}
    own = tiny_config(**values, cutout=1)
    side = prepare(own, tmp_path / "runs").info.resolution
    refuses(lambda: prepare(own.model_copy(update={"cutout": side}), tmp_path / "runs"), f"{side} x {side} pixels")
    path = weights_of("timm:test_resnet", 3, tmp_path / "w.safetensors")
    values |= {"student": "timm:test_resnet", "student_from": path}
    assert prepare(tiny_config(**values, cutout=150), tmp_path / "runs").config.cutout == 150
    refuses(lambda: prepare(tiny_config(**values, cutout=160), tmp_path / "runs"), "Cutout 160", "160 x 160")
    monkeypatch.setattr("iekd.runs.prepare.MOST_SIDE", side - 4)
    smaller = tiny_config(**values, cutout=side - 4)
    refuses(lambda: prepare(smaller, tmp_path / "runs"), f"{side - 4} x {side - 4}")


def test_weights_for_images_that_are_too_large_get_the_largest(tmp_path, tiny_config, monkeypatch):
    path = weights_of("timm:test_resnet", 3, tmp_path / "w.safetensors")
    monkeypatch.setattr("iekd.runs.prepare.MOST_SIDE", 128)
    config = tiny_config(student="timm:test_resnet", student_from=path, resolution=None, methods=("kd",))
    prepared = prepare(config, tmp_path / "runs")
    assert prepared.config.resolution == 128
    assert any("128 x 128 pixels, the most that there can be instead of the 160" in note for note in prepared.notes)


def test_without_a_network_pretrained_weights_are_missed_before_the_start(tmp_path, tiny_config, refuses, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    asked = []

    def nothing(repo, url, minute):
        asked.append(repo or url)
        return "Name or service not known"

    monkeypatch.setattr(pretrained, "_why_unreachable", nothing)
    for field, network in (("teacher", "timm:test_resnet"), ("student", "torchvision:shufflenet_v2_x0_5")):
        config = tiny_config(**{field: network, f"{field}_from": "pretrained", "methods": ("kd",), "resolution": 64})
        refuses(
            lambda config=config: prepare(config, tmp_path / "runs"),
            network, "not on this machine", "Name or service not known", "give its path instead of 'pretrained'",
        )  # fmt: skip
    assert asked[0] == "timm/test_resnet.r160_in1k"
    assert asked[1].endswith(".pth")
    config = tiny_config(teacher="timm:test_resnet", teacher_from="pretrained", resolution=64)
    run = trained(Store(tmp_path / "runs"), config)
    assert run.status.state == "failed"
    assert "not on this machine" in run.status.error
    assert check_teacher(tiny_config(), tmp_path / "runs") is None


def test_page_and_command_line_name_the_stage(fine_tuned):
    from iekd.runs.status_writer import in_words
    from iekd.ui.render.run import stepper

    run, _ = fine_tuned
    words = "ine-tune the teacher on these classes"
    status = run.status
    assert f"F{words}" in stepper(run, run.config, status)
    assert in_words("teacher", status) == f"f{words}"
    assert in_words("students", status) == "students"
    status.fine_tunes = False
    assert words not in stepper(run, run.config, status) + in_words("teacher", status)
