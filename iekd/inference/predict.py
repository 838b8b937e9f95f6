"""A saved model that answers one image at a time, on the CPU, which is also how its latency is measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from iekd.engine.scoring import energy
from iekd.models.artifact import CARD, WEIGHTS

TOP = 5


@dataclass(frozen=True)
class Prediction:
    """One model's answer for one image: up to five (label, score in 0..1), best first, and the time it took.

    unlike: whether its energy is below that of 95 % of the test images; None where the model does not know that.
    """

    top: list[tuple[str, float]]
    milliseconds: float
    unlike: bool | None = None

    @property
    def label(self) -> str:
        return self.top[0][0]


class Predictor:
    """A saved model, ready to answer.

    images (H,W,C) uint8 of the card's resolution and channels -> Prediction.
    """

    def __init__(self, folder: Path) -> None:
        """Raises UserError if the folder holds no usable model."""
        from iekd.models.artifact import load_model
        from iekd.models.normalise import Normalise

        self.model, self.card = load_model(folder)
        self.normalise = Normalise(self.card.mean, self.card.std)
        self.bytes = (folder / WEIGHTS).stat().st_size

    def predict(self, image: np.ndarray) -> Prediction:
        import torch

        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]  # (1,C,H,W)
        start = time.perf_counter()
        with torch.inference_mode():
            logits = self.model(self.normalise(pixels)).logits[0]  # (K,)
            scores = logits.softmax(0)
        elapsed = (time.perf_counter() - start) * 1000
        best = scores.topk(min(TOP, len(scores)))
        labels = [self.card.class_names[i] for i in best.indices.tolist()]
        threshold = self.card.energy_threshold
        unlike = None if threshold is None else float(energy(logits)) < threshold
        return Prediction(list(zip(labels, best.values.tolist(), strict=True)), elapsed, unlike)


def load_predictor(folder: Path) -> Predictor:
    """A Predictor that stays in memory until the folder is written again; the 16 used last are kept."""
    return _cached(folder.resolve(), (folder / CARD).stat().st_mtime_ns if (folder / CARD).is_file() else 0)


@lru_cache(maxsize=16)
def _cached(folder: Path, _: int) -> Predictor:
    return Predictor(folder)
