"""Whether predictions are right, and in percent: the one place where accuracy and agreement are computed.

Works on torch tensors and numpy arrays alike, and imports neither, so that results/ can use it without torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

IMBALANCE = 1.5
UNLIKE = 0.05  # share of the test images that would be called unlike the training images
Array = Any  # a torch tensor or a numpy array


def predicted(logits: Array) -> Array:
    """(..., K) logits -> (...), the class with the largest logit."""
    return logits.argmax(-1)


def is_right(predictions: Array, labels: Array) -> Array:
    """Elementwise, as bool. With the teacher's predictions for labels: where a student agrees with its teacher."""
    return predictions == labels


def batch_accuracy(logits: Array, labels: Array) -> Array:
    """Percent of a batch that is right, as a tensor that stays on its device.

    Args:
        logits: (B,K), or (N,B,K) of N students that see the same batch.
        labels: (B,).
    Returns:
        A scalar, or (N,).
    """
    return is_right(predicted(logits), labels).float().mean(-1) * 100


def percent(correct: float, images: int) -> float:
    """Accuracy of so many right predictions."""
    return correct / images * 100


def accuracy(right: Array) -> float:
    """Percent of (N,) bool that is true."""
    return percent(int(right.sum()), len(right))


def class_accuracy(right: Array, labels: Array, classes: int) -> list[float | None]:
    """`accuracy` of the images of each class, in order; None for a class without images."""
    of_class = [right[labels == k] for k in range(classes)]
    return [accuracy(own) if len(own) else None for own in of_class]


def balanced_accuracy(of_class: Iterable[float | None]) -> float:
    """Mean of the classes' accuracies (recalls): a class counts the same whether it has few images or many.

    Classes without images are left out.
    """
    known = [value for value in of_class if value is not None]
    return sum(known) / len(known)


def imbalanced(counts: Iterable[int]) -> bool:
    """Whether the largest class has over 1.5 times as many images as the smallest that has any."""
    there = [count for count in counts if count]
    return bool(there) and max(there) > IMBALANCE * min(there)


def interval(correct: float, images: int) -> tuple[float, float]:
    """95 % interval of an accuracy, in percent: Wilson 1927, which also holds for few images and near 0 and 100."""
    share, z = correct / images, 1.96
    middle, scale = share + z**2 / (2 * images), 1 + z**2 / images
    half = z * (share * (1 - share) / images + z**2 / (4 * images**2)) ** 0.5
    return 100 * max(0.0, (middle - half) / scale), 100 * min(1.0, (middle + half) / scale)


def energy(logits: Array) -> Array:
    """(..., K) logits -> (...), the negative energy of Liu et al. 2020 (arXiv 2010.03759): low for images that are
    unlike those that the network has learned from."""
    return logits.logsumexp(-1)
