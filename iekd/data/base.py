"""The one shape in which every source delivers its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Union

import numpy as np

from iekd.data.file_images import FileImages, Files, image_sums
from iekd.errors import DataError

FOLDER = "folder:"
FOLDER_RESOLUTION = 32  # of a folder's pictures, where nothing else is asked for
Images = Union[np.ndarray, FileImages]
AT_ONCE = 1024  # images whose sums are taken together: a copy of all of them would be eight times as large


@dataclass(frozen=True)
class Split:
    """Images (N,H,W,C) uint8 with C = 1 or 3, in memory or still in their files, and labels (N,) int64.

    files: where images in memory were read from, where that is known.
    """

    images: Images
    labels: np.ndarray
    files: Files | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Split:
        """The images of those rows, with their labels."""
        images = self.images.take(rows) if isinstance(self.images, FileImages) else self.images[rows]
        return Split(images, self.labels[rows], None if self.files is None else self.files.take(rows))

    def joined(self, other: Split) -> Split:
        """These images, then those of another split that is kept in the same way."""
        labels = np.concatenate([self.labels, other.labels])
        if isinstance(self.images, FileImages) and isinstance(other.images, FileImages):
            return Split(self.images.joined(other.images), labels)
        files = None if self.files is None or other.files is None else self.files.joined(other.files)
        return Split(np.concatenate([self.images, other.images]), labels, files)

    @property
    def sources(self) -> Files | None:
        """The file of each image, or None where images did not come from files of their own."""
        return self.images.files if isinstance(self.images, FileImages) else self.files

    def sums(self) -> list[int]:
        """`image_sums` over all images."""
        if isinstance(self.images, FileImages):
            return [int(s) for s in self.images.sums.sum(0)]
        parts = (self.images[i : i + AT_ONCE] for i in range(0, len(self), AT_ONCE))
        return [int(s) for s in sum(image_sums(part).sum(0) for part in parts)]


@dataclass(frozen=True)
class Dataset:
    """A training and a test split with their class names, and a validation split once one was held out.

    `mean` and `std` are per channel, in units of 0..1 pixel values, computed from the training split alone.
    `skipped` names files that could not be read. `mark` is the DatasetInfo's.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    skipped: tuple[str, ...] = field(default=())
    validation: Split | None = None
    mark: str = ""

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[3])

    @property
    def resolution(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel mean and standard deviation of the training split, pixel values scaled to 0..1.

        From whole numbers, so that they are the same however the images are kept.
        """
        sums, count = self.train.sums(), len(self.train) * self.resolution**2
        mean, std = [], []
        for values, squares in zip(sums[: self.channels], sums[self.channels : -1], strict=True):
            mean.append(values / (255 * count))
            std.append(max(((count * squares - values**2) / (255 * count) ** 2) ** 0.5, 1e-6))
        return tuple(mean), tuple(std)

    @property
    def background(self) -> float:
        """Mean brightness, 0..1, of the outermost pixels of the training images: near 0 for white on black."""
        return self.train.sums()[-1] / (255 * len(self.train) * 4 * self.resolution * self.channels)

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
        return replace(self, train=self.train.take(chosen))

    def held_out(self, fraction: float, seed: int = 0) -> Dataset:
        """The same data set with that share of each class's training images as the validation split.

        None is held out of a class with too few images; without any there is no validation split.
        """
        rng = np.random.default_rng([seed, 1])  # independent of the draws of `limited`
        chosen: list[np.ndarray] = []
        for k in range(len(self.class_names)):
            of_class = np.flatnonzero(self.train.labels == k)
            chosen.append(rng.permutation(of_class)[: held_out_of(len(of_class), fraction)])
        out = np.sort(np.concatenate(chosen))
        if not len(out):
            return self
        kept = np.setdiff1d(np.arange(len(self.train)), out)
        return replace(self, train=self.train.take(kept), validation=self.train.take(out))


def held_out_of(size: int, fraction: float) -> int:
    """How many of a class of that size `Dataset.held_out` takes; something is left to learn from."""
    return max(0, min(round(size * fraction), size - 1))


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without opening it. Zero means: not known before loading."""

    name: str
    title: str
    train_images: int
    test_images: int
    classes: int
    channels: int
    resolution: int
    note: str = ""
    part_of: str = ""  # a larger data set of the same classes, whose teachers fit this one too
    class_sizes: tuple[int, ...] = ()  # training images of each class; unset where all are of one size
    tested_on: str = ""  # of a folder without test/: which of its images are
    mark: str = ""  # changes with a folder's files; empty for data sets that do not change


@dataclass(frozen=True)
class Request:
    """What a source may need to know: `resolution` is None for the data set's own size, `image_memory` (GB) for what
    is free; `keep` and `progress` as in `load`."""

    name: str
    resolution: int | None
    test_fraction: float
    seed: int
    image_memory: float | None = None
    keep: bool = True
    progress: Callable[[int, int], None] | None = None


Source = Callable[[Request], Dataset]
UPLOADED = ".pictures"  # a folder of this name, beside runs, holds what was uploaded to the page
SOURCES: dict[str, tuple[DatasetInfo, Source]] = {}


def register(info: DatasetInfo) -> Callable[[Source], Source]:
    """Decorator: the function below loads the data set that `info` describes."""

    def add(source: Source) -> Source:
        SOURCES[info.name] = (info, source)
        return source

    return add
