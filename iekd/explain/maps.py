"""Relevance maps: what a method says of where a network looked, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Faithfulness:
    """How much sooner the explained class is lost when pixels go in the map's order than in the reverse order.

    deletion: mean probability of the class while the most relevant pixels are blurred first, 0..1; lower is better.
    insertion: the same while they come first into a blurred image; higher is better.
    score: insertion minus deletion, -1..1; a random order has 0. error: its standard error over the images.
    """

    deletion: float
    insertion: float
    score: float
    error: float


@dataclass(frozen=True)
class Conservation:
    """Where the relevance of the outputs went, as shares of it over all images.

    pixels: arrived at the pixels. biases: taken by the biases. lost: neither, which should be below 0.01.
    """

    pixels: float
    biases: float
    lost: float


@dataclass(frozen=True)
class RelevanceMaps:
    """One method's maps of one network, or of a half of it, for some images.

    method: "grad-cam" or "lrp". network, half: whose; half is "" for the whole network.
    explained: for each image the class whose logit is explained, the one that the whole network predicts.
    maps: (B,H,W) float32; larger is more relevant, and LRP's are negative where a pixel speaks against the class.
    """

    method: str
    network: str
    half: str
    explained: tuple[str, ...]
    maps: np.ndarray
    faithfulness: Faithfulness | None = None
    conservation: Conservation | None = None

    @property
    def label(self) -> str:
        return f"{self.network} {self.half}".strip()

    def to_json(self) -> dict[str, Any]:
        """Everything but the maps themselves."""
        return {
            "method": self.method, "network": self.network, "half": self.half, "explained": list(self.explained),
            "faithfulness": self.faithfulness and asdict(self.faithfulness),
            "conservation": self.conservation and asdict(self.conservation),
        }  # fmt: skip
