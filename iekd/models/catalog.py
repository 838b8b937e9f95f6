"""Names and sizes of the networks, without torch: what the page shows before anything heavy is loaded.

The numbers are read from `catalog.json`, which `python -m iekd.models.measure` measures on the real networks; a test
holds the file to them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iekd.errors import unknown_name

if TYPE_CHECKING:
    pass

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
