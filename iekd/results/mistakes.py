"""Test images to look at: those that a network is most surely wrong about, and those whose labels may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iekd.engine.scoring import is_right


@dataclass(frozen=True)
class Mistake:
    """One image: its row in the test split, its class, what is predicted, and with which probability.

    confidence: 0..1; None where it is not known.
    """

    row: int
    label: int
    predicted: int
    confidence: float | None


def confident_mistakes(labels: np.ndarray, predictions: np.ndarray, confidence: np.ndarray, most: int) -> list[Mistake]:
    """The wrong predictions of a network, the surest first.

    Args:
        labels, predictions: (N,) int64. confidence: (N,) probability of the predicted class.
        most: how many at most.

    >>> confident_mistakes(np.array([0, 1, 1]), np.array([1, 1, 0]), np.array([0.6, 0.9, 0.8]), 1)
    [Mistake(row=2, label=1, predicted=0, confidence=0.8)]
    """
    rows = np.flatnonzero(~is_right(predictions, labels))
    rows = rows[np.argsort(-confidence[rows], kind="stable")[:most]]
    return [Mistake(int(i), int(labels[i]), int(predictions[i]), float(confidence[i])) for i in rows]


def suspicious_labels(
    labels: np.ndarray, predictions: Sequence[np.ndarray], confidences: Sequence[np.ndarray] = ()
) -> list[Mistake]:
    """The images for which all networks agree on one class that is not the label.

    Such a label is often wrong, because networks with different training make different mistakes; but they also agree
    on images that are hard. The idea is the consensus filter of Brodley and Friedl 1999, Identifying Mislabeled
    Training Data, applied to test images.

    Args:
        labels: (N,) int64. predictions: of each network, (N,) int64. At least two networks.
        confidences: of each network, (N,) probability of its predicted class; or none.
    Returns:
        All of them: the largest mean confidence first, or by row where that is not known.
    Raises:
        ValueError: there are fewer than two networks.

    >>> suspicious_labels(np.array([0, 1, 1]), [np.array([1, 1, 0]), np.array([1, 0, 1])])
    [Mistake(row=0, label=0, predicted=1, confidence=None)]
    """
    if len(predictions) < 2:
        raise ValueError("one network alone cannot agree with others")
    agree = np.all([is_right(other, predictions[0]) for other in predictions], axis=0)
    rows = np.flatnonzero(agree & ~is_right(predictions[0], labels))
    if confidences:
        sure = np.mean(confidences, axis=0)
        rows = rows[np.argsort(-sure[rows], kind="stable")]
    return [
        Mistake(int(i), int(labels[i]), int(predictions[0][i]), float(sure[i]) if confidences else None) for i in rows
    ]
