"""Images without classes, in a folder and below it: more to learn from for methods that need no label."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from iekd.data.base import Dataset, Progress, Split
from iekd.data.duplicates import shared
from iekd.data.file_images import Files
from iekd.data.reading import read_all
from iekd.data.tree import read_tree
from iekd.errors import DataError
from iekd.paths import as_typed
from iekd.plural import counted

NO_LABEL = -1


def check_unlabelled(path: str) -> int:
    """How many image files there are.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if not os.path.isdir(path):
        raise DataError(f"There is no folder '{as_typed(path)}'. Give the path of a folder with unlabelled images.")
    count = read_tree(Path(path))[0].count()
    if not count:
        raise DataError(f"There are no images in '{as_typed(path)}'. Give the path of a folder with unlabelled images.")
    return count


def load_unlabelled(
    path: str, dataset: Dataset, image_memory: float | None = None, cache: bool = True, progress: Progress | None = None
) -> tuple[Split, list[str]]:
    """(the images of a folder and of those below it, each with the label -1, and what to tell of them).

    Args:
        dataset: whose images they become alike: of its size, grey or in colour, cut out in its way.
        image_memory, cache, progress: as in `data.load`.
    Raises:
        DataError: there is no such folder, or no readable image in it.
    """
    check_unlabelled(path)
    names = read_tree(Path(path))[0].files()
    files = Files.of([path], [names])
    alike = dataset.channels, dataset.white
    (split,), unreadable, _ = read_all(
        [files], dataset.resolution, _fingerprint(files), image_memory, cache, progress, dataset.fit, alike
    )
    if not len(split):
        raise DataError(
            f"No image in '{as_typed(path)}' can be read. Give the path of a folder with unlabelled images."
        )
    split = Split(split.images, np.full(len(split), NO_LABEL, np.int64), split.files)
    notes = []
    if unreadable:
        notes.append(f"{counted(len(unreadable), 'unlabelled image')} cannot be read, such as '{unreadable[0]}'.")
    if copies := shared(split, dataset.test):
        notes.append(
            f"{copies:,} of {counted(len(dataset.test), 'test image')} are among the unlabelled ones: students hear "
            "what the teacher says of them, so the accuracy will look better than it is."
        )
    return split, notes


def _fingerprint(files: Files) -> str:
    """Changes whenever a file does."""
    lines = []
    for i in range(len(files)):
        try:
            about = os.stat(files[i])
            lines.append(f"{files[i]!r} {about.st_size} {about.st_mtime_ns}")
        except OSError:  # gone since; reading it says so
            continue
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
