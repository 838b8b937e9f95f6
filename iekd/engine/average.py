"""The moving average of a network's weights, which is often better than the weights themselves.

Polyak & Juditsky 1992; in this form Tarvainen & Valpola 2017 and timm's ModelEma.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from iekd.engine.optimizer import set_value


class Average:
    """A copy of a network that follows it: average <- decay * average + (1 - decay) * weights after each step.

    Batch norm's running mean and variance are averaged like the weights; what is counted is copied. Early on the decay
    is (1 + steps) / (10 + steps) where that is smaller, else the initial weights would count for long.
    """

    def __init__(self, network: nn.Module, decay: float, device: torch.device, on_device: bool) -> None:
        """on_device: a recorded step reads the share of the new weights from the device."""
        self.network = copy.deepcopy(network)
        self.decay = decay
        self.share: float | Tensor = torch.zeros((), device=device) if on_device else 0.0
        self.pairs: list[tuple[Tensor, Tensor]] | None = None

    def prepare(self, steps: int) -> None:
        """Before the step after so many."""
        set_value(vars(self), "share", 1 - min(self.decay, (1 + steps) / (10 + steps)))

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """After a step of `network`, always the same one: its tensors are looked up once."""
        if self.pairs is None:
            mine, its = self.network.state_dict(), network.state_dict(keep_vars=True)
            self.pairs = [(mine[name], its[name]) for name in mine]
        for average, newest in self.pairs:
            if average.is_floating_point():
                average.lerp_(newest, self.share)
            else:
                average.copy_(newest)
