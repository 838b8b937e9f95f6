"""Small models to export, and ways to run what was exported without this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from iekd.data import Dataset
from iekd.models.artifact import ModelCard, save_model
from iekd.models.normalise import Normalise
from iekd.models.registry import build


@pytest.fixture(scope="session")
def saved(tiny):
    """`saved(folder, name, images, **card)` writes a network whose batch norms have seen images, and gives its folder.

    images: (N,H,W,C) uint8, the tiny dataset's unless given.
    """

    def save(folder: Path, name: str, images: np.ndarray | None = None, train: bool = False, **card) -> Path:
        images = tiny.train.images if images is None else images
        side, channels = images.shape[2:]
        torch.manual_seed(0)
        network, normalise = build(name, 3, channels), Normalise((0.4,) * channels, (0.3,) * channels)
        pixels = normalise(torch.from_numpy(images[:64].transpose(0, 3, 1, 2).copy()))
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), 0.05 if train else 0.0, momentum=0.9)
        for _ in range(30 if train else 3):
            loss = torch.nn.functional.cross_entropy(network(pixels).logits, torch.from_numpy(tiny.train.labels[:64]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        fields = {
            "model": name, "datasets": ("tiny",), "class_names": ("blue", "green", "red"), "channels": channels,
            "resolution": side, "mean": (0.4,) * channels, "std": (0.3,) * channels, "accuracy": 50.0,
            "params": sum(p.numel() for p in network.parameters()), "command": "iekd train --dataset tiny",
        }  # fmt: skip
        save_model(folder, network, ModelCard(**{**fields, **card}))
        return folder

    return save


@pytest.fixture(scope="session")
def model(tmp_path_factory, saved) -> Path:
    """A trained network for colour images of 16 x 16."""
    return saved(tmp_path_factory.mktemp("models") / "student", "resnet8", train=True)


@pytest.fixture(scope="session")
def grey(tiny) -> Dataset:
    """The tiny dataset in grey."""

    def without_colour(split):
        images = split.images.astype(np.uint16) @ np.array([1, 2, 4], np.uint16) // 7
        return type(split)(images[..., None].astype(np.uint8), split.labels)

    return Dataset("grey", tiny.class_names, without_colour(tiny.train), without_colour(tiny.test))


ALONE = """
import runpy, sys
sys.modules["iekd"] = None  # importing it, or anything of it, is an error
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert not [name for name in sys.modules if name.startswith("iekd.")]
"""


@pytest.fixture(scope="session")
def alone():
    """`alone(script, *words)` -> what a script prints in a process in which this package cannot be imported."""

    def run(script: Path, *words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-I", "-c", ALONE, str(script), *map(str, words)], capture_output=True, text=True,
            check=False, cwd=script.parent,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
