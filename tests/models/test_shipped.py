"""The released checkpoints are what their cards say, on the test images that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iekd import data
from iekd.engine.batches import to_device
from iekd.engine.learner import predict
from iekd.models.artifact import load_model
from iekd.models.catalog import models
from iekd.models.normalise import Normalise

ROOT = Path(__file__).parents[2] / "checkpoints"
SHIPPED = sorted(p.name for p in ROOT.iterdir() if p.is_dir()) if ROOT.is_dir() else []


@pytest.mark.skipif(not SHIPPED, reason="no shipped checkpoints yet")
@pytest.mark.parametrize("name", SHIPPED or ["none"])
def test_a_shipped_model_is_as_accurate_as_its_card_says(name):
    model, card = load_model(ROOT / name)
    dataset = data.load("fashion-mnist-sample")
    assert card.class_names == dataset.class_names
    assert (card.channels, card.resolution) == (dataset.channels, dataset.resolution)
    assert card.params == models()[card.model].params(card.channels, len(card.class_names))
    assert card.command.startswith(("iekd ", "python "))
    images, labels = to_device(dataset.test, torch.device("cpu"))
    answers = predict(model, Normalise(card.mean, card.std), images, torch.device("cpu")).argmax(1)
    assert (answers == labels).double().mean().item() * 100 == pytest.approx(card.accuracy, abs=0.021)
    if card.method == "baseline" and card.model == "resnet20":
        assert card.accuracy >= 93
