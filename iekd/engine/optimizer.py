"""Stochastic gradient descent, and the learning rate of each step.

The formulas are torch's; its classes are left out because they import its compiler when they are first used, which is a
quarter of the time from the start of a run to its first point (benchmarks/RESULTS.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from iekd.config.run import RunConfig

Rate = Callable[[int], float]  # how many steps are done -> learning rate of the next


class SGD:
    """Updates `parameters` from their gradients, those without one excepted.

    lr: a number, or a tensor () on the device, where a recorded step reads it.
    buffers: the momentum of each parameter that was updated; none without momentum.
    fused: one kernel for all parameters.
    """

    def __init__(
        self, parameters: Sequence[Tensor], lr: float | Tensor, *, momentum: float, weight_decay: float, nesterov: bool,
        fused: bool = False,
    ) -> None:  # fmt: skip
        self.parameters, self.lr, self.fused = list(parameters), lr, fused
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.buffers: dict[Tensor, Tensor] = {}

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        used = [p for p in self.parameters if p.grad is not None]
        buffers = [self.buffers.get(p) for p in used] if self.momentum else []
        sgd(
            used, [p.grad for p in used if p.grad is not None], buffers, fused=self.fused or None,
            lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov,
            dampening=0, maximize=False,
        )  # fmt: skip
        for parameter, buffer in zip(used, buffers, strict=False):
            assert buffer is not None  # `sgd` fills the list
            self.buffers[parameter] = buffer

    def put_momentum(self, parameter: Tensor, value: Tensor) -> None:
        """Go on with this momentum; it gets the parameter's layout in memory."""
        self.buffers[parameter] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def rate_of(config: RunConfig, steps: int) -> Rate:
    """The learning rate over a training of so many steps; see RunConfig.schedule."""
    lr = config.lr
    if config.schedule == "one-cycle":
        if steps < 4:  # too short for a cycle
            return lambda step: lr
        return partial(one_cycle, lr, steps, max(0.25, 2 / steps))
    if config.schedule == "cosine":
        return lambda step: _cosine(lr, 0.0, step / steps)
    milestones = [max(i, int(steps * share)) for i, share in enumerate(config.milestones, 1)]
    return lambda step: lr * 0.1 ** sum(step >= milestone for milestone in milestones)


def one_cycle(peak: float, steps: int, warm_up: float, step: int) -> float:
    """From peak / 25 up to the peak in a share `warm_up` of the steps, then down to peak / 250,000, along cosines.

    Smith & Topin 2018, in the form of torch's OneCycleLR.
    """
    top, last = warm_up * steps - 1, steps - 1
    if step <= top:
        return _cosine(peak / 25, peak, step / top)
    return _cosine(peak, peak / 250_000, min(1.0, (step - top) / (last - top)))


def _cosine(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
