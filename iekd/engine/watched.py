"""A few held-out images whose predictions are reported while networks train, for people to look at.

The logits are those of the evaluation that takes place after each epoch anyway: nothing more is computed, and training
does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from iekd.engine.scoring import predicted

IMAGES = 8
MOST_REPORTS = 200  # of one network; a longer training reports every few epochs


def choose(labels: np.ndarray, classes: int, count: int = IMAGES) -> tuple[int, ...]:
    """Which images of a split are watched: the first of each class, then the second, until there are enough.

    If there are more classes than images, the classes are evenly spread. It depends on the labels alone, so that nobody
    picks images that suit a method.

    Args:
        labels: (N,) int64.
    Returns:
        At most `count` numbers of images, class by class.
    """
    of_class = [np.flatnonzero(labels == k) for k in range(classes)]
    there = [rows for rows in of_class if len(rows)]
    if len(there) > count:
        there = [there[round(i * (len(there) - 1) / max(1, count - 1))] for i in range(count)]
    deepest = max((len(rows) for rows in there), default=0)
    ranked = (int(rows[rank]) for rank in range(deepest) for rows in there if rank < len(rows))
    chosen = [row for row, _ in zip(ranked, range(count), strict=False)]
    return tuple(sorted(chosen, key=lambda row: (labels[row], row)))


class Watch:
    """What one network predicts for the watched images, picked from the logits of a whole split.

    rows: their numbers in the split `kind` ("validation" or "test"). every: epochs between two reports.
    first, gather: where several processes have a part of the split each, the number of this one's first image, and what
    makes of its logits (n,K), zeros for images of others, those of all.
    """

    def __init__(
        self, rows: Sequence[int] = (), kind: str = "", every: int = 1, first: int = 0,
        gather: Callable[[Tensor], Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.rows, self.kind, self.every = tuple(rows), kind, every
        self.first, self.gather = first, gather
        self.logits: dict[int, Tensor] = {}  # row -> (K,)

    def see(self, first: int, logits: Tensor) -> None:
        """The next batch of a split: logits (B,K) of its images number `first` (of those here) and following."""
        self.blank = logits.new_zeros(logits.shape[1])
        for row in self.rows:
            place = row - self.first - first
            if 0 <= place < len(logits):
                self.logits[row] = logits[place].clone()  # a view would hold the whole batch in memory

    def take(self, kind: str, epoch: int, last: bool) -> tuple[tuple[int, ...], tuple[float, ...]] | None:
        """At the end of a split: (predicted class of each image, its probability); None if there is nothing to report.

        epoch: how many are done. last: whether it is the last one, which is always reported.
        """
        found, self.logits = self.logits, {}
        if not self.rows or kind != self.kind or not (last or epoch % self.every == 0):
            return None
        if self.gather is None:
            logits = torch.stack([found[row] for row in self.rows])
        else:
            logits = self.gather(torch.stack([found.get(row, self.blank) for row in self.rows]))
        logits = logits.float().cpu()  # (n,K)
        classes = predicted(logits)  # (n,)
        probabilities = logits.softmax(-1).gather(1, classes[:, None])[:, 0]  # (n,)
        return tuple(classes.tolist()), tuple(round(p, 4) for p in probabilities.tolist())
