"""Measures the registered networks and writes `catalog.json`: `python -m iekd.models.measure`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import nn

from iekd.models.catalog import CATALOG, ModelInfo
from iekd.models.features import Classifier
from iekd.models.registry import builders


def measure() -> list[ModelInfo]:
    """Build every registered network and count."""
    with torch.device("meta"), torch.no_grad():  # shapes without numbers
        return [_measure(name, builder) for name, builder in builders().items()]


def _measure(name: str, build: Callable[[int, int], Classifier]) -> ModelInfo:
    counts = {
        (channels, classes): sum(p.numel() for p in build(classes, channels).parameters())
        for channels, classes in ((3, 10), (4, 10), (3, 11))
    }
    per_channel = counts[4, 10] - counts[3, 10]
    per_class = counts[3, 11] - counts[3, 10]
    macs = activations = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs, activations
        activations += output.numel()
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            macs += module.weight[0].numel() * output.numel()

    model = build(10, 3).eval()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            module.register_forward_hook(count)
    stages = model(torch.zeros(1, 3, 32, 32)).stages
    return ModelInfo(
        name,
        params_base=counts[3, 10] - 3 * per_channel - 10 * per_class,
        params_per_channel=per_channel,
        params_per_class=per_class,
        macs=macs,
        activations=activations,
        stage_channels=tuple(stage.shape[1] for stage in stages),
        stage_strides=tuple(32 // stage.shape[2] for stage in stages),
        has_margins=model.stage_norms is not None,
    )


if __name__ == "__main__":
    CATALOG.write_text(json.dumps([asdict(row) for row in measure()], indent=1) + "\n")
