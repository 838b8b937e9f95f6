"""Small networks to explain: built by hand where the answer is known, else with weights as after some training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from iekd.explain.network import Network
from iekd.models.artifact import ModelCard
from iekd.models.features import Features
from iekd.models.registry import build


class Plain(nn.Module):
    """A body that ends in a feature map, its mean, and a linear layer."""

    def __init__(self, body: nn.Module, head: nn.Module):
        super().__init__()
        self.body, self.head = body, head

    def forward(self, images):
        last = self.body(images)
        pooled = last.mean((2, 3))
        return Features(self.head(pooled), (last,), None, pooled)


def card_of(model="", side=12, channels=1, classes=("no", "yes"), **changes) -> ModelCard:
    fields = {
        "model": model, "datasets": ("tiny",), "class_names": classes, "channels": channels, "resolution": side,
        "mean": (0.0,) * channels, "std": (1.0,) * channels, "accuracy": None, "params": 0,
    }  # fmt: skip
    return ModelCard(**{**fields, **changes})


@pytest.fixture(scope="session")
def make():
    """`make(body, head, **card)` -> Network: a body that ends in a feature map, its mean, and the head. Without a head,
    the body is a whole network."""

    def network(body, head=None, name="plain", **card):
        return Network(name, Plain(body, head) if head else body, card_of(**card))

    return network


@pytest.fixture(scope="session")
def lived_in():
    """`lived_in(model name, side, channels, seed)` -> module whose batch norms are as after training: no number in them
    is the initial one."""

    def model(name, side=16, channels=3, classes=3, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(name, classes, channels)
            for norm in network.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    nn.init.uniform_(norm.weight, 0.5, 1.5)
                    nn.init.uniform_(norm.bias, -0.3, 0.3)
                    norm.momentum = 1.0
            with torch.no_grad():
                network.train()(torch.randn(8, channels, side, side))
        return network.eval()

    return model


@pytest.fixture(scope="session")
def networks(lived_in):
    """A teacher, a plain student and an IE student whose channels were divided at random."""
    split = np.random.default_rng(0).permutation(64)[:24]
    roles = {
        "teacher": {"role": "teacher"}, "baseline": {},
        "ie-ft": {"method": "ie-ft", "inheritance_channels": (tuple(sorted(split.tolist())),)},
    }  # fmt: skip
    found = []
    for seed, (name, changes) in enumerate(roles.items()):
        card = card_of("resnet8", 16, 3, ("blue", "green", "red"), mean=(0.4,) * 3, std=(0.3,) * 3, **changes)
        found.append(Network(name, lived_in("resnet8", seed=seed), card))
    return found


@pytest.fixture(scope="session")
def noise():
    """`noise(count, side, channels)` -> images (B,H,W,C) uint8."""

    def images(count=4, side=16, channels=3, seed=0):
        return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels)).astype(np.uint8)

    return images


@pytest.fixture(scope="session")
def patch():
    """(a network that looks for a bright patch of 3 x 3, images with one, the corners of the patches).

    A convolution measures the mean of 3 x 3 pixels, and only a bright patch is above its bias.
    """
    convolution = nn.Conv2d(1, 2, 3, padding=1)
    with torch.no_grad():
        convolution.weight[0], convolution.bias[0] = 1 / 9, -0.6
        convolution.weight[1], convolution.bias[1] = 0.0, 1.0  # knows nothing of the image
        head = nn.Linear(2, 2)
        head.weight.copy_(torch.tensor([[0.0, 0.0], [100.0, 0.1]]))
        head.bias.zero_()
    images = np.random.default_rng(0).integers(0, 90, (6, 12, 12, 1)).astype(np.uint8)
    corners = [(0, 0), (2, 7), (9, 9), (5, 4), (0, 9), (7, 1)]
    for image, (y, x) in zip(images, corners, strict=True):
        image[y : y + 3, x : x + 3] = 255
    return Network("looks", Plain(nn.Sequential(convolution, nn.ReLU()), head), card_of()), images, corners
