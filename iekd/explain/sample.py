"""The images that networks are explained on: a fixed sample of a dataset's test images, or anyone's files."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from iekd.data.base import Dataset
from iekd.errors import DataError, UserError
from iekd.inference.images import as_trained, find_images
from iekd.models.artifact import ModelCard

SEED = 0


@dataclass(frozen=True)
class Sample:
    """images: (N,H,W,C) uint8 as the networks expect them. names: what each is called.

    labels: (N,) int64, in the order of the networks' classes; None where they are not known.
    unreadable: why a file could not be read, one sentence each. more: how many images were found and not taken.
    """

    images: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray | None = None
    unreadable: tuple[str, ...] = field(default=())
    more: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> Sample:
        """The first `count` of them, or all."""
        labels = None if self.labels is None else self.labels[:count]
        return Sample(self.images[:count], self.names[:count], labels, self.unreadable, self.more)


def held_out(dataset: Dataset, class_names: tuple[str, ...], count: int) -> Sample:
    """The same test images of a dataset every time, in an order that was drawn once.

    Args:
        class_names: the networks' classes; they are the dataset's in any order.
    """
    rows = np.random.default_rng(SEED).permutation(len(dataset.test))[:count]
    split = dataset.ordered(class_names).test.take(rows)
    images = split.images[np.arange(len(rows))]
    names = [f"test image {row}" for row in rows] if (files := split.image_files) is None else files
    return Sample(images, tuple(names[i] for i in range(len(rows))), split.labels)


def from_files(paths: Iterable[str], card: ModelCard, count: int, match_background: bool = True) -> Sample:
    """The first `count` images of files, folders and archives, read as the images that a network was trained with.

    Args:
        match_background: see `inference.images.as_trained`.
    Raises:
        UserError: none of them can be read.
    """
    found = find_images(paths, Counter())
    images, names, unreadable = [], [], []
    for image in found:
        try:
            if image.error:
                raise DataError(image.error)
            source = image.source if not callable(image.source) else image.source()
            images.append(as_trained(source, card, image.name, match_background)[0])
            names.append(image.name)
        except DataError as error:
            unreadable.append(str(error))
        if len(images) == count:
            break
    if not images:
        raise UserError(f"No image could be read. {unreadable[0]}" if unreadable else "No image was named.")
    more = sum(not image.error for image in itertools.chain(found))
    return Sample(np.stack(images), tuple(names), None, tuple(unreadable), more)
