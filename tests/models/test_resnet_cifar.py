"""What is particular to the residual networks for small images; what every network does is in test_zoo.py."""

from __future__ import annotations

import pytest
import torch

from iekd.models.registry import build
from iekd.models.resnet_cifar import CifarResNet, PaddedShortcut

DEPTHS = {
    "resnet8": 8, "resnet14": 14, "resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56, "resnet110": 110,
    "resnet8x4": 8, "resnet32x4": 32,
    "resnet20-a": 20, "resnet32-a": 32, "resnet44-a": 44, "resnet56-a": 56, "resnet110-a": 110,
}  # fmt: skip


@pytest.mark.parametrize(("name", "depth"), DEPTHS.items())
def test_depth_is_what_the_name_says(name, depth):
    with torch.device("meta"):
        model = build(name, 10)
    weights = [p for n, p in model.named_parameters() if p.ndim > 1 and "shortcut" not in n]
    assert len(weights) == depth


@pytest.mark.parametrize("depth", [2, 6, 9, 21])
def test_depths_are_six_n_plus_two(depth):
    with pytest.raises(ValueError, match="6n\\+2"):
        CifarResNet(depth, 10)


def test_a_padded_shortcut_keeps_every_second_pixel_between_empty_channels():
    x = torch.randn(2, 4, 5, 5)
    out = PaddedShortcut(4, 8, 2)(x)
    assert out.shape == (2, 8, 3, 3)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


@pytest.mark.parametrize("name", ["resnet20-a", "resnet110-a"])
def test_shortcuts_of_option_a_have_no_weights(name):
    with torch.device("meta"):
        assert not [key for key in build(name, 10).state_dict() if "shortcut" in key]
