"""The one shape in which every source delivers its images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from iekd.errors import DataError


@dataclass(frozen=True)
class Split:
    """Images (N,H,W,C) uint8 with C = 1 or 3, and labels (N,) int64."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split with their class names, and a validation split once one was held out.

    `mean` and `std` are per channel, in units of 0..1 pixel values, computed from the training split alone.
    `skipped` names files that could not be read.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    skipped: tuple[str, ...] = field(default=())
    validation: Split | None = None

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[3])

    @property
    def resolution(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel mean and standard deviation of the training split, pixel values scaled to 0..1.

        From a histogram: exact, and a few milliseconds where a float copy of the images would take gigabytes.
        """
        values = np.arange(256) / 255.0
        mean, std = [], []
        for channel in range(self.channels):
            share = np.bincount(self.train.images[..., channel].ravel(), minlength=256) / self.train.images[..., 0].size
            m = float(share @ values)
            mean.append(m)
            std.append(max(float(share @ (values - m) ** 2) ** 0.5, 1e-6))
        return tuple(mean), tuple(std)

    @property
    def background(self) -> float:
        """Mean brightness, 0..1, of the outermost pixels of the training images: near 0 for white on black."""
        images = self.train.images
        edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
        return float(np.mean([edge.mean() for edge in edges])) / 255

    def limited(self, count: int | None, seed: int = 0) -> Dataset:
        """The same data set with at most `count` training images, drawn at random, equally from each class."""
        if count is None or count >= len(self.train):
            return self
        if count < len(self.class_names):
            raise DataError(
                f"{count} training images are too few for the {len(self.class_names)} classes of {self.name}. "
                f"Ask for at least {len(self.class_names)}."
            )
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self.train))
        # rank of each image among its class in the random order; the smallest ranks make a balanced subset
        labels = self.train.labels[order]
        rank = np.empty(len(order), np.int64)
        for k in range(len(self.class_names)):
            of_class = np.flatnonzero(labels == k)
            rank[of_class] = np.arange(len(of_class))
        chosen = np.sort(order[np.argsort(rank, kind="stable")[:count]])
        return replace(self, train=Split(self.train.images[chosen], self.train.labels[chosen]))

    def held_out(self, fraction: float, seed: int = 0) -> Dataset:
        """The same data set with that share of each class's training images as the validation split.

        None is held out of a class with too few images; without any there is no validation split.
        """
        rng = np.random.default_rng([seed, 1])  # independent of the draws of `limited`
        chosen: list[np.ndarray] = []
        for k in range(len(self.class_names)):
            of_class = np.flatnonzero(self.train.labels == k)
            count = min(round(len(of_class) * fraction), len(of_class) - 1)  # something is left to learn from
            chosen.append(rng.permutation(of_class)[: max(0, count)])
        out = np.sort(np.concatenate(chosen))
        if not len(out):
            return self
        kept = np.setdiff1d(np.arange(len(self.train)), out)
        validation = Split(self.train.images[out], self.train.labels[out])
        return replace(self, train=Split(self.train.images[kept], self.train.labels[kept]), validation=validation)
