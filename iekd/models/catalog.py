"""Names and sizes of the networks, without torch: what the page shows before anything heavy is loaded.

The numbers are read from `catalog.json`, which `python -m iekd.models.catalog` measures on the real networks; a test
holds the file to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iekd.errors import unknown_name

if TYPE_CHECKING:
    from iekd.models.features import Classifier

CATALOG = Path(__file__).with_name("catalog.json")


@dataclass(frozen=True)
class ModelInfo:
    """Sizes of one network.

    params_base + channels * params_per_channel + classes * params_per_class is the number of parameters.
    macs: multiply-accumulates of one forward pass of a 3x32x32 image with 10 classes.
    activations: numbers kept for the backward pass of such an image.
    stage_channels, stage_strides: every stage's width, and how much smaller than the image it is.
    has_margins: the network has `stage_norms` (see features.py), from which margins follow.
    """

    name: str
    params_base: int
    params_per_channel: int
    params_per_class: int
    macs: int
    activations: int
    stage_channels: tuple[int, ...]
    stage_strides: tuple[int, ...]
    has_margins: bool

    @property
    def feature_channels(self) -> int:
        """The last stage's."""
        return self.stage_channels[-1]

    @property
    def feature_stride(self) -> int:
        """The last stage's."""
        return self.stage_strides[-1]

    def params(self, channels: int, classes: int) -> int:
        return self.params_base + channels * self.params_per_channel + classes * self.params_per_class


@lru_cache(maxsize=1)
def models() -> dict[str, ModelInfo]:
    """Every network by name, in the order of the registry."""
    return {row["name"]: _from_json(row) for row in json.loads(CATALOG.read_text())}


def _from_json(row: dict[str, Any]) -> ModelInfo:
    stages = {key: tuple(row[key]) for key in ("stage_channels", "stage_strides")}
    return ModelInfo(**{**row, **stages})


def known_models() -> list[str]:
    return list(models())


def check_model(name: str) -> str:
    """Return `name` if there is such a network, else raise a UserError with the closest match."""
    if name not in models():
        raise unknown_name("model", name, models())
    return name


def measure() -> list[ModelInfo]:
    """Build every registered network and count (imports torch)."""
    import torch

    from iekd.models.registry import builders

    with torch.device("meta"), torch.no_grad():  # shapes without numbers
        return [_measure(name, builder) for name, builder in builders().items()]


def _measure(name: str, build: Callable[[int, int], Classifier]) -> ModelInfo:
    import torch
    from torch import nn

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
