"""What several families of networks share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


def initialise(network: nn.Module, linear_std: float | None = None) -> None:
    """Convolutions as in He et al. 2015 (normal, variance 2 / fan-out, no bias); linear layers as torch makes them, or
    normal with `linear_std` and no bias."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, 0, linear_std)
            nn.init.zeros_(module.bias)


def run_stages(stages: Iterable[nn.Module], x: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Run stages (lists of blocks that return a tensor after and before its activation) one after the other.

    Returns:
        (stage ends after the activation, the same before it)
    """
    after, before = [], []
    for stage in stages:
        y = x
        for block in cast(nn.ModuleList, stage):
            x, y = block(x)
        after.append(x)
        before.append(y)
    return tuple(after), tuple(before)


class ReluBlock(nn.Module):
    """A block that ends in a ReLU. Returns (after, before) it; subclasses say what comes before."""

    def before(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = self.before(x)
        return F.relu(before), before
