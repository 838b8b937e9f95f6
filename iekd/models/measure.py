"""Measures a network: parameters, multiply-accumulates, channels and strides of its stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from iekd.errors import UserError, first_line
from iekd.models.features import Features
from iekd.models.info import ModelInfo

Builder = Callable[[int, int], nn.Module]  # (num_classes, channels) -> images (B,C,H,W) -> Features
SIDES = (32, 64, 128, 224, 256)  # of the image that is tried; some networks need large ones
BASE = 32  # the side of the image that sizes are told for
GUIDE = "See docs/adding-a-model.md"


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of convolutions and products of matrices in its context, also those of attention and of
    functions without a module: what torch's FlopCounterMode does, whose hooks would see other threads' networks too.

    The fused layers of torch.nn, which no formula knows, are not taken where a device is the context, as in `measure`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=output)
        return output


def measure(name: str, build: Builder, sides: Sequence[int] = SIDES) -> ModelInfo:
    """The sizes of what `build(num_classes, channels)` gives: on the meta device, where nothing is computed, or on the
    CPU where the network cannot run there. Random numbers that it draws change nothing outside.

    sides: of the image that is tried, the first that the network takes.

    Raises:
        UserError: it cannot be built or run, or its output is not what methods need; says what.
    """
    problem: Exception | None = None
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), torch.no_grad(), torch.random.fork_rng(devices=[]):
                return _measure(name, build, sides)
        except UserError:
            raise
        except Exception as error:  # whatever a function of somebody else raises
            problem = error
    assert problem is not None
    reason = f"{type(problem).__name__}: {first_line(problem)}"
    # a library's builder is a function with the network's name filled in
    module = getattr(build, "__module__", "") if not isinstance(build, partial) else ""
    advice = f"Correct its function in {module}. {GUIDE}." if module else "Choose another network."
    raise UserError(
        f"Model '{name}' cannot be built and run on images of {min(sides)} to {max(sides)} pixels ({reason}). {advice}"
    ) from problem


def _measure(name: str, build: Builder, sides: Sequence[int]) -> ModelInfo:
    counts = {
        (channels, classes): sum(p.numel() for p in build(classes, channels).parameters())
        for channels, classes in ((3, 10), (1, 10), (3, 11))
    }
    per_channel = (counts[3, 10] - counts[1, 10]) // 2
    per_class = counts[3, 11] - counts[3, 10]
    activations = 0

    def count(_: nn.Module, __: object, output: torch.Tensor) -> None:
        nonlocal activations
        activations += output.numel()

    model = build(10, 3).eval()
    side = _first_side(model, sides)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            module.register_forward_hook(count)
    with Products() as products:
        features = _checked(name, model(torch.zeros(1, 3, side, side)))
    area = (BASE / side) ** 2  # the catalog is about images of 32 x 32
    return ModelInfo(
        name,
        params_base=counts[3, 10] - 3 * per_channel - 10 * per_class,
        params_per_channel=per_channel,
        params_per_class=per_class,
        macs=round(products.flops / 2 * area),  # a multiplication and an addition are two
        activations=round(activations * area),
        stage_channels=tuple(stage.shape[1] for stage in features.stages),
        # of a map that is not square the mean; of one larger than the image 1
        stage_strides=tuple(max(1, round(side / math.sqrt(s.shape[2] * s.shape[3]))) for s in features.stages),
        has_margins=getattr(model, "stage_norms", None) is not None,
        has_pre_activations=features.pre_activations is not None,
    )


def _first_side(model: nn.Module, sides: Sequence[int]) -> int:
    """The first that the network takes; the last, for its error, if it takes none."""
    for side in sides[:-1]:
        try:
            model(torch.zeros(1, 3, side, side))
            return side
        except Exception:
            continue
    return sides[-1]


def _checked(name: str, features: Any) -> Features:
    """The output for one image and ten classes.

    Raises:
        UserError: it does not keep the contract of features.py.
    """
    if not isinstance(features, Features):
        raise UserError(f"Model '{name}' gives a {type(features).__name__} instead of Features. {GUIDE}.")
    if tuple(features.logits.shape) != (1, 10):
        shape = tuple(features.logits.shape)
        raise UserError(f"Model '{name}' gives logits {shape} for one image and 10 classes, not (1, 10). {GUIDE}.")
    if any(stage.ndim != 4 for stage in features.stages):
        shapes = ", ".join(str(tuple(stage.shape)) for stage in features.stages)
        raise UserError(f"Model '{name}' gives stages {shapes}; they must be maps (B, channels, h, w). {GUIDE}.")
    before = features.pre_activations
    if before is not None and [b.shape for b in before] != [s.shape for s in features.stages]:
        raise UserError(
            f"Model '{name}' gives pre_activations of other shapes than its stages. Give None to leave them out. "
            f"{GUIDE}."
        )
    return features
