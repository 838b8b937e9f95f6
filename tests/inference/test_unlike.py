"""Pictures that are unlike the training images are marked, by a threshold from the test images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from iekd import data
from iekd.cli.main import app
from iekd.inference.compare import ImageResult, classes_named, compare
from iekd.inference.predict import Prediction
from iekd.models.artifact import CARD, ModelCard, load_model, save_model
from iekd.models.normalise import Normalise
from iekd.runs.models import demo_models
from iekd.runs.store import Store
from iekd.ui.tabs.compare import compare_files, results_html


def test_the_threshold_of_a_runs_models_is_that_of_its_test_images(finished):
    run, _ = finished
    test = data.load(run.config.dataset, resolution=run.config.resolution).test
    pixels = torch.from_numpy(test.images[:]).permute(0, 3, 1, 2)
    assert set(run.model_folders) == {"teacher", *(f"{m}-seed{s}" for m, s in run.config.learner_names)}
    for folder in run.model_folders.values():
        model, card = load_model(folder)
        with torch.no_grad():
            logits = model(Normalise(card.mean, card.std)(pixels)).logits.double()
        energies = logits.exp().sum(1).log().numpy()
        assert card.energy_threshold == pytest.approx(np.quantile(energies, 0.05), abs=1e-4)
        assert 0 < (energies < card.energy_threshold).mean() <= 0.05


@pytest.fixture(autouse=True)
def shipped(surroundings, monkeypatch):
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(Path(__file__).parents[2] / "checkpoints"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[str, list[Path]]:
    """Thirty of noise, and thirty test images that no threshold was chosen for alone."""
    folder, rng = tmp_path_factory.mktemp("unlike"), np.random.default_rng(0)
    test = data.load("fashion-mnist-sample").test.images[:30, :, :, 0]
    found: dict[str, list[Path]] = {}
    for name, images in (("noise", rng.integers(0, 256, (30, 28, 28), dtype=np.uint8)), ("clothes", test)):
        found[name] = [folder / f"{name}{i}.png" for i in range(30)]
        for path, image in zip(found[name], images, strict=True):
            Image.fromarray(image).save(path)
    return found


def test_the_shipped_teacher_marks_noise_and_hardly_any_clothes(pictures):
    marked = {
        name: sum(bool(r.unlike) for r in compare(demo_models(), [(p.name, p) for p in paths]))
        for name, paths in pictures.items()
    }
    assert marked["noise"] >= 27
    assert marked["clothes"] <= 5


def test_every_place_says_it_in_one_sentence(pictures, tmp_path):
    noise, clothes = str(pictures["noise"][0]), str(pictures["clothes"][0])
    said = "Unlike the training images: the teacher is less sure of this image than of 95 % of the test images."
    endpoint = compare_files(Store(tmp_path), "", [noise, clothes])["images"]
    assert endpoint[0]["unlike"].startswith(said)
    assert "unlike" not in endpoint[1]
    page = results_html(Store(tmp_path), "", [noise, clothes], None, [])
    assert page.count(said) == 1
    assert "These networks can name 10 classes and nothing else: T-shirt/top, Trouser" in page
    words = ["compare", noise, clothes, "--runs-dir", str(tmp_path)]
    shown = CliRunner().invoke(app, words).stdout
    assert shown.count(said) == 1
    assert "can name 10 classes" in shown
    assert [("unlike" in row) for row in json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["images"]] == [
        True, False,
    ]  # fmt: skip


def answer(**unlike: bool | None) -> ImageResult:
    return ImageResult(
        "x", np.zeros((4, 4, 1), np.uint8), predictions={n: Prediction([("a", 0.9)], 1.0, u) for n, u in unlike.items()}
    )


@pytest.mark.parametrize(
    ("unlike", "marked"),
    [
        ({"teacher": True, "kd": False, "ft": False}, True), ({"teacher": False, "kd": True, "ft": True}, False),
        ({"kd": True}, True), ({"kd": True, "ft": False}, False), ({"kd": True, "ft": True, "at": False}, True),
        ({"teacher": None, "kd": None}, False), ({"teacher": None, "kd": True}, True), ({}, False),
    ],
)  # fmt: skip
def test_the_teacher_decides_and_without_one_most_students(unlike, marked):
    assert bool(answer(**unlike).unlike) == marked


def test_models_of_earlier_versions_say_nothing(tmp_path):
    model, card = load_model(demo_models()["teacher"])
    save_model(tmp_path / "old", model, card)
    values = json.loads((tmp_path / "old" / CARD).read_text())
    del values["energy_threshold"]
    (tmp_path / "old" / CARD).write_text(json.dumps(values))
    assert ModelCard.read(tmp_path / "old").energy_threshold is None
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    (result,) = compare({"teacher": tmp_path / "old"}, [("noise", noise)])
    assert result.predictions["teacher"].unlike is None
    assert result.unlike == ""


def test_of_many_classes_some_are_named():
    assert classes_named(tuple(f"c{i}" for i in range(1030))).endswith("c18, c19 and 1,010 more.")
