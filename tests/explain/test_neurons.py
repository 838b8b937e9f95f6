"""Active neurons of a network whose activations are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from iekd.explain.about import NotApplicableError
from iekd.explain.cka import similarity
from iekd.explain.flatness import flatness
from iekd.explain.grad_cam import grad_cam
from iekd.explain.network import NetworkOrHalf
from iekd.explain.neurons import active_neurons
from iekd.models.features import Features


@pytest.fixture(scope="module")
def layers():
    """Channels: bright pixels, nothing at all, everything but the brightest, bright pixels again."""
    convolution = nn.Conv2d(1, 4, 1)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, -1.0, -1.0, 2.0])[:, None, None, None])
        convolution.bias.copy_(torch.tensor([-0.5, -0.5, 0.9, -1.0]))
    return convolution


@pytest.fixture
def images():
    """Of 4 pixels each, 3 and 1 are above one half; all but one are below 0.9."""
    values = [[255, 200, 150, 0], [0, 0, 200, 100]]
    return np.array(values, np.uint8).reshape(2, 2, 2, 1)


def test_neurons_are_counted(make, layers, images):
    split = {"method": "ie-ft", "inheritance_channels": ((0, 1),)}
    network = make(nn.Sequential(layers, nn.ReLU()), nn.Linear(4, 2), side=2, **split)
    whole, inheritance, exploration = active_neurons(network, images)
    assert (whole.stage, whole.name, whole.neurons, whole.channels) == (-1, "plain", 16, 4)
    # bright pixels 3 + 1, none, below 0.9 3 + 4, bright again 3 + 1; of two images
    assert whole.active == (4 + 0 + 7 + 4) / 2
    assert whole.share == whole.active / 16
    assert whole.silent_channels == 1
    assert (inheritance.name, inheritance.neurons, inheritance.active) == ("plain inheritance", 8, 2)
    assert (exploration.name, exploration.neurons, exploration.active) == ("plain exploration", 8, 11 / 2)
    assert (inheritance.silent_channels, exploration.silent_channels) == (1, 0)


def test_stages_without_a_relu_are_left_out(make, layers, images, lived_in, noise, refuses):
    linear = make(layers, nn.Linear(4, 2), side=2)
    refuses(lambda: active_neurons(linear, images), "plain", "ReLU", kind=NotApplicableError)
    mobile = make(lived_in("mobilenet-v2"), side=16, channels=3, classes=("a", "b", "c"))
    assert [found.stage for found in active_neurons(mobile, noise(2))] == [-1]


def test_a_network_without_maps_says_so(make, noise, networks, refuses):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, images):
            pooled = images.mean((2, 3))
            return Features(self.fc(pooled), (), None, pooled)

    flat, images = make(Flat(), side=8, channels=3), noise(5, 8)
    for look in (
        lambda: active_neurons(flat, images),
        lambda: flat.head,
        lambda: grad_cam([NetworkOrHalf(flat)], images),
    ):
        refuses(look, "'plain'", kind=NotApplicableError)
    refuses(lambda: similarity([flat], images), "feature maps", kind=NotApplicableError)
    found = similarity([flat, *networks], noise(5))
    assert {name.split()[0] for one in found for name in one.names} == {"teacher", "baseline", "ie-ft"}
    assert flatness(flat, images, np.zeros(5, int)).network == "plain"


def test_every_stage_is_counted_from_the_end(networks, noise):
    found = active_neurons(networks[-1], noise(5))
    assert [n.stage for n in found] == [-1, -1, -1, -2, -3]
    whole, inheritance, exploration = found[:3]
    assert whole.active == pytest.approx(inheritance.active + exploration.active)
    assert (inheritance.channels, exploration.channels) == (24, 40)
    assert 0 < whole.share < 1
