"""`--teacher a,b`, and a teacher assistant: two runs in a row."""

from __future__ import annotations

import pytest
import torch

from iekd.config.run import make_config
from iekd.config.unused import unused_settings
from iekd.models.artifact import ModelCard
from iekd.models.registry import build
from iekd.runs import more_teachers
from iekd.runs.prepare import prepare
from iekd.runs.status import FINISHED
from iekd.runs.store import Store


@pytest.fixture(scope="module")
def large(tmp_path_factory, tiny_config, complete):
    """(runs, a run whose baseline is a ResNet-14)."""
    store = Store(tmp_path_factory.mktemp("runs"))
    run, _ = complete(store, tiny_config(teacher="none", student="resnet14", methods=("baseline",)))
    return store, run


def test_a_list_of_teachers_is_the_first_and_the_others():
    config = make_config(teacher="resnet8, resnet14,wrn-16-1", methods="kd")
    assert (config.teacher, config.more_teachers) == ("resnet8", ("resnet14", "wrn-16-1"))
    assert config.sources_of_more == ("auto", "auto")
    config = make_config(teacher="resnet8,resnet14", teacher_from="run:a/x,/b.pth", methods="kd")
    assert (config.teacher_from, config.more_teachers_from) == ("run:a/x", ("/b.pth",))
    assert "--more-teachers resnet14 " in config.command_line() + " "
    assert make_config(teacher="resnet8", methods="kd").more_teachers == ()
    assert "more_teachers_from" in unused_settings(make_config(methods="kd", more_teachers_from="auto"))


def test_what_makes_no_sense_is_refused(refuses):
    for method in ("at", "ie-ft", "rkd", "od"):
        refuses(lambda m=method: make_config(teacher="resnet8,resnet14", methods=m), method, "features")
    make_config(teacher="resnet8,resnet14", methods="baseline,kd,dkd,dist,ie-ft+kd,dml")
    refuses(
        lambda: make_config(teacher="resnet8,resnet14", teacher_from="auto,auto,auto", methods="kd"),
        "Teachers: 2; sources in teacher from: 3",
    )
    refuses(lambda: make_config(teacher="resnet8,resnet15", methods="kd"), "resnet15")
    refuses(lambda: make_config(teacher="none,resnet8", methods="baseline"), "'none'")


def test_a_further_teacher_that_does_not_take_such_images_is_refused(tiny_config, large, refuses):
    store, trained = large
    config = tiny_config(
        teacher="resnet8,torchvision:vit_b_16", teacher_from=f"train,run:{trained.id}", methods=("kd",)
    )
    refuses(
        lambda: prepare(config.model_copy(update={"resolution": 24}), store.root), "torchvision:vit_b_16", "24 x 24"
    )


def test_a_further_teacher_that_must_be_fine_tuned_says_how(tiny_config, tmp_path, refuses):
    """A run fine-tunes its first teacher only; what is advised begins with the same weights."""
    torch.save(build("resnet14", 7).state_dict(), tmp_path / "seven.pth")
    config = tiny_config(teacher="resnet8,resnet14", teacher_from=f"train,{tmp_path / 'seven.pth'}", methods=("kd",))
    refuses(
        lambda: prepare(config, tmp_path / "runs"), "does not know these classes yet",
        f"--student resnet14 --student-from {tmp_path / 'seven.pth'} --methods baseline",
    )  # fmt: skip


def test_the_pixels_that_are_given_are_the_first_teachers(tiny_config):
    """A further teacher has its own; another network's would make it guess."""
    config = tiny_config(
        teacher="resnet14,resnet8", teacher_from="/a.pth,/b.pth", teacher_mean=(0.9,), teacher_std=(0.1,),
        methods=("kd",),
    )  # fmt: skip
    (further,) = more_teachers._each(config)
    assert (further.teacher_from, further.teacher_mean, further.teacher_std) == ("/b.pth", None, None)


def test_a_run_with_two_teachers_says_so(tiny_config, large, complete, refuses):
    store, trained = large
    missing = tiny_config(teacher="resnet8,resnet14", methods=("kd",))
    refuses(lambda: prepare(missing, store.root), "resnet14", "not at hand", "run:ID")
    config = tiny_config(teacher="resnet8,resnet14", teacher_from=f"train,run:{trained.id}", methods=("kd",))
    run, _ = complete(store, prepare(config, store.root).config)
    assert run.status.state == FINISHED
    assert run.report["teacher"]["model"] == "resnet8, resnet14"
    assert trained.id in run.report["teacher"]["from"]
    sizes = [ModelCard.read(run.path / "models" / "teacher").params, ModelCard.read(
        trained.path / "models" / "baseline-seed0").params]  # fmt: skip
    assert run.report["teacher"]["params"] == sum(sizes)
    assert ModelCard.read(run.path / "models" / "teacher").accuracy is None, "it is one of the two"


def test_a_teacher_assistant_is_two_runs_in_a_row(tiny_config, large, complete):
    """Mirzadeh et al. 2020: the large teacher teaches the assistant, and that one the student."""
    store, trained = large
    first = tiny_config(teacher="resnet14", teacher_from=f"run:{trained.id}", student="resnet8", methods=("kd",))
    assistant, _ = complete(store, prepare(first, store.root).config)
    second = tiny_config(
        teacher="resnet8", teacher_from=f"run:{assistant.id}/kd-seed0", student="resnet8", methods=("baseline", "kd")
    )
    student, _ = complete(store, prepare(second, store.root).config)
    assert student.status.state == FINISHED
    assert f"run {assistant.id}" in student.report["teacher"]["from"]
    (taught,) = (r for r in assistant.report["learners"] if r["method"] == "kd")
    assert student.report["teacher"]["accuracy"] == taught["accuracy_last"], "the assistant itself teaches"
