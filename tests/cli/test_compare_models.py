"""`iekd compare` with models of anywhere and images whose right answers are known. Each model always says one class."""

from __future__ import annotations

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.config.run import make_config
from iekd.models.artifact import ModelCard, save_model
from iekd.models.registry import build
from iekd.runs.status import FINISHED, Status
from iekd.runs.store import Store

CLASSES = ("ant", "bee")


def says_always(folder, label, classes=CLASSES):
    network = build("resnet8", len(classes), 3).eval()
    *_, last = (layer for layer in network.modules() if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([5.0 * (name == label) for name in classes]))
    card = ModelCard(
        model="resnet8", datasets=(), class_names=classes, channels=3, resolution=8, mean=(0.5,) * 3, std=(0.3,) * 3,
        accuracy=None, params=1,
    )  # fmt: skip
    save_model(folder, network, card)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run whose teacher says bee and whose students say ant; `own`, a model's folder that says bee; and images of
    three ants and a bee, in folders and in a zip."""
    place = tmp_path_factory.mktemp("ant")  # a name of a class, but around what is given
    run, handle = Store(place / "runs").create(make_config(methods=("baseline", "ie-ft")))
    os.close(handle)
    run.write_status(Status(state=FINISHED))
    for name, label in (("teacher", "bee"), ("baseline-seed0", "ant"), ("ie-ft-seed0", "ant")):
        says_always(run.path / "models" / name, label)
    says_always(place / "own", "bee")
    says_always(place / "cats", "cat", ("ant", "cat"))
    noise = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    with zipfile.ZipFile(place / "photos.zip", "w") as packed:
        for i, name in enumerate(("Ant/1.png", "Ant/2.png", "Ant/3.png", "bee/1.png")):
            path = place / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise[i]).save(path)
            packed.write(path, f"test/{name}")
        packed.writestr("test/notes.txt", "no image")
    return place


def compared(place, *words):
    found = CliRunner().invoke(app, ["compare", *map(str, words), "--runs-dir", str(place / "runs")])
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.fixture(scope="module")
def run_id(place):
    return Store(place / "runs").list()[0].id


def test_models_of_the_run_and_others_are_counted(place, run_id):
    words = ("--run", run_id, "--model", place / "own", "--model", f"{run_id}/teacher", place / "photos.zip")
    found = json.loads(compared(place, *words, "--json"))
    names = ["teacher", "baseline", "ie-ft", str(place / "own")]  # the teacher is there already
    assert [list(image["predictions"]) for image in found["images"]] == [names] * 4
    assert [image["right"] for image in found["images"]] == ["ant"] * 3 + ["bee"]
    right = dict(zip(names, (1, 3, 3, 1), strict=True))
    assert found["summary"] == {"images": 4, "broken": 0, "agree": 0, "differ": 4, "labelled": 4, "right": right}
    assert found["notes"] == ["Files that are no images were left out: 1 .txt."]


def test_without_a_run_only_the_named_models_predict(place, run_id):
    shown = compared(place, "--model", f"{run_id}/baseline-seed0", "--model", f"{run_id}/ie-ft-seed0", place / "photos")
    assert (
        "4 images: the models agree on 4, differ on 0. Right of 4 labelled: "
        f"{run_id}/baseline-seed0 3, {run_id}/ie-ft-seed0 3."
    ) in shown
    assert "can name 2 classes" in shown


def test_folders_around_the_images_give_no_right_answers(place, run_id):
    for given in (place / "photos" / "Ant", place / "photos" / "Ant" / "1.png"):
        found = json.loads(compared(place, "--run", run_id, given, "--json"))
        assert found["summary"]["labelled"] == 0
        assert "right" not in found["images"][0]


def test_of_a_run_with_several_seeds_it_says_whose_students_predict(place):
    run, handle = Store(place / "seeds").create(make_config(methods=("baseline",), seeds=(3, 5)))
    os.close(handle)
    run.write_status(Status(state=FINISHED))
    for seed in (3, 5):
        says_always(run.path / "models" / f"baseline-seed{seed}", "ant")
    for source, said in ((run.id, True), (f"{run.id}/5", False)):
        words = ["compare", "--run", source, str(place / "photos" / "bee"), "--runs-dir", str(place / "seeds")]
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0, found.output
        note = f"The students are those of seed 3; for others give {run.id}/5."
        assert (note in found.stderr) == said


def test_a_model_for_other_classes_or_none_is_an_error(place, run_id):
    words = ["compare", "--run", run_id, str(place / "photos"), "--runs-dir", str(place / "runs"), "--model"]
    for model, said in ((str(place / "cats"), "only the first knows 'cat'"), (f"{run_id}/kd", "has no model 'kd'")):
        found = CliRunner().invoke(app, [*words, model])
        assert found.exit_code == 2
        assert said in found.stderr


def test_what_was_exported_on_the_page_is_a_model(place, run_id):
    from iekd.cli.common import find_model

    exported = Store(place / "runs").get(run_id).path / "exports" / "ie-ft-seed0-onnx" / "model.onnx"
    exported.parent.mkdir(parents=True)
    exported.write_bytes(b"")
    assert find_model(f"{run_id}/ie-ft-seed0/onnx", place / "runs") == exported
