"""Where a run's teacher comes from, asked before it starts; what the worker makes of it is in runs/test_worker.py."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import save_file

from iekd.config.run import make_config
from iekd.data import describe
from iekd.launchers.sending import inputs_of
from iekd.models.artifact import ModelCard, save_model
from iekd.models.registry import build
from iekd.runs.prepare import prepare
from iekd.runs.store import Store
from iekd.runs.teachers import check_teacher, find_teacher, origin, sentence_on_epochs, teacher_folder, where_from
from iekd.runs.worker import execute

CARD = ModelCard(
    model="resnet8", datasets=("tiny",), class_names=("blue", "green", "red"), channels=3, resolution=16,
    mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), accuracy=50.5, params=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return build("resnet8", 3)


@pytest.fixture
def make_run(tmp_path, tiny_config, model):
    """`make_run(*names, card=...)` -> a run that has saved models of these names."""

    def make(*names, methods=("baseline",), card=CARD):
        run, handle = Store(tmp_path).create(tiny_config(methods=methods))
        os.close(handle)
        for name in names:
            save_model(run.path / "models" / name, model, card)
        return run

    return make


def test_a_file_of_the_right_classes_is_used_as_it_is(tmp_path, tiny_config, model):
    save_file(model.state_dict(), tmp_path / "resnet8.th")
    config = tiny_config(teacher_from=str(tmp_path / "resnet8.th"))
    assert check_teacher(config, tmp_path) == tmp_path / "resnet8.th"
    assert where_from(config, tmp_path / "resnet8.th") == "file resnet8.th"


def test_a_missing_file_is_reported(tmp_path, tiny_config, refuses):
    (tmp_path / "a.pth").write_text("")
    config = tiny_config(teacher_from=str(tmp_path / "a.pth"))
    (tmp_path / "a.pth").unlink()
    refuses(lambda: check_teacher(config, tmp_path), tmp_path / "a.pth")


def test_a_folder_of_another_network_is_refused_with_both_names(tmp_path, tiny_config, model, refuses):
    save_model(tmp_path / "mine", model, CARD)
    config = tiny_config(teacher_from=str(tmp_path / "mine"))
    assert check_teacher(config, tmp_path) == tmp_path / "mine"
    assert where_from(config, tmp_path / "mine") == "folder mine"
    other = tiny_config(teacher_from=str(tmp_path / "mine"), teacher="resnet14")
    refuses(lambda: check_teacher(other, tmp_path), tmp_path / "mine", "is a resnet8", "is a resnet14")


def test_a_saved_model_of_other_classes_is_refused_before_the_start(tmp_path, tiny_config, model, refuses):
    save_model(tmp_path / "mine", model, replace(CARD, class_names=("a", "b", "c")))
    config = tiny_config(teacher_from=str(tmp_path / "mine"))
    refuses(lambda: check_teacher(config, tmp_path), "classes of the model", "3 in all")


def test_a_run_with_one_student_needs_no_name(make_run, tiny_config, tmp_path):
    run = make_run("teacher", "baseline-seed0")
    config = tiny_config(teacher_from=f"run:{run.id}")
    assert check_teacher(config, tmp_path) == run.path / "models" / "baseline-seed0"
    assert where_from(config, find_teacher(config, tmp_path)) == f"run {run.id} (baseline-seed0)"


def test_a_model_of_a_run_is_named(make_run, tiny_config, tmp_path):
    run = make_run("teacher", "baseline-seed0", "ie-ft-seed0", methods=("baseline", "ie-ft"))
    for name in ("teacher", "ie-ft-seed0"):
        config = tiny_config(teacher_from=f" run:{run.id}/{name} ")
        assert check_teacher(config, tmp_path) == run.path / "models" / name


def test_what_a_run_has_to_offer_is_listed(make_run, tiny_config, tmp_path, refuses):
    run = make_run("teacher", "baseline-seed0", "ie-ft-seed0", methods=("baseline", "ie-ft"))
    offered = [f"run:{run.id}/{name}" for name in ("teacher", "baseline-seed0", "ie-ft-seed0")]
    refuses(lambda: check_teacher(tiny_config(teacher_from=f"run:{run.id}"), tmp_path), run.id, *offered)
    refuses(lambda: check_teacher(tiny_config(teacher_from=f"run:{run.id}/kd-seed0"), tmp_path), "kd-seed0", *offered)


def test_runs_that_cannot_teach_are_refused(make_run, tiny_config, tmp_path, refuses):
    empty = make_run()
    refuses(lambda: check_teacher(tiny_config(teacher_from=f"run:{empty.id}"), tmp_path), empty.id, "no trained models")
    refuses(lambda: check_teacher(tiny_config(teacher_from="run:nonsense"), tmp_path), "no run 'nonsense'")
    refuses(lambda: check_teacher(tiny_config(teacher_from="run:../x"), tmp_path), "no run '..'")
    refuses(lambda: check_teacher(tiny_config(teacher_from="run:"), tmp_path), "no run ''")
    run = make_run("baseline-seed0")
    other = tiny_config(teacher_from=f"run:{run.id}", teacher="resnet14")
    refuses(lambda: check_teacher(other, tmp_path), "is a resnet8", "is a resnet14", "Set teacher to resnet8")


def test_to_train_takes_none_that_is_there(tmp_path, tiny_config, model):
    config = tiny_config()
    save_model(teacher_folder(config, tmp_path), model, CARD)
    assert find_teacher(config, tmp_path) == teacher_folder(config, tmp_path)
    assert where_from(config, find_teacher(config, tmp_path)) == "an earlier run"
    again = tiny_config(teacher_from="train")
    assert check_teacher(again, tmp_path) is None
    assert where_from(again, None) == "trained by this run"
    assert teacher_folder(again, tmp_path) == teacher_folder(config, tmp_path), "later runs find the new one"


def test_no_epochs_find_a_teacher_of_any_number_of_epochs(tmp_path, tiny_config, model, refuses):
    """But for its epochs it is one of the same settings."""

    def keep(epochs, **changes):
        config = tiny_config(teacher_epochs=epochs, **changes)
        save_model(folder := teacher_folder(config, tmp_path), model, replace(CARD, command=config.command_line()))
        return folder

    ask = {"teacher_epochs": 0, "methods": ("kd",)}
    keep(9, data_seed=5)
    keep(9, teacher="resnet14")
    refuses(lambda: prepare(tiny_config(**ask), tmp_path), "no trained resnet8", "Teacher epochs '0'")
    short, long, default = keep(2), keep(7), keep(30)
    (default / "model.json").write_text("{")
    assert find_teacher(tiny_config(**ask), tmp_path) == long
    keep(30)
    prepared = prepare(tiny_config(**ask), tmp_path)
    assert prepared.teacher == default
    assert "earlier run's with the same settings, which trained it for 30 epochs." in " ".join(prepared.sentences())
    sent = {path for path, _ in inputs_of(prepared.config, Store(tmp_path)).files}
    assert default / "model.safetensors" in sent, "a job elsewhere finds it too"
    exact = tiny_config(**ask | {"teacher_epochs": 2})
    assert find_teacher(exact, tmp_path) == short, "who asks for a number gets that"
    assert find_teacher(tiny_config(**ask | {"teacher_epochs": 3}), tmp_path) is None
    assert sentence_on_epochs(exact, short, tmp_path) == ""


def test_the_origin_does_not_depend_on_where_the_teacher_comes_from(tmp_path, tiny_config):
    (tmp_path / "a.pth").write_text("")
    file = tiny_config(teacher_from=str(tmp_path / "a.pth"), teacher_mean=(0.5,), teacher_std=(0.5,))
    assert origin(file) == origin(tiny_config()) == origin(tiny_config(teacher_from="train"))


def test_labels_alone_ask_for_no_teacher(tmp_path, tiny_config):
    assert check_teacher(tiny_config(teacher="none", methods=("baseline",)), tmp_path) is None


def test_a_model_of_a_run_that_split_the_folder_in_another_way_is_refused(
    tmp_path, tiny_config, picture_folder, refuses
):
    """Its training images may be this run's test images; a folder with test/ of its own is split by nobody."""
    unsplit = f"folder:{picture_folder / 'train'}"
    store = Store(tmp_path)
    for dataset, fits in ((unsplit, False), (f"folder:{picture_folder}", True)):
        config = tiny_config(dataset=dataset, methods=("baseline",), teacher="none")
        run, handle = store.create(config)
        execute(run, lambda: False)
        os.close(handle)
        again = {"dataset": dataset, "teacher_from": f"run:{run.id}"}
        assert check_teacher(tiny_config(**again), tmp_path) is not None
        other = tiny_config(**again, data_seed=9)
        if fits:
            assert check_teacher(other, tmp_path) is not None
        else:
            refuses(lambda other=other: check_teacher(other, tmp_path), run.id, "data seed 0")


