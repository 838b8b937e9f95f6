"""The registry of data sets: name -> what it is, and how to load it.

A source is a function `(request) -> Dataset`, registered under the name the user types. `folder:PATH` is the one open
name. Describing and checking names is instant; `load` may decode or download.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from iekd.data import sources
from iekd.data.archives import ARCHIVES, is_archive, unpack
from iekd.data.base import FOLDER, FOLDER_RESOLUTION, SOURCES, Dataset, DatasetInfo, Request
from iekd.data.folder import describe_folder, folder_thumbnails, load_folder
from iekd.errors import DataError, unknown_name
from iekd.paths import unpacked_dir


def available() -> list[DatasetInfo]:
    """The named data sets, in the order they are shown."""
    return [info for info, _ in SOURCES.values()]


def check_name(name: str) -> str:
    """Return `name` if a data set of that name can be asked for; a folder must exist, an archive of one is unpacked.

    Raises:
        UserError: unknown name (with the closest match), or no such folder.
    """
    if name.startswith(FOLDER):
        given = name.removeprefix(FOLDER).strip()
        try:
            path = Path(given).expanduser()
            is_file = bool(given) and path.is_file()
            if given and path.is_dir():
                return FOLDER + str(path.resolve())
        except (OSError, RuntimeError, ValueError):
            is_file = False  # a name that no folder can have
        if is_file:
            return FOLDER + str(_unpacked(path))
        raise DataError(f"There is no folder '{given}'. Give the path of a folder with one sub-folder per class.")
    if name not in SOURCES:
        raise unknown_name("data set", name, [*SOURCES, "folder:PATH"])
    return name


def _unpacked(path: Path) -> Path:
    """The folder of an archive's pictures, unpacked into the cache folder where that has not been done."""
    if not is_archive(path):
        raise DataError(f"'{path}' is a file. Give a folder with one sub-folder per class, or {', '.join(ARCHIVES)}.")
    return unpack(path, unpacked_dir()).resolve()


def describe(name: str, test_fraction: float = 0.2) -> DatasetInfo:
    """What is known of a data set without opening it; for a folder, its files are counted.

    test_fraction: see `load`.
    """
    name = check_name(name)
    if name.startswith(FOLDER):
        return describe_folder(name, test_fraction)
    return SOURCES[name][0]


def resolution_of(name: str) -> int:
    """Side of the square images where no other is asked for; a folder is not looked into."""
    return FOLDER_RESOLUTION if name.startswith(FOLDER) else describe(name).resolution


def load(
    name: str, *, resolution: int | None = None, test_fraction: float = 0.2, seed: int = 0,
    image_memory: float | None = None, keep: bool = True, progress: Callable[[int, int], None] | None = None,
) -> Dataset:  # fmt: skip
    """Load a data set into memory, downloading it into the cache folder where that is needed.

    Args:
        name: a registered name, or `folder:PATH`.
        resolution: side of the square images; None for the data set's own.
        test_fraction, seed: how a folder without `test/` is split.
        image_memory: GB that a folder's decoded images may take, else they stay in their files; None for half of the
            memory that is free.
        keep: of a folder that takes a while to decode, keep the decoded images in the cache folder for the next time;
            never of what was uploaded to a page, which is removed with its runs.
        progress: called with (files of a folder that are decoded, all of them); what it raises ends the loading.
    Raises:
        DataError: it cannot be had; the message says what to do.
    """
    name = check_name(name)
    request = Request(name, resolution, test_fraction, seed, image_memory, keep, progress)
    if name.startswith(FOLDER):
        return load_folder(request)
    return SOURCES[name][1](request)


def thumbnails(name: str, per_class: int = 1) -> list[tuple[np.ndarray, str]]:
    """A few test images with their class names, where they can be shown without a download.

    Returns a list of (image (H,W,C) uint8, class name); empty if the data are not on this machine yet.
    """
    name = check_name(name)
    if name.startswith(FOLDER):
        return folder_thumbnails(name, per_class)
    if not sources.at_hand(name):
        return []
    data = load(name)
    shown = []
    for k, class_name in enumerate(data.class_names):
        for i in np.flatnonzero(data.test.labels == k)[:per_class]:
            shown.append((data.test.images[i], class_name))
    return shown
