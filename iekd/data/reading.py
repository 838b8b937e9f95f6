"""Decode every image of a folder once: into memory or, if they would take too much of it, only for their sums.

What took a while is stored (see decoded_cache.py), and found again until a file comes, goes or changes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TypeVar

import numpy as np
import PIL

from iekd.data.base import Progress, Split
from iekd.data.control_groups import cores
from iekd.data.decoded_cache import find, store
from iekd.data.decoding import CROP, WHITES, look_at, to_array, white_of
from iekd.data.file_images import FileImages, Files, image_sums
from iekd.data.memory import image_budget
from iekd.errors import DataError

BLOCK = 8  # files that a thread takes at a time: photographs take a tenth of a second each
MOVED = 512  # images at a time
WORTH_CACHING = 5.0  # seconds: what took less is not stored
VERSION = 3  # of what `to_array` makes of a file; raise it when that changes
IMAGES, SUMS = "images", "sums"

log = logging.getLogger(__name__)


T = TypeVar("T")


@dataclass(frozen=True)
class Shape:
    """What every file becomes; see `to_array`."""

    resolution: int
    channels: int
    fit: str
    white: float | None

    def decode(self, path: str) -> np.ndarray:
        return to_array(path, self.resolution, self.channels, "", self.fit, self.white)


@dataclass(frozen=True)
class Reading:
    """What was read of one split.

    values: of its readable files, in their order: the images (M,H,W,C) uint8, or their `image_sums`.
    rows: (M,) which of the files these are.
    """

    values: np.ndarray
    rows: np.ndarray


def read_all(
    splits: Sequence[Files], resolution: int, fingerprint: str, image_memory: float | None, cache: bool = True,
    progress: Progress | None = None, fit: str = CROP, alike: tuple[int, float | None] | None = None,
) -> tuple[list[Split], list[str], float | None]:  # fmt: skip
    """The images of each split, the paths of those that cannot be read, and the white level of images with more than
    8 bits (see `decoding.white_of`). All are grey if all files are.

    Args:
        splits: the files of each split, in which `which` is the label.
        resolution: side of the square images.
        fingerprint: of all files as they are now.
        image_memory: as in data.load.
        cache: whether to store decoded images, and to use stored ones.
        progress: called now and then; what it raises ends the reading.
        fit: how images that are not square are made so, see `to_array`.
        alike: channels and white level that they shall have; None: what suits them.
    """
    total, budget, began = sum(map(len, splits)), image_budget(image_memory), time.monotonic()
    found = _find(splits, resolution, fingerprint, budget, progress, fit, alike) if cache else None
    if found is None:
        channels, white = alike or _suiting(splits)
        shape = Shape(resolution, channels, fit, white)
        kind = IMAGES if total * resolution**2 * channels <= budget else SUMS
        found = shape, kind, _decode(splits, shape, kind, progress)
        if cache and time.monotonic() - began > WORTH_CACHING:
            _store(splits, _name(fingerprint, shape, kind), found[2])
    else:
        log.info("The images were decoded before.")
    shape, kind, readings = found
    channels = shape.channels
    if shape.white is not None:
        log.info("Some images have more than 8 bits: the value %g of all of them becomes white.", shape.white)
    if kind == SUMS:
        log.info(
            "The images would take %.2f GB and may take %.2f GB: their files are re-decoded every epoch.",
            total * resolution**2 * channels / 1e9, budget / 1e9,
        )  # fmt: skip
    read, unreadable = [], []
    for files, reading in zip(splits, readings, strict=True):
        there, labels = files.take(reading.rows), files.which[reading.rows].astype(np.int64)
        if kind == IMAGES:
            read.append(Split(reading.values, labels, there))
        else:
            images = FileImages(there, reading.values, resolution, channels, fit, shape.white)
            read.append(Split(images, labels))
        unreadable += [files[int(i)] for i in np.setdiff1d(np.arange(len(files)), reading.rows)]
    return read, unreadable, shape.white


def _suiting(splits: Sequence[Files]) -> tuple[int, float | None]:
    """The channels and the white level that suit all files."""
    looked_at = list(_in_threads(lambda split, i: look_at(splits[split][i]), splits))
    channels = 1 if all(grey for grey, _ in looked_at) else 3
    return channels, white_of(max((largest for _, largest in looked_at), default=0.0))


def _find(
    splits: Sequence[Files], resolution: int, fingerprint: str, budget: float, progress: Progress | None, fit: str,
    alike: tuple[int, float | None] | None,
) -> tuple[Shape, str, list[Reading]] | None:  # fmt: skip
    """(shape, kind, what was read of each split) from the cache, if it is what would be read now."""
    total = sum(map(len, splits))
    looks = [alike] if alike else list(product((1, 3), (None, *WHITES)))
    for kind, (channels, white) in product((IMAGES, SUMS), looks):
        shape = Shape(resolution, channels, fit, white)
        if (total * resolution**2 * channels <= budget) != (kind == IMAGES):
            continue
        if (there := find(_name(fingerprint, shape, kind))) is None or len(there[1]) != total:
            continue
        values, row_of = there
        rows_of = [row_of[ranks] for ranks in _ranks(splits)]
        broken = [files.take(np.flatnonzero(rows < 0)) for files, rows in zip(splits, rows_of, strict=True)]
        readable = _in_threads(partial(_readable, broken, shape), broken, progress)
        if any(readable):  # a disk was away, say
            return None
        return shape, kind, [Reading(values[rows[rows >= 0]], np.flatnonzero(rows >= 0)) for rows in rows_of]
    return None


def _store(splits: Sequence[Files], name: str, readings: Sequence[Reading]) -> None:
    row_of, first = np.full(sum(map(len, splits)), -1, np.int64), 0
    for ranks, reading in zip(_ranks(splits), readings, strict=True):
        row_of[ranks[reading.rows]] = np.arange(first, first + len(reading.rows))
        first += len(reading.rows)
    store(name, [reading.values for reading in readings], row_of)


def _name(fingerprint: str, shape: Shape, kind: str) -> str:
    how = f"{shape.resolution}-{shape.channels}-{shape.fit}" + (f"-{shape.white:g}" if shape.white else "")
    return f"{fingerprint}-{how}-{kind}-{VERSION}-pillow-{PIL.__version__}"


def _ranks(splits: Sequence[Files]) -> list[np.ndarray]:
    """The rank of each file among the sorted paths of all, which is the same however they are split."""
    paths = [os.fsencode(files[i]) for files in splits for i in range(len(files))]
    ranks = np.empty(len(paths), np.int64)
    ranks[sorted(range(len(paths)), key=paths.__getitem__)] = np.arange(len(paths))
    return np.split(ranks, np.cumsum([len(files) for files in splits])[:-1])


def _decode(splits: Sequence[Files], shape: Shape, kind: str, progress: Progress | None) -> list[Reading]:
    side, channels = shape.resolution, shape.channels
    size, dtype = ((side, side, channels), np.uint8) if kind == IMAGES else ((2 * channels + 1,), np.int64)
    arrays = [np.empty((len(files), *size), dtype) for files in splits]  # type: ignore[call-overload]

    def read(split: int, i: int) -> bool:
        try:
            image = shape.decode(splits[split][i])
        except DataError:
            return False
        arrays[split][i] = image if kind == IMAGES else image_sums(image[None])[0]
        return True

    readable = np.fromiter(_in_threads(read, splits, progress), bool, sum(map(len, splits)))
    readings = []
    for values, there in zip(arrays, np.split(readable, np.cumsum([len(files) for files in splits])[:-1]), strict=True):
        rows = np.flatnonzero(there)
        if len(rows) < len(values):
            for i in range(0, len(rows), MOVED):  # up in place: there may be no room for a second array
                some = rows[i : i + MOVED]
                values[i : i + len(some)] = values[some]
        readings.append(Reading(values[: len(rows)], rows))
    return readings


def _in_threads(
    function: Callable[[int, int], T], splits: Sequence[Files], progress: Progress | None = None
) -> Iterator[T]:
    """function(split, file) for every file of every split in turn; decoding releases the interpreter lock."""
    sizes = list(map(len, splits))
    block = max(BLOCK, min(64, sum(sizes) // 20_000))  # of a million files, all blocks at once take memory too
    blocks = [(s, range(i, min(i + block, n))) for s, n in enumerate(sizes) for i in range(0, n, block)]
    done, pool = 0, ThreadPoolExecutor(min(32, cores()))  # with more, small files mostly wait for the lock
    try:
        for answers in pool.map(lambda block: [function(block[0], i) for i in block[1]], blocks):
            done += len(answers)
            if progress is not None:
                progress(done, sum(sizes))
            yield from answers
    finally:
        pool.shutdown(cancel_futures=True)


def _readable(splits: Sequence[Files], shape: Shape, split: int, i: int) -> bool:
    with contextlib.suppress(DataError):
        shape.decode(splits[split][i])
        return True
    return False
