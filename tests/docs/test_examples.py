"""The scripts in examples/ are short and do what they say, here on few images."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

import iekd

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="needs the checkout")


@pytest.fixture
def start(monkeypatch):
    """`start(name)`: run an example as `python examples/NAME.py` does, on 128 training and 100 test images."""
    whole = iekd.load("fashion-mnist-sample")
    few = whole.limited(128)
    few = iekd.Dataset(few.name, few.class_names, few.train, whole.test.take(range(100)))
    monkeypatch.setattr(iekd, "load", lambda name: few, raising=False)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](images=128, epochs=1)
    sys.modules.pop("own_modules", None)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_has_at_most_40_lines(path):
    assert len(path.read_text().splitlines()) <= 40


def test_own_modules_in_our_loop(start, capsys):
    start("own_modules")
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[-4:]] == ["teacher", "baseline", "kd", "ie-ft"]
    saved = torch.load("student.pt", weights_only=True)
    assert saved["0.0.weight"].shape == (4, 1, 3, 3)


def test_our_losses_in_your_own_loop(start):
    torch.manual_seed(0)
    start("own_loop")
    saved = torch.load("student.pt", weights_only=True)
    assert saved["0.0.weight"].shape == (4, 1, 3, 3)
    assert all(tensor.isfinite().all() for tensor in saved.values())
    assert saved["0.1.num_batches_tracked"] == 2  # of 64 images each
