"""The order of classes from the form or the command line into the run, and out of runs of earlier versions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from iekd import data
from iekd.config.run import RunConfig, make_config
from iekd.errors import UserError
from iekd.runs.prepare import prepare
from iekd.runs.store import Store


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("1", "2", "10"):
        for i in range(4):
            path = tmp_path / "digits" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return tmp_path / "digits"


def config(folder, **values) -> RunConfig:
    return make_config(dataset=f"folder:{folder}", teacher="none", methods="baseline", student="resnet8", **values)


def names(folder, tmp_path, **values) -> tuple[str, ...]:
    return prepare(config(folder, **values), tmp_path / "runs").info.class_names


def test_the_order_is_by_value_unless_another_is_said(folder, tmp_path):
    assert names(folder, tmp_path) == ("1", "2", "10")
    assert names(folder, tmp_path, class_order="text") == ("1", "10", "2")
    assert names(folder, tmp_path, class_order="10, 2,1") == ("10", "2", "1")


def test_a_file_of_names_becomes_part_of_the_configuration(folder, tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("2\n10\n1\n")
    prepared = prepare(config(folder, class_order=str(path)), tmp_path / "runs")
    assert prepared.config.class_order == ("2", "10", "1"), "the file may be gone when the run is resumed"
    assert prepared.info.class_names == ("2", "10", "1")
    with pytest.raises(UserError, match=r"nowhere\.txt"):
        prepare(config(folder, class_order="nowhere.txt"), tmp_path / "runs")


def test_an_order_of_other_classes_is_refused_before_the_run(folder, tmp_path):
    with pytest.raises(UserError, match="'10' is missing"):
        prepare(config(folder, class_order="1,2"), tmp_path / "runs")


def test_a_run_of_an_earlier_version_keeps_its_order(folder, tmp_path):
    store = Store(tmp_path / "runs")
    run, handle = store.create(config(folder))
    if handle is not None:
        import os

        os.close(handle)
    path = run.path / "config.json"
    values = json.loads(path.read_text())
    assert values.pop("class_order") == []
    path.write_text(json.dumps(values))
    assert store.get(run.id).config.class_order == ("text",)
    values["dataset"] = "fashion-mnist-sample"
    path.write_text(json.dumps(values))
    assert getattr(store.get(run.id).config, "class_order", ()) == ()


@pytest.mark.parametrize("dataset", ["fashion-mnist-sample", "cifar10-sample", "fashion-mnist", "cifar10", "cifar100"])
def test_an_order_for_a_named_dataset_is_checked_before_the_run_and_before_a_download(dataset, tmp_path):
    known = data.describe(dataset).class_names
    given = make_config(dataset=dataset, teacher="none", methods="baseline", class_order=known[::-1])
    assert prepare(given, tmp_path).info.class_names == known[::-1]
    wrong = given.model_copy(update={"class_order": (*known[:-1], "zebra")})
    with pytest.raises(UserError, match="'zebra' is not among them"):
        prepare(wrong, tmp_path)


def test_the_names_that_are_known_beforehand_are_those_of_the_data():
    assert data.describe("fashion-mnist-sample").class_names == data.load("fashion-mnist-sample").class_names