def test_a_model_of_a_run_is_refused_where_it_may_have_learned_from_test_images_since(
    tmp_path, tiny_config, picture_folder, complete, refuses
):
    """The folder may grow where it has test/, but no test image may be new: it may have been learned from."""
    store = Store(tmp_path / "runs")

    def teaches(folder):
        plain = {"dataset": f"folder:{folder}", "methods": ("baseline",), "teacher": "none"}
        run, _ = complete(store, tiny_config(**plain))
        again = tiny_config(dataset=plain["dataset"], teacher_from=f"run:{run.id}")
        assert check_teacher(again, store.root) is not None
        return again

    def refused(config):
        refuses(lambda: check_teacher(config, store.root), "no longer those of the run", "Train a new teacher")

    split, whole = tmp_path / "split", tmp_path / "whole"
    shutil.copytree(picture_folder / "train", split)
    shutil.copytree(picture_folder, whole)
    (whole / "test" / "red" / "broken.png").write_bytes(b"")
    by_chance, given = teaches(split), teaches(whole)
    shutil.copy(some_of(split / "red"), split / "red" / "more.png")
    refused(by_chance)
    (split / "red" / "more.png").unlink()
    for name in ("red", "green", "blue"):  # now it is divided by hand: what was learned from may be tested on
        for i, path in enumerate(sorted((split / name).iterdir())):
            part = split / ("train" if i % 4 else "test") / name
            part.mkdir(parents=True, exist_ok=True)
            path.rename(part / path.name)
        (split / name).rmdir()
    refused(by_chance)

    shutil.copy(some_of(whole / "train" / "red"), whole / "train" / "red" / "more.png")
    assert check_teacher(given, store.root) is not None
    some_of(whole / "train" / "red").rename(whole / "test" / "red" / "moved.png")
    refused(given)


