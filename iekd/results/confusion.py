"""Which classes a network takes for which, what another network changes in that, and how each class does.

Numbers in, numbers out: labels and predictions are (N,) int64 with values below the number of classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iekd.engine.scoring import percent


@dataclass(frozen=True)
class ConfusedPair:
    """Images of class `label` that are predicted as `predicted`: how many by a first and by a second network."""

    label: int
    predicted: int
    first: int
    second: int

    @property
    def change(self) -> int:
        """How many more the second network has; negative where it confuses the two classes less."""
        return self.second - self.first


@dataclass(frozen=True)
class ClassRow:
    """One class: its test images, and the percentage of them that each network classifies correctly.

    first, second: None for a class without images.
    """

    label: int
    images: int
    first: float | None
    second: float | None

    @property
    def gain(self) -> float | None:
        """Percentage points that the second network is better."""
        return None if self.first is None or self.second is None else self.second - self.first


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Count each combination of class and prediction.

    C[i, j] = number of images with label i and prediction j, as in Pearson's contingency table (1904).

    Args:
        labels, predictions: (N,).
        classes: K.
    Returns:
        (K,K) int64; rows are the right classes, columns the predicted ones.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def most_confused(first: np.ndarray, second: np.ndarray, most: int) -> list[ConfusedPair]:
    """The pairs of different classes whose count differs most between two networks; then those confused most often.

    Args:
        first, second: (K,K), `confusion_matrix` of the same images.
        most: how many pairs at most.
    Returns:
        Pairs that at least one network confuses.

    >>> most_confused(np.array([[5, 3], [1, 7]]), np.array([[8, 0], [1, 7]]), 1)
    [ConfusedPair(label=0, predicted=1, first=3, second=0)]
    """
    wrong = (first + second) * (1 - np.eye(len(first), dtype=np.int64))
    rows, columns = np.nonzero(wrong)
    order = np.lexsort((columns, rows, -wrong[rows, columns], -abs(second - first)[rows, columns]))[:most]
    found = ((int(rows[k]), int(columns[k])) for k in order)
    return [ConfusedPair(i, j, int(first[i, j]), int(second[i, j])) for i, j in found]


def per_class(first: np.ndarray, second: np.ndarray) -> list[ClassRow]:
    """How each class does with two networks, the largest gain of the second first; classes without images last.

    The accuracy of class i is its recall, C[i, i] / sum_j C[i, j].

    Args:
        first, second: (K,K), `confusion_matrix` of the same images.

    >>> [(row.label, row.gain) for row in per_class(np.array([[4, 0], [2, 2]]), np.array([[3, 1], [0, 4]]))]
    [(1, 50.0), (0, -25.0)]
    """
    rows = []
    for k, images in enumerate(first.sum(1).tolist()):
        right = [percent(int(matrix[k, k]), images) if images else None for matrix in (first, second)]
        rows.append(ClassRow(k, images, right[0], right[1]))
    return sorted(rows, key=lambda row: (row.gain is None, -(row.gain or 0.0), row.label))


def cell_rows(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, label: int, predicted: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images behind one cell of two networks' matrices.

    Args:
        labels, first, second: (N,), the right classes and the predictions of both networks.
        label, predicted: the cell.
    Returns:
        Rows that only the first network puts into the cell, only the second, and both; each in ascending order.

    >>> only_first, only_second, both = cell_rows(
    ...     np.array([0, 0, 0, 1]), np.array([1, 1, 0, 1]), np.array([1, 0, 1, 1]), 0, 1
    ... )
    >>> only_first.tolist(), only_second.tolist(), both.tolist()
    ([1], [2], [0])
    """
    of_first, of_second = ((labels == label) & (predictions == predicted) for predictions in (first, second))
    only_first, only_second, both = map(
        np.flatnonzero, (of_first & ~of_second, of_second & ~of_first, of_first & of_second)
    )
    return only_first, only_second, both
