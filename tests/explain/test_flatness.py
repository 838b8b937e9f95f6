"""Flatness: the plain loss without noise, the same noise for the same seed, scaled to each filter."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from iekd.explain.flatness import directions, flatness


@pytest.fixture(scope="module")
def labels():
    return np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int64)


def test_without_noise_it_is_the_plain_loss(networks, noise, labels):
    network, images = networks[0], noise(8)
    found = flatness(network, images, labels, levels=(0.0, 0.1), seeds=(0, 1))
    with torch.inference_mode():
        logits = network.forward(network.pixels(images)).logits
    assert found.losses[0][0] == found.losses[1][0] == float(F.cross_entropy(logits, torch.from_numpy(labels)))
    assert found.accuracy[0] == 100 * (logits.argmax(1).numpy() == labels).mean()
    assert found.deviation[0] == 0
    assert found.losses[0][1] != found.losses[0][0]


def test_it_is_what_copies_with_noise_in_their_weights_lose(networks, noise, labels):
    network, images = networks[1], noise(8)
    found = flatness(network, images, labels, levels=(0.0, 0.2, 0.4), seeds=(3,))
    weights = {name: p for name, p in network.model.named_parameters() if p.dim() > 1}
    drawn = directions(weights, 3)
    for level, loss in zip(found.levels, found.losses[0], strict=True):
        noisy = copy.deepcopy(network.model)
        for name, weight in noisy.named_parameters():
            if name in drawn:
                weight.copy_(weights[name] + level * drawn[name])
        expected = F.cross_entropy(noisy(network.pixels(images)).logits, torch.from_numpy(labels))
        assert loss == pytest.approx(float(expected), rel=1e-4)


def test_seeds_decide_and_the_network_stays_as_it_was(networks, noise, labels):
    network = networks[0]
    before = copy.deepcopy(network.model.state_dict())
    first, again = (flatness(network, noise(8), labels, seeds=(0, 1)) for _ in range(2))
    assert first == again
    assert first.losses[0][1:] != first.losses[1][1:]
    assert first.mean[-1] == pytest.approx(np.mean([row[-1] for row in first.losses]))
    assert first.deviation[-1] == pytest.approx(np.std([row[-1] for row in first.losses], ddof=1))
    after = network.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_noise_of_a_filter_has_its_size():
    weights = {"conv": torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)), "fc": torch.ones(2, 5)}
    weights["conv"][1] *= 100
    weights["conv"][2] = 0
    drawn = directions(weights, 0)
    for name, weight in weights.items():
        assert drawn[name].shape == weight.shape
        assert drawn[name].flatten(1).norm(dim=1).numpy() == pytest.approx(weight.flatten(1).norm(dim=1).numpy())
    assert not torch.equal(directions(weights, 1)["fc"], drawn["fc"])
