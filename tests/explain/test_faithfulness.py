"""The faithfulness score: high for a map that is right, its negative for the reverse, nothing for a random one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from iekd.explain.faithfulness import blur, faithfulness
from iekd.explain.lrp import lrp
from iekd.explain.maps import RelevanceMaps
from iekd.explain.network import NetworkOrHalf, parts_of


@pytest.fixture(scope="module")
def found(patch):
    network, images, _ = patch
    return NetworkOrHalf(network), images, lrp([NetworkOrHalf(network)], images)[0]


def test_a_map_of_what_the_network_looks_at_is_faithful(found):
    score = faithfulness(*found)
    assert score.insertion == pytest.approx(score.deletion + score.score)
    assert score.score > 0.1
    assert score.score > 4 * score.error > 0


def test_the_reverse_order_has_the_negative_score(found):
    part, images, maps = found
    noisy = replace(maps, maps=maps.maps + np.random.default_rng(0).random(maps.maps.shape) * 1e-3)  # no equal pixels
    score, reverse = faithfulness(part, images, noisy), faithfulness(part, images, replace(noisy, maps=-noisy.maps))
    assert reverse.score == pytest.approx(-score.score, abs=1e-6)
    assert reverse.deletion == pytest.approx(score.insertion, abs=1e-6)


def test_random_maps_are_not_faithful(found):
    part, images, maps = found
    draw = np.random.default_rng(1)
    scores = [faithfulness(part, images, replace(maps, maps=draw.random(maps.maps.shape))).score for _ in range(20)]
    assert abs(np.mean(scores)) < 0.1 * faithfulness(*found).score


def test_equal_pixels_go_in_an_order_that_the_seed_fixes(found):
    part, images, maps = found
    empty = replace(maps, maps=np.zeros_like(maps.maps))
    assert faithfulness(part, images, empty) == faithfulness(part, images, empty)
    assert faithfulness(part, images, empty) != faithfulness(part, images, empty, seed=1)


def test_the_areas_are_those_of_a_network_that_can_be_computed_by_hand(make):
    """One bright pixel beside a dark one; the probability follows from the mean brightness, blurred or not."""
    first = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(first.weight)
    head = nn.Linear(1, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0], [4.0]]))
        head.bias.zero_()
    network = make(nn.Sequential(first, nn.ReLU()), head, side=2)
    image = np.array([[255, 0], [0, 0]], np.uint8).reshape(1, 2, 2, 1)
    maps = RelevanceMaps("lrp", "plain", "", ("yes",), np.array([[[4.0, 3.0], [2.0, 1.0]]], np.float32))
    pixels = network.pixels(image)
    dull = blur(pixels)[0, 0]

    def probability(*blurred):
        mean = sum(float((dull if i in blurred else pixels[0, 0]).ravel()[i]) for i in range(4)) / 4
        return 1 / (1 + np.exp(-4 * mean))

    def area(curve):
        return (curve[0] / 2 + curve[1] + curve[2] / 2) / 2

    score = faithfulness(NetworkOrHalf(network), image, maps, steps=2)
    assert score.deletion == pytest.approx(area([probability(), probability(0, 1), probability(0, 1, 2, 3)]), rel=1e-5)
    assert score.insertion == pytest.approx(area([probability(), probability(2, 3), probability(0, 1, 2, 3)]), rel=1e-5)
    assert score.insertion > score.deletion
    assert score.error == 0


def test_a_half_is_judged_without_the_other(networks, noise):
    student = networks[-1]
    for part in parts_of([student])[1:]:
        with torch.no_grad():
            features = student.forward(student.pixels(noise(4)))
            alone = features.pooled * part.mask() @ student.head[0].T + student.head[1]
        assert part.probabilities(student.pixels(noise(4))).numpy() == pytest.approx(alone.softmax(1).numpy(), abs=1e-6)


def test_the_blur_keeps_the_mean_and_no_detail(noise):
    pixels = torch.from_numpy(noise(2, 24, 3).transpose(0, 3, 1, 2).copy()).float()
    blurred = blur(pixels)
    assert blurred.shape == pixels.shape
    assert float(blurred.std()) < 0.2 * float(pixels.std())
    assert blurred.mean((2, 3)).numpy() == pytest.approx(pixels.mean((2, 3)).numpy(), rel=0.05)
    even = torch.full((1, 1, 9, 5), 3.0)
    assert blur(even).numpy() == pytest.approx(even.numpy())
