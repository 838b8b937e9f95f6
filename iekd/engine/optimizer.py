"""The optimiser of a training, which is torch's, and the learning rate of each step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from iekd.config.run import RunConfig

Rate = Callable[[int], float]  # how many steps are done -> learning rate of the next
MOMENTUM = "momentum_buffer"  # torch's name for it
SHARE = "share"  # of the learning rate that a group of parameters gets


def _without_compiler(optimizer: type[Optimizer]) -> Any:
    """The same optimiser, for steps that are not compiled.

    torch wraps three methods so that its compiler leaves them alone, and imports the compiler for it when they are
    first called: seconds before the first step (benchmarks/RESULTS.md). Here only a student's forward and backward pass
    is ever compiled (accelerate.compile_or_not), so these are the methods without their wrapping.
    """
    methods = {
        "add_param_group": inspect.unwrap(optimizer.add_param_group),
        "zero_grad": inspect.unwrap(optimizer.zero_grad),
        "step": torch.no_grad()(inspect.unwrap(optimizer.step)),
    }
    return type(optimizer.__name__, (optimizer,), methods)


SGD = _without_compiler(torch.optim.SGD)


def values_on_device(config: RunConfig, device: torch.device) -> bool:
    """Whether the learning rate and the strength live on the device, where a recorded step reads them."""
    return device.type == "cuda" and not config.eager


def make_optimizer(
    parameters: Sequence[Tensor], lr: float, config: RunConfig, device: torch.device, slow: Collection[Tensor] = (),
    **values: Any,
) -> Optimizer:  # fmt: skip
    """SGD. Where the learning rate lives on the device it is a tensor (), and one kernel updates all parameters.

    slow: those of the parameters that get the share config.teacher_backbone of the learning rate.
    values: momentum, weight_decay and nesterov, as in torch.optim.SGD.
    """
    on_device = values_on_device(config, device)

    def rate(share: float) -> Any:  # a tensor of its own for each group
        return torch.tensor(lr * share, device=device) if on_device else lr * share

    groups: list[dict[str, Any]] = [{"params": list(parameters)}]
    if len(slow):
        groups = _in_groups(parameters, slow, config.teacher_backbone)
    groups = [{**group, "lr": rate(group.get(SHARE, 1.0))} for group in groups]
    optimizer: Optimizer = SGD(groups, rate(1.0), fused=on_device or None, **values)
    return optimizer


def _in_groups(parameters: Sequence[Tensor], slow: Collection[Tensor], share: float) -> list[dict[str, Any]]:
    """The parameters with the whole learning rate, and those with a share of it; without empty groups."""
    held_back = set(map(id, slow))
    fast = [p for p in parameters if id(p) not in held_back]
    others = [p for p in parameters if id(p) in held_back]
    return [group for group in ({"params": fast}, {"params": others, SHARE: share}) if group["params"]]


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of the next step, each group's share of it."""
    for group in optimizer.param_groups:
        set_value(group, "lr", rate * group.get(SHARE, 1.0))


def set_value(holder: dict[str, Any], key: str, value: float) -> None:
    """Set a number; in place where it is a tensor, because a recorded step reads it from there."""
    if isinstance(holder[key], Tensor):
        holder[key].fill_(value)
    else:
        holder[key] = value


def momentum_of(optimizer: Optimizer) -> dict[Tensor, Tensor]:
    """The momentum of each parameter that was updated; none without momentum."""
    return {parameter: state[MOMENTUM] for parameter, state in optimizer.state.items() if MOMENTUM in state}


def set_momentum(optimizer: Optimizer, parameter: Tensor, value: Tensor) -> None:
    """Continue with this momentum; it gets the parameter's device and layout in memory."""
    optimizer.state[parameter][MOMENTUM] = torch.empty_like(parameter, requires_grad=False).copy_(value)


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
