"""Image files with their classes, found by whoever knows where they lie: drawn into splits, described and read."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from iekd.data.base import Dataset, Request
from iekd.data.decoding import READABLE, to_array
from iekd.data.duplicates import copied_files_note
from iekd.data.file_images import Files
from iekd.data.header_notes import header_notes, unreadable_notes
from iekd.data.reading import read_all
from iekd.data.views import usual_side
from iekd.errors import DataError, as_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """The files of a dataset.

    Args:
        train, test: the files, in which `which` is the label; test is None if it has to be drawn from `train`.
        looked_at: each folder and table that was read, with the time of its last change.
    """

    class_names: tuple[str, ...]
    train: Files
    test: Files | None
    tested_on: str = ""
    notes: tuple[str, ...] = ()
    looked_at: tuple[tuple[str, int], ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """As `fingerprint_of`, when it was first asked for."""
        return fingerprint_of(self)

    @cached_property
    def copies(self) -> tuple[str, ...]:
        """What to say of files that are equal."""
        return tuple(copied_files_note(self.train, self.test))

    @cached_property
    def headers(self) -> tuple[str, ...]:
        """What to say of images that are far from square, and the like, and of files that cannot be read."""
        notes = header_notes(self.train, class_names=self.class_names)
        return notes if self.test is None else (*notes, *unreadable_notes(self.test))

    @cached_property
    def side(self) -> int:
        """As `usual_side`, of the training files."""
        return usual_side(self.train)

    def split(self, test_fraction: float, seed: int) -> tuple[Files, Files]:
        """(training files, test files), which are drawn from each class if there are none of their own."""
        if self.test is not None:
            return self.train, self.test
        # whatever their labels are
        order = sorted(range(len(self.class_names)), key=self.class_names.__getitem__)
        train, test = draw_test(self.train.which, order, test_fraction, seed)
        return self.train.take(train), self.train.take(test)


def draw_test(
    labels: np.ndarray, order: Sequence[int], test_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(rows to train on, rows to test on) of images with labels (N,); drawn from each class, the classes in `order`."""
    rng, train, test = np.random.default_rng(seed), [], []
    for k in order:
        of_class = np.flatnonzero(labels == k)
        drawn = rng.permutation(len(of_class))
        held_out = drawn_of(len(of_class), test_fraction)
        test.append(of_class[np.sort(drawn[:held_out])])
        train.append(of_class[np.sort(drawn[held_out:])])
    return np.concatenate(train), np.concatenate(test)


def drawn_of(count: int, test_fraction: float) -> int:
    """How many images of a class are drawn for testing: at least one, and at least one is left to train on."""
    return min(count - 1, max(1, round(count * test_fraction)))


def files_by_label(root: str, paths: Sequence[str], labels: Sequence[int], classes: int) -> Files:
    """Files below one folder, in the order of their labels; equal labels keep their order."""
    start = root.rstrip(os.sep) + os.sep
    of_class: list[list[str]] = [[] for _ in range(classes)]
    for path, label in zip(paths, labels, strict=True):
        of_class[label].append(path.removeprefix(start))
    return Files.of([root] * classes, of_class)


def load_found(
    found: Found, request: Request, root: Path, cache: bool = True, fingerprint: str | None = None
) -> Dataset:
    """Read the files into a dataset: grey if all images are grey, else colour.

    Args:
        request: with a resolution.
        root: where they lie, for messages.
        cache: whether decoded images may be stored for the next run, if the request allows it too.
        fingerprint: of the dataset; None: that of its files.
    Raises:
        DataError: nothing of a split, or of a class, can be read.
    """
    assert request.resolution is not None
    as_read = fingerprint_of(found)  # before they are read: a file that changes meanwhile changes it
    train, test = found.split(request.test_fraction, request.seed)
    splits, unreadable, white = read_all(
        (train, test), request.resolution, as_read, request.image_memory,
        request.cache and cache, request.progress, request.fit,
    )  # fmt: skip
    skipped = list(map(as_text, unreadable))
    notes = [*found.notes, *header_notes(train, request.fit)]
    if found.tested_on:
        notes.append(
            f"There is no folder 'test' with one for each class: the images in '{found.tested_on}' are tested on."
        )
    for file in skipped:
        log.warning("Skipped, cannot be read: %s", file)
    if skipped:
        log.warning("%d of %d images in '%s' were skipped.", len(skipped), len(train) + len(test), root)
    for part, split in zip(("training", "test"), splits, strict=True):
        there = set(split.labels.tolist())
        missing = [c for k, c in enumerate(found.class_names) if k not in there]
        if part == "training" and missing:
            raise DataError(f"No readable training image of class '{missing[0]}' in '{root}'. Add some, or remove it.")
        if not len(split):
            raise DataError(f"No readable {part} image in '{root}'. Use {READABLE} files.")
    names = tuple(map(as_text, found.class_names))
    return Dataset(
        request.name, names, splits[0], splits[1], tuple(skipped),
        fingerprint=as_read if fingerprint is None else fingerprint, notes=tuple(notes), fit=request.fit, white=white,
    )  # fmt: skip


def thumbnails_of(found: Found, per_class: int) -> list[tuple[np.ndarray, str]]:
    """The first readable test images of the first classes, 64 pixels wide, each with its class."""
    _, test = found.split(0.2, 0)
    shown: list[tuple[np.ndarray, str]] = []
    for k, class_name in enumerate(found.class_names[:20]):
        for i in np.flatnonzero(test.which == k)[:per_class]:
            with contextlib.suppress(DataError):
                shown.append((to_array(test[int(i)], 64, 3), as_text(class_name)))
    return shown


def fingerprint_of(found: Found) -> str:
    """A hash of the names, sizes and times of all files, whichever split they are in."""
    lines = []
    for files in filter(None, (found.train, found.test)):
        for i in range(len(files)):
            with contextlib.suppress(OSError):  # the file has gone since
                about = os.stat(files[i])
                lines.append(f"{as_text(files[i])} {about.st_size} {about.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
