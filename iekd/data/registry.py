"""The registry of data sets: name -> what it is, and how to load it.

A source is a function `(request) -> Dataset`, registered under the name the user types. `folder:PATH` is the one open
name. Describing and checking names is instant; `load` may decode or download.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iekd.data.dataset import Dataset
from iekd.errors import DataError, unknown_name

FOLDER = "folder:"
FOLDER_RESOLUTION = 32  # of a folder's pictures, where nothing else is asked for


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
_SOURCES: dict[str, tuple[DatasetInfo, Source]] = {}


def register(info: DatasetInfo) -> Callable[[Source], Source]:
    """Decorator: the function below loads the data set that `info` describes."""

    def add(source: Source) -> Source:
        _SOURCES[info.name] = (info, source)
        return source

    return add


def available() -> list[DatasetInfo]:
    """The named data sets, in the order they are shown."""
    return [info for info, _ in _sources().values()]


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
    if name not in _sources():
        raise unknown_name("data set", name, [*_sources(), "folder:PATH"])
    return name


def _unpacked(path: Path) -> Path:
    """The folder of an archive's pictures, unpacked into the cache folder where that has not been done."""
    from iekd.data.archives import ARCHIVES, is_archive, unpack

    if not is_archive(path):
        raise DataError(f"'{path}' is a file. Give a folder with one sub-folder per class, or {', '.join(ARCHIVES)}.")
    return unpack(path, pictures_dir()).resolve()


def describe(name: str, test_fraction: float = 0.2) -> DatasetInfo:
    """What is known of a data set without opening it; for a folder, its files are counted.

    test_fraction: see `load`.
    """
    name = check_name(name)
    if name.startswith(FOLDER):
        from iekd.data.folder import describe_folder

        return describe_folder(name, test_fraction)
    return _sources()[name][0]


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
        from iekd.data.folder import load_folder

        return load_folder(request)
    return _sources()[name][1](request)


def thumbnails(name: str, per_class: int = 1) -> list[tuple[np.ndarray, str]]:
    """A few test images with their class names, where they can be shown without a download.

    Returns a list of (image (H,W,C) uint8, class name); empty if the data are not on this machine yet.
    """
    name = check_name(name)
    if name.startswith(FOLDER):
        from iekd.data.folder import folder_thumbnails

        return folder_thumbnails(name, per_class)
    from iekd.data import sources

    if not sources.at_hand(name):
        return []
    data = load(name)
    shown = []
    for k, class_name in enumerate(data.class_names):
        for i in np.flatnonzero(data.test.labels == k)[:per_class]:
            shown.append((data.test.images[i], class_name))
    return shown


def cache_dir() -> Path:
    """Where downloads are kept: `$IEKD_CACHE_DIR`, else `~/.cache/iekd`."""
    return Path(os.environ.get("IEKD_CACHE_DIR") or Path.home() / ".cache" / "iekd")


def pictures_dir() -> Path:
    """Where archives of pictures are unpacked that are named instead of a folder."""
    return cache_dir() / "pictures"


def _sources() -> dict[str, tuple[DatasetInfo, Source]]:
    from iekd.data import sources  # registers on import; late, because it imports this module

    assert sources
    return _SOURCES
