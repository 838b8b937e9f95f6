"""The images that networks are explained on: a fixed sample of a dataset's test images, or anyone's files."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from iekd.data.base import Dataset
from iekd.engine.scoring import is_right, predicted
from iekd.errors import DataError, UserError
from iekd.explain.network import Network, NetworkOrHalf
from iekd.inference.images import as_trained, find_images
from iekd.inference.showcase import chosen_rows
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
        return self.take(range(min(count, len(self))))

    def take(self, rows: Sequence[int]) -> Sample:
        """Those of some rows, in their order."""
        chosen = np.array(rows, np.int64)
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, images=self.images[chosen], names=tuple(self.names[row] for row in rows), labels=labels)


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


def differing(networks: Sequence[Network], sample: Sample, count: int) -> Sample:
    """Labelled images on which the networks differ, as on the page's landing page: of those that exactly one of two
    networks classifies correctly, the first ones, with each side in its proportion. Where there are fewer than `count`,
    the first others follow.

    The two are the first and the last student, or without two students the first and the last network.
    """
    students = [network for network in networks if network.card.role != "teacher"]
    pair = students if len(students) > 1 else networks
    assert sample.labels is not None
    first, last = (_right(network, sample) for network in (pair[0], pair[-1]))
    rows = chosen_rows(first, last, count)
    return sample.take([*rows, *(row for row in range(len(sample)) if row not in rows)][:count])


def _right(network: Network, sample: Sample) -> np.ndarray:
    """(N,) bool, whether it classifies each image correctly."""
    assert sample.labels is not None
    found = []
    for batch in network.batches(len(sample)):
        answers = predicted(NetworkOrHalf(network).probabilities(network.pixels(sample.images[batch]))).cpu().numpy()
        found.append(is_right(answers, sample.labels[batch]))
    return np.concatenate(found)


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
