"""The optimiser of a training, which is torch's SGD or AdamW; what it remembers; the learning rate of each step."""

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
# torch's names for what an optimiser remembers of a parameter: SGD's, then AdamW's
MOMENTUM, FIRST, SECOND, STEP = "momentum_buffer", "exp_avg", "exp_avg_sq", "step"
REMEMBERED = (MOMENTUM, FIRST, SECOND, STEP)
SHARE = "share"  # of the learning rate that a group of parameters gets
Groups = Sequence[Tensor] | Sequence[dict[str, Any]]  # parameters, or groups of them as torch.optim takes them


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


SGD, ADAMW = _without_compiler(torch.optim.SGD), _without_compiler(torch.optim.AdamW)


def values_on_device(config: RunConfig, device: torch.device) -> bool:
    """Whether the learning rate and the strength live on the device, where a recorded step reads them."""
    return device.type == "cuda" and not config.eager


def make_optimizer(
    parameters: Groups, lr: float, config: RunConfig, device: torch.device, kind: str = "sgd", **values: Any
) -> Optimizer:
    """SGD or AdamW. Where the learning rate lives on the device it is a tensor (), and one kernel updates all
    parameters.

    parameters: a group may have a SHARE of the learning rate. kind: "sgd" or "adamw". values: as torch.optim's class of
    that name takes them.
    """
    on_device = values_on_device(config, device)

    def rate(share: float) -> Any:  # a tensor of its own for each group
        return torch.tensor(lr * share, device=device) if on_device else lr * share

    groups: list[dict[str, Any]] = [one for one in parameters if isinstance(one, dict)]
    groups = groups or [{"params": list(parameters)}]
    groups = [{**group, "lr": rate(group.get(SHARE, 1.0))} for group in groups]
    if kind == "adamw":  # capturable: counts its steps on the device
        optimizer: Optimizer = ADAMW(groups, rate(1.0), fused=on_device or None, capturable=on_device, **values)
    else:
        optimizer = SGD(groups, rate(1.0), fused=on_device or None, **values)
    return optimizer


def student_optimizer(
    parameters: Sequence[Tensor], config: RunConfig, device: torch.device, stacked: bool = False,
    slow: Collection[Tensor] = (),
) -> Optimizer:  # fmt: skip
    """The optimiser that the run's settings ask for.

    With AdamW, biases and the scales and shifts of norms have no weight decay, as is usual in timm: whatever has fewer
    than two dimensions. With SGD all parameters have it, as in the papers of distillation.

    stacked: the parameters are those of several networks, with one dimension more.
    slow: those of the parameters that get the share config.teacher_backbone of the learning rate.
    """
    groups = _by_rate(parameters, slow, config.teacher_backbone)
    if config.optimizer == "sgd":
        return make_optimizer(
            groups, config.lr, config, device, momentum=config.momentum, weight_decay=config.weight_decay,
            nesterov=config.nesterov and config.momentum > 0,
        )  # fmt: skip
    groups = [
        {**group, **part}
        for group in groups
        for part in decay_groups(group["params"], config.weight_decay, 1 + stacked)
    ]
    return make_optimizer(groups, config.lr, config, device, config.optimizer)


def _by_rate(parameters: Sequence[Tensor], slow: Collection[Tensor], share: float) -> list[dict[str, Any]]:
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


def decay_groups(parameters: Sequence[Tensor], weight_decay: float, flat: int = 1) -> list[dict[str, Any]]:
    """Two groups for torch.optim: parameters of more than `flat` dimensions with weight decay, the others without."""
    matrices = [p for p in parameters if p.ndim > flat]
    others = [p for p in parameters if p.ndim <= flat]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def memory_of(optimizer: Optimizer) -> dict[Tensor, dict[str, Tensor]]:
    """What an optimiser remembers of each parameter that was updated, by the names in REMEMBERED; without momentum SGD
    remembers nothing."""
    known = {
        parameter: {kind: state[kind] for kind in REMEMBERED if isinstance(state.get(kind), Tensor)}
        for parameter, state in optimizer.state.items()
    }
    return {parameter: found for parameter, found in known.items() if found}


def remembered_as(name: str, kind: str) -> str:
    """The key in LearnerState.momentum for what is remembered of the parameter `name`."""
    return name if kind == MOMENTUM else f"{name}#{kind}"


def kind_of(key: str) -> str:
    """The kind that `remembered_as` made a key of."""
    return key.partition("#")[2] or MOMENTUM


def put_memory(optimizer: Optimizer, parameter: Tensor, kind: str, value: Tensor) -> None:
    """Continue with this; it gets the parameter's device and layout in memory."""
    if kind != STEP:
        kept = torch.empty_like(parameter, requires_grad=False).copy_(value)
    else:  # a number, which the optimiser keeps on the device only if a recorded step reads it there
        on_device = optimizer.param_groups[0].get("capturable")
        kept = value.detach().to(parameter.device if on_device else "cpu", copy=True)
    optimizer.state[parameter][kind] = kept


def decay_of(optimizer: Optimizer) -> float:
    """How much of the momentum (of SGD or AdamW) is left after a step, beside the new gradient's share."""
    group = optimizer.param_groups[0]
    return float(group["momentum"] if "momentum" in group else group["betas"][0])


def rate_of(config: RunConfig, steps: int) -> Rate:
    """The learning rate over a training of so many steps; see RunConfig.schedule."""
    lr = config.lr
    if config.schedule == "one-cycle":
        if steps < 4:  # too short for a cycle
            return lambda step: lr
        return partial(one_cycle, lr, steps, max(0.25, 2 / steps))
    rising = round(config.warm_up * steps)
    if rising:
        usual = _falling(config, steps, rising)
        return lambda step: lr * (step + 1) / (rising + 1) if step < rising else usual(step)
    return _falling(config, steps, 0)


def _falling(config: RunConfig, steps: int, rising: int) -> Rate:
    """Cosine from the end of the warm-up on, or multi-step, whose milestones are shares of the whole run."""
    lr = config.lr
    if config.schedule == "cosine":
        return lambda step: _cosine(lr, 0.0, (step - rising) / (steps - rising))
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


@torch.no_grad()
def clip(parameters: Sequence[Tensor], most: float, members: int | None = None) -> None:
    """Scale the gradients down, in place, to a norm of at most `most` over all of them (Pascanu et al. 2013).

    members: the parameters are stacks of so many networks' (members,...); each network has its own norm. Nothing waits
    for the device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    rows = [g.reshape(members or 1, -1) for g in gradients]
    norm = torch.stack([torch.linalg.vector_norm(row, dim=1) for row in rows]).norm(dim=0)  # (members or 1,)
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)) if members else factor.squeeze(0))
