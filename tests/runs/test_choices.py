"""Which models can be compared, and that a name leads to nothing else on the disk."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from iekd.config.run import make_config
from iekd.models.artifact import ModelCard, save_model
from iekd.models.registry import build
from iekd.runs.choices import choice_called, choices_named, choices_of, refs_of, shipped_choices
from iekd.runs.status import FINISHED, Status
from iekd.runs.store import Store

CLASSES = ("ant", "bee")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`saved(folder, **card)`: a network that was never trained, in that folder."""
    torch.manual_seed(0)
    network = build("resnet8", len(CLASSES), 3)

    def save(folder, **values):
        card = ModelCard(
            **{"model": "resnet8", "datasets": ("tiny",), "class_names": CLASSES, "channels": 3, "resolution": 16,
               "mean": (0.5,) * 3, "std": (0.2,) * 3, "accuracy": 50.0, "params": 1, **values}
        )  # fmt: skip
        save_model(folder, network, card)

    return save


@pytest.fixture(scope="module")
def store(tmp_path_factory, saved):
    """Two runs of the same settings, started in the same minute: the first with an exported student."""
    store = Store(tmp_path_factory.mktemp("runs"))
    for _ in range(2):
        run, handle = store.create(make_config(methods=("baseline", "ie-ft")))
        os.close(handle)
        run.write_status(Status(state=FINISHED, created=1.8e9))
        saved(run.path / "models" / "teacher", role="teacher")
        for method in ("baseline", "ie-ft"):
            saved(run.path / "models" / f"{method}-seed0", method=method)
    first = store.list()[-1]
    for name in ("ie-ft-seed0-onnx", "ie-ft-seed0-int8"):
        (first.path / "exports" / name).mkdir(parents=True)
        (first.path / "exports" / name / "model.onnx").write_bytes(b"")
    (first.path / "exports" / "ie-ft-seed0-weights").mkdir()
    return store


def test_a_run_offers_its_models_each_with_its_exports(store):
    run = store.list()[-1]
    refs = ["teacher", "baseline-seed0", "ie-ft-seed0", "ie-ft-seed0/int8", "ie-ft-seed0/onnx"]
    found = choices_of(run)
    assert [choice.ref for choice in found] == [f"{run.id}/{ref}" for ref in refs]
    called = [choice_called(store, choice.ref) for choice in found]
    assert [(one.ref, one.path, one.card) for one in called] == [(one.ref, one.path, one.card) for one in found]
    assert found[-1].path == run.path / "exports" / "ie-ft-seed0-onnx" / "model.onnx"


def test_a_name_leads_out_of_no_run(store, saved, refuses, tmp_path):
    run = store.list()[0]
    saved(store.root / "outside")
    for name in (
        f"{run.id}/../outside", f"{run.id}/../../outside", "../x/teacher", str(tmp_path), "",
        f"{run.id}/ie-ft-seed0/..", f"{run.id}/ie-ft-seed0/../ie-ft-seed0-onnx", f"{run.id}/ie-ft-seed0/onnx",
    ):  # fmt: skip
        refuses(lambda name=name: choice_called(store, name))


def test_the_sources_own_models_keep_their_short_names_and_others_are_called_as_they_were_named(store, refuses):
    new, old = store.list()
    own = refs_of(store, new.id)
    assert list(own) == ["teacher", "baseline", "ie-ft"]
    for refs in ([], list(own.values()), list(own.values())[::-1]):
        assert list(choices_named(store, new.id, refs)) == ["teacher", "baseline", "ie-ft"]
    mixed = [f"{old.id}/teacher", own["ie-ft"]]
    assert list(choices_named(store, new.id, mixed)) == list(choices_named(store, "gone", mixed)) == mixed
    refuses(lambda: choices_named(store, "gone"), "gone")


def test_shipped_models_are_there_too(store, saved, tmp_path, monkeypatch):
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(tmp_path))
    for name, values in {"a": {"method": "ie-ft"}, "b": {"method": "baseline"}, "c": {"role": "teacher"}}.items():
        saved(tmp_path / name, **values)
    assert [choice.ref for choice in shipped_choices()] == ["c", "b", "a"]
    assert choice_called(store, "a").path == tmp_path / "a"
    assert refs_of(store, "") == {"teacher": "c", "baseline": "b", "ie-ft": "a"}


def test_no_two_labels_of_the_page_are_the_same(store):
    pytest.importorskip("gradio")
    from iekd.ui.tabs.compare_images import model_options

    options = model_options(store)
    labels, refs = zip(*options, strict=True)
    assert len(set(labels)) == len(options) == 8
    assert set(refs) == {choice.ref for run in store.list() for choice in choices_of(run)}
    assert all(ref.partition("/")[0] in label for label, ref in options if "ONNX" not in label and "INT8" not in label)


def test_a_damaged_model_is_left_out_of_the_list(store, tmp_path):
    run = store.list()[0]
    copied = shutil.copytree(run.path, tmp_path / run.id)
    (copied / "models" / "teacher" / "model.json").write_text("{}")
    assert [choice.learner for choice in choices_of(Store(tmp_path).get(run.id))] == ["baseline-seed0", "ie-ft-seed0"]
