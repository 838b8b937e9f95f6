"""A classifier that answers one image at a time, on the CPU, which is also how its latency is measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from iekd.inference.classifier import OpenedModel, open_classifier
from iekd.models.artifact import CARD

TOP = 5


@dataclass(frozen=True)
class Prediction:
    """One model's answer for one image: up to five (label, score in 0..1), best first, and the time it took.

    unlike: whether its negative energy is below that of 95 % of the test images; None where the model does not know.
    """

    top: list[tuple[str, float]]
    milliseconds: float
    unlike: bool | None = None

    @property
    def label(self) -> str:
        return self.top[0][0]

    def to_json(self) -> list[dict[str, Any]]:
        """What the command line and the endpoints say of it."""
        return top_json(self.top)


class Predictor:
    """A saved model, ready to predict: images (H,W,C) uint8 of the card's resolution and channels -> Prediction.

    Attributes:
        card: what is known of the model: class names, resolution, channels, accuracy.
        bytes: of its file.

    Example:
        predictor = Predictor(Path("checkpoints/fashion-mnist-resnet20-teacher"))
        side, channels = predictor.card.resolution, predictor.card.channels
        prediction = predictor.predict(np.zeros((side, side, channels), np.uint8))
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Args:
            path: the folder of a saved model, or an ONNX file.
            device: cpu, cuda or mps.
        Raises:
            UserError: there is no usable model, or no such device.
        """
        self.classifier = open_classifier(path, device)
        self.card, self.bytes = self.classifier.card, self.classifier.size

    @property
    def model(self) -> Any:
        """The torch module; an ONNX file has none."""
        return getattr(self.classifier, "model", None)

    def predict(self, image: np.ndarray) -> Prediction:
        """Classify one image.

        Args:
            image: (H,W,C) uint8, 0..255, as the model expects it: square, of its resolution and number of channels.
        Returns:
            The most probable classes, and the time that it took in milliseconds.
        """
        start = time.perf_counter()
        scores = self.classifier.scores(image[None])
        elapsed = (time.perf_counter() - start) * 1000
        return Prediction(
            best(self.classifier, scores.probabilities[0], TOP), elapsed, self.classifier.unlike(scores)[0]
        )


def best(classifier: OpenedModel, probabilities: np.ndarray, top: int) -> list[tuple[str, float]]:
    """The (label, score) of the `top` largest of (K,) probabilities, best first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [(classifier.card.class_names[i], float(probabilities[i])) for i in order.tolist()]


def top_json(top: list[tuple[str, float]]) -> list[dict[str, Any]]:
    """The best classes as JSON values."""
    return [{"label": label, "score": score} for label, score in top]


def load_predictor(path: Path, device: str = "cpu") -> Predictor:
    """A Predictor that stays in memory until its folder or file is written again; the 16 used last stay."""
    stamp = path / CARD if path.is_dir() else path
    return _cached(path.resolve(), device, stamp.stat().st_mtime_ns if stamp.is_file() else 0)


@lru_cache(maxsize=16)
def _cached(path: Path, device: str, _: int) -> Predictor:
    return Predictor(path, device)
