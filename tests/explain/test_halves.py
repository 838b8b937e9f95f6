"""The halves of an IE student: what they add up to, what each is worth, and when there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from iekd.explain.about import NotApplicableError
from iekd.explain.halves import halves_worth
from iekd.explain.network import Network, NetworkOrHalf, parts_of


def test_silenced_halves_add_up_to_the_logits(networks, noise):
    student = networks[-1]
    with torch.no_grad():
        features = student.forward(student.pixels(noise(6)))
        whole, inheritance, exploration = (part.logits(features) for part in parts_of([student]))
    bias = student.model.classifier.bias
    assert float(bias.abs().min()) > 0
    assert torch.equal(whole, features.logits)
    assert (inheritance + exploration).numpy() == pytest.approx((whole + bias).numpy(), abs=1e-5)
    assert float((inheritance - whole).abs().max()) > 0.01


def test_accuracy_is_counted_with_the_other_half_silenced(networks, tiny):
    student, images, labels = networks[-1], tiny.test.images, tiny.test.labels
    channels, expected = list(student.card.inheritance_channels[-1]), {}
    for network in networks:
        with torch.no_grad():
            pooled = network.forward(network.pixels(images)).pooled
            head, alone = network.model.classifier, torch.zeros_like(pooled)
            alone[:, channels] = pooled[:, channels]
            answers = [head(x).argmax(1).numpy() for x in (pooled, alone, pooled - alone)]
        expected[network.name] = [100 * (answer == labels).mean() for answer in answers]
    found = halves_worth(student, images, labels, networks)
    assert [worth.network for worth in found] == ["ie-ft", "teacher", "baseline"]  # its own first
    for worth in found:
        percents = [worth.whole, worth.inheritance, worth.exploration]
        assert percents == pytest.approx(expected[worth.network])
        assert (worth.split_of, worth.images) == ("ie-ft", 60)
        assert all(low < value < high for value, (low, high) in zip(percents, worth.intervals, strict=True))
    assert any(inheritance != exploration for _, inheritance, exploration in expected.values())
    assert any(whole != inheritance for whole, inheritance, _ in expected.values())


def test_a_card_without_channels_means_natural_halves(networks, noise):
    student = networks[-1]
    old = Network("old", student.model, replace(student.card, inheritance_channels=()))
    assert old.halves["inheritance"][-1].tolist() == list(range(32))
    assert old.halves["exploration"][-1].tolist() == list(range(32, 64))
    assert student.halves["inheritance"][-1].tolist() == list(student.card.inheritance_channels[-1])


def test_several_stages_may_be_divided(networks):
    student = networks[-1]
    split = ((1, 5), tuple(range(16)), (0, 63))
    network = Network("all", student.model, replace(student.card, inheritance_channels=split))
    assert [c.tolist() for c in network.halves["inheritance"]] == [[1, 5], list(range(16)), [0, 63]]
    assert [len(c) for c in network.halves["exploration"]] == [14, 16, 62]
    assert network.halves["exploration"][0].tolist() == [0, 2, 3, 4, *range(6, 16)]


def test_without_halves_it_says_why(networks, make, noise, refuses):
    labels = np.zeros(4, np.int64)
    refuses(lambda: halves_worth(networks[1], noise(4), labels), "baseline", "not trained", kind=NotApplicableError)
    all_inherit = replace(networks[-1].card, inheritance_channels=(tuple(range(64)),))
    whole = Network("ie-ft", networks[-1].model, all_inherit)
    assert whole.halves == {}
    assert "all channels" in whole.no_halves
    two_layers = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    deep = make(nn.Conv2d(3, 4, 3), two_layers, "deep", side=16, channels=3, method="ie-ft")
    refuses(lambda: halves_worth(deep, noise(4), labels), "deep", "linear layer", kind=NotApplicableError)
    assert [part.half for part in parts_of([deep])] == [""]
    refuses(lambda: NetworkOrHalf(deep, "inheritance").network.head, "deep", kind=NotApplicableError)
