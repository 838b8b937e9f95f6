"""Where the stages of any network end before their activation, and in which batch norm: od needs it (Heo et al. 2019).

Found by one forward pass in which batch norms, ReLUs and sums are noted, so nothing is known here of any family. A
stage ends in a ReLU, or in nothing (a linear bottleneck), and what comes before that is a batch norm's output, or a sum
with one. Anything else between the two, such as a gate (squeeze and excitation), leaves no margin to be computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

SUMS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__}
NORM, RELU, SUM = "norm", "relu", "sum"


@dataclass(frozen=True)
class StageEnd:
    """Names of modules. norm: the batch norm. activation: the ReLU, whose input is the stage end before it; "" where
    the stage itself is that."""

    norm: str
    activation: str


@dataclass(frozen=True)
class _Event:
    """One thing that made a tensor. inputs: of a ReLU its input and of a sum both, each with what had made it."""

    kind: str
    name: str
    inputs: tuple[tuple[_Event | None, int], ...] = ()  # what made it, and its depth


class _Notes(TorchFunctionMode):
    """What made each tensor, in order. Tensors are kept, so that no two have one id."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, _Event] = {}
        self.depth: dict[int, int] = defaultdict(int)  # functions and modules on the longest way from the image
        self.kept: list[Tensor] = []

    def note(self, tensor: Any, kind: str, name: str, inputs: Sequence[Any]) -> None:
        if not isinstance(tensor, Tensor):
            return
        before = [one for one in inputs if isinstance(one, Tensor)]
        event = _Event(kind, name, tuple((self.made.get(id(one)), self.depth[id(one)]) for one in before))
        self.kept += [tensor, *before]
        self.depth[id(tensor)] = 1 + max((self.depth[id(one)] for one in before), default=0)
        if kind:
            self.made[id(tensor)] = event
        elif all(tensor is not one for one in before):  # a module that gives back its input changes nothing
            self.made.pop(id(tensor), None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [(one, self.made.get(id(one)), self.depth[id(one)]) for one in args if isinstance(one, Tensor)]
        result = func(*args, **(kwargs or {}))
        if inputs and isinstance(result, Tensor):
            self.kept += [result, *(one for one, _, _ in inputs)]
            self.depth[id(result)] = 1 + max(depth for _, _, depth in inputs)
            if func in SUMS and len(inputs) == 2:
                self.made[id(result)] = _Event(SUM, "", tuple((made, depth) for _, made, depth in inputs))
        return result


def find_ends(network: nn.Module, run: Callable[[], Sequence[Tensor]]) -> tuple[StageEnd, ...] | None:
    """The ends of a network's stages; None if one of them is not as described above.

    run: a forward pass; the tensors that the network's modules gave as its stages.
    """
    notes = _Notes()
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                kind = NORM if module.affine and _is_plain(module) else ""
            elif isinstance(module, nn.ReLU):
                kind = RELU
            elif next(module.children(), None) is None:
                kind = ""
            else:
                continue
            hook = module.register_forward_hook(
                lambda _, given, output, kind=kind, name=name: notes.note(output, kind, name, given)
            )
            hooks.callback(hook.remove)
        with notes, torch.no_grad():
            stages = run()
    ends = [_end(notes.made.get(id(stage))) for stage in stages]
    found = tuple(end for end in ends if end is not None)
    return found if ends and len(found) == len(ends) else None


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    """Whether it only normalises; timm has some with an activation of their own."""
    return isinstance(getattr(norm, "act", None), (nn.Identity, type(None)))


def _end(made: _Event | None) -> StageEnd | None:
    if made is None:
        return None
    if made.kind == RELU:
        norm = _norm(made.inputs[0][0]) if made.inputs else None
        return StageEnd(norm, made.name) if norm is not None else None
    norm = _norm(made)
    return StageEnd(norm, "") if norm is not None else None


def _norm(made: _Event | None) -> str | None:
    """The batch norm that made a tensor, or the one on the longer way of the two that were added."""
    if made is not None and made.kind == NORM:
        return made.name
    if made is None or made.kind != SUM:
        return None
    before, _ = max(made.inputs, key=lambda one: one[1])
    return before.name if before is not None and before.kind == NORM else None
