"""Names and sizes of the networks, without torch: what the page shows before anything heavy is loaded.

The numbers are read from `catalog.json`, which `python -m iekd.models.catalog` measures on the real networks; a test
holds the file to them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from iekd.errors import unknown_name

CATALOG = Path(__file__).with_name("catalog.json")


@dataclass(frozen=True)
class ModelInfo:
    """Sizes of one network.

    params_base + channels * params_per_channel + classes * params_per_class is the number of parameters.
    macs: multiply-accumulates of one forward pass of a 3x32x32 image with 10 classes.
    activations: numbers kept for the backward pass of such an image.
    feature_channels, feature_stride: the last stage's width, and how much smaller than the image it is.
    """

    name: str
    params_base: int
    params_per_channel: int
    params_per_class: int
    macs: int
    activations: int
    feature_channels: int
    feature_stride: int

    def params(self, channels: int, classes: int) -> int:
        return self.params_base + channels * self.params_per_channel + classes * self.params_per_class


@lru_cache(maxsize=1)
def models() -> dict[str, ModelInfo]:
    """Every network by name, in the order of the registry."""
    return {row["name"]: ModelInfo(**row) for row in json.loads(CATALOG.read_text())}


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
    from torch import nn

    from iekd.models.registry import builders

    rows = []
    for name, builder in builders().items():
        counts = {
            (channels, classes): sum(p.numel() for p in builder(classes, channels).parameters())
            for channels, classes in ((3, 10), (4, 10), (3, 11))
        }
        per_channel = counts[4, 10] - counts[3, 10]
        per_class = counts[3, 11] - counts[3, 10]
        macs = activations = 0

        def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
            nonlocal macs, activations
            activations += output.numel()
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                per_output = module.weight.numel() // module.weight.shape[0]
                macs += per_output * output.numel()

        model = builder(10, 3).eval()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
                module.register_forward_hook(count)
        with torch.no_grad():
            feature = model(torch.zeros(1, 3, 32, 32)).stages[-1]
        base = counts[3, 10] - 3 * per_channel - 10 * per_class
        rows.append(
            ModelInfo(name, base, per_channel, per_class, macs, activations, feature.shape[1], 32 // feature.shape[2])
        )
    return rows


if __name__ == "__main__":
    CATALOG.write_text(json.dumps([asdict(row) for row in measure()], indent=1) + "\n")
