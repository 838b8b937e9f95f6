"""Whether a network is as sure as it is right: expected calibration error and the bars of a reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15  # as in Guo et al. 2017


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is above `low` and at most `high`.

    confidence, accuracy: their means, 0..1; None where the bin has no images.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """ece: expected calibration error, 0..1. confidence, accuracy: means over all images, 0..1."""

    ece: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]

    @property
    def overconfident(self) -> bool:
        """Whether the network is on average surer than it is right."""
        return self.confidence > self.accuracy


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Calibration:
    """Compare confidence with accuracy in bins of equal width.

    ECE = sum_b n_b / N * |accuracy_b - confidence_b|, over bins (b/B, (b+1)/B] of the predicted class's probability
    (Naeini et al. 2015; Guo et al. 2017, On Calibration of Modern Neural Networks). It depends on the number of bins,
    so values are only comparable with the same one.

    Args:
        confidence: (N,) probability of the predicted class, 0..1. right: (N,) bool.
        bins: B.
    Raises:
        ValueError: there are no images, or the shapes differ.

    >>> calibration(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False]), 2).ece
    0.0
    >>> round(calibration(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False]), 5).ece, 3)
    0.1
    """
    if not len(confidence) or confidence.shape != right.shape:
        raise ValueError(f"confidence {confidence.shape} and right {right.shape} have to be of the same images")
    confidence = confidence.astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sure, hits = (np.bincount(place, values, minlength=bins) for values in (confidence, right.astype(np.float64)))
    found = tuple(
        Bin(
            float(edges[b]), float(edges[b + 1]), int(counts[b]), float(sure[b] / counts[b]) if counts[b] else None,
            float(hits[b] / counts[b]) if counts[b] else None,
        )
        for b in range(bins)
    )  # fmt: skip
    return Calibration(
        float(abs(sure - hits).sum() / len(confidence)), float(confidence.mean()), float(right.mean()), found
    )