def some_of(folder):
    return sorted(folder.iterdir())[0]


@pytest.mark.parametrize("change", ["swap", "edit", "more", "fewer"])
def test_a_teacher_of_other_pictures_is_not_used(tmp_path, tiny_config, picture_folder, model, change):
    """The folder's name is the same, but its training images may be among the test images now."""
    root = tmp_path / "pictures"
    shutil.copytree(picture_folder, root)
    config = tiny_config(dataset=f"folder:{root}")
    kept = teacher_folder(config, tmp_path)
    save_model(kept, model, CARD)
    assert find_teacher(config, tmp_path) == kept
    mark = describe(config.dataset).fingerprint
    learned, tested = (next((root / part / "red").iterdir()) for part in ("train", "test"))
    if change == "swap":
        learned.rename(tmp_path / "x")
        tested.rename(learned)
        (tmp_path / "x").rename(tested)
    elif change == "edit":
        learned.write_bytes(tested.read_bytes())
        os.utime(learned.parent)  # another process sees it without that
    elif change == "more":
        shutil.copy(tested, learned.parent / "another.png")
    else:
        learned.unlink()
    assert find_teacher(config, tmp_path) is None
    assert teacher_folder(config, tmp_path, mark) == kept, "of the pictures as they were read"


def test_a_teachers_fingerprint_tells_how_its_images_were_augmented(tiny_config):
    """But not how they were kept, which changes nothing; teachers from before there was a choice are still found."""
    changes = [{}, {"augmentation": "none"}, {"augmentation": "resized-crop"}, {"cutout": 4}, {"cutout": 5}]
    assert len({origin(tiny_config(**change)) for change in changes}) == len(changes)
    assert origin(tiny_config(image_memory=0)) == origin(tiny_config())
    assert origin(make_config()) == "fcf71c107e1ef329", "what the version before gave"


@pytest.mark.parametrize(
    ("values", "plain", "marked"),
    [
        ({}, "fcf71c107e1ef329", "7ea950f27cb97234"),
        (
            {"dataset": "cifar10", "teacher": "resnet56", "student": "resnet20", "preset": "paper"},
            "72d5687121fd7145", "96209fd4ba3d748c",
        ),
        (
            {"augmentation": "none", "cutout": 4, "batch_size": 64, "lr": 0.05, "schedule": "multi-step",
             "milestones": (0.3, 0.9)},
            "16f2717e4b225a7a", "7066b5036820e614",
        ),
        (
            {"dataset": "cifar100", "limit_train": 500, "resolution": 24, "validation_fraction": 0.0,
             "test_fraction": 0.3, "data_seed": 7, "teacher_epochs": 5, "nesterov": False, "momentum": 0.5,
             "weight_decay": 1e-4},
            "f371143fad52f767", "e88c319815771fcf",
        ),
        (
            {"methods": "kd,ie-od+kd", "seeds": "0,1", "temperature": 2, "peer": "resnet20", "distance": "cosine",
             "name": "x", "stack": False, "precision": "fp32", "teacher_from": "train"},
            "fcf71c107e1ef329", "7ea950f27cb97234",
        ),
    ],
    ids=["default", "paper", "augmentation", "teacher", "students"],
)  # fmt: skip
def test_teachers_that_were_trained_before_are_still_found(values, plain, marked):
    """The fingerprints are those of commit 84ff71c, when the settings that count were listed by hand."""
    config = make_config(**values)
    assert origin(config, "") == plain
    assert origin(config, "abc") == marked
