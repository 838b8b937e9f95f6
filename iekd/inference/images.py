"""Images to predict: found in files, folders and archives one after the other, and read as those of the training.

Names come as a stream: of a folder, only the names in it are in memory at a time, however many images there are.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np

from iekd.data.archives import TAR, images_inside, is_archive
from iekd.data.decoding import ImageSource, to_array
from iekd.data.tree import DEEPEST, first_bytes, is_hidden, kind_of, other_ending
from iekd.errors import DataError
from iekd.models.artifact import ModelCard
from iekd.paths import as_typed, typed

SPECIAL = "special"  # what pipes, sockets and devices are counted as


@dataclass(frozen=True)
class FoundImage:
    """An image that was found, or why there is none.

    name: as the user would find it again: the path as it was given, and the way on from there.
    source: its file, or a function that reads its bytes, which is called before the next image is asked for.
    """

    name: str
    source: Union[Path, Callable[[], bytes]] = bytes
    error: str = ""


def find_images(
    paths: Iterable[str], others: Counter[str] | None = None, notes: list[str] | None = None
) -> Iterator[FoundImage]:
    """Every image in files, folders (and the folders in them), zip and tar archives, in their order.

    A file that is named itself is taken whatever its ending. Archives inside of folders are not opened.

    Args:
        paths: as they were typed.
        others: counts the files that were passed over, by their ending.
        notes: sentences on how the names in archives were read are added.
    """
    others, notes = Counter() if others is None else others, [] if notes is None else notes
    for text in paths:
        path = path_of(text)
        if path.is_dir():
            yield from in_folder(path, others)
        elif is_archive(path):
            yield from _in_archive(path, others, notes)
        else:
            yield FoundImage(str(path), path)


def path_of(text: str) -> Path:
    """The path that somebody means: as it was typed if it is there, else without quotes and with ~ expanded."""
    return Path(text) if os.path.lexists(text) else Path(typed(text)).expanduser()


def in_uploads(paths: Iterable[Path], others: Counter[str], notes: list[str]) -> Iterator[tuple[Path, FoundImage]]:
    """(the file, an image) of every image among uploaded files: they themselves, and what is in zips.

    Names and errors say nothing of the folder that the uploads are in. Tar archives are refused: strangers' archives
    are read only as zip, see `data.archives.unpack`.
    """
    for path in paths:
        if path.name.lower().endswith(TAR):
            yield (
                path,
                FoundImage(path.name, error=f"'{path.name}' is a tar archive, which is not taken. Pack it as zip."),
            )
        elif is_archive(path):
            for found in _in_archive(path, others, notes, path.name):
                yield path, found
        else:
            yield path, FoundImage(path.name, path)


def in_folder(folder: Path, others: Counter[str]) -> Iterator[FoundImage]:
    """The images of a folder and of those in it. Links to folders are followed, but not in a circle."""
    found = False
    for image in _walk(folder, others, ()):
        found = True
        yield image
    if not found:
        yield FoundImage(
            str(folder),
            error=f"The folder '{as_typed(str(folder))}' has no images. Give a folder of images, or image files.",
        )


def _walk(folder: Path, others: Counter[str], around: tuple[tuple[int, int], ...]) -> Iterator[FoundImage]:
    try:
        about = os.stat(folder)
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir(), _is_special(entry)) for entry in entries)
    except OSError as error:
        yield FoundImage(str(folder), error=f"The folder '{folder}' cannot be read: {error.strerror}.")
        return
    for name, is_folder, is_special in names:
        if is_folder:
            continue
        if is_special:  # reading it would wait for ever
            others[SPECIAL] += 1
            continue
        kind = kind_of(name, lambda path=str(folder / name): first_bytes(path))  # type: ignore[misc]
        if kind == "image":
            yield FoundImage(str(folder / name), folder / name)
        elif kind:
            others[other_ending(name, kind)] += 1
    key = (about.st_dev, about.st_ino)
    for name, is_folder, _ in names:
        if is_folder and not is_hidden(name) and len(around) < DEEPEST and key not in around:
            yield from _walk(folder / name, others, (*around, key))


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether it is a pipe, a socket or a device; a link to nothing is none."""
    return not entry.is_dir() and not entry.is_file() and os.path.exists(entry.path)


def _in_archive(path: Path, others: Counter[str], notes: list[str], shown: str = "") -> Iterator[FoundImage]:
    found, shown = False, shown or str(path)
    try:
        for name, read in images_inside(path, others, notes):
            found = True
            yield FoundImage(f"{shown}/{name}", read)
    except DataError as error:
        yield FoundImage(shown, error=str(error))
        return
    if not found:
        yield FoundImage(shown, error=f"'{shown}' has no images in it. Pack images as zip.")


def as_trained(
    source: ImageSource, card: ModelCard, name: str, match_background: bool = True
) -> tuple[np.ndarray, bool]:
    """(an image as those that the model was trained with, (H,W,C) uint8; whether bright and dark were swapped).

    Args:
        match_background: swap them in a grey image whose background is the opposite of the training images', such as a
            shoe photographed on white for models that know white shoes on black.
    Raises:
        DataError: it cannot be read.
    """
    seen = resized(source, card, name)
    inverted = match_background and _opposite_background(seen, card)
    return (255 - seen if inverted else seen), inverted


def resized(source: ImageSource, card: ModelCard, name: str) -> np.ndarray:
    """An image as the model expects it, (H,W,C) uint8, with its background as it is."""
    return to_array(source, card.resolution, card.channels, name, card.fit, card.white)


def _opposite_background(seen: np.ndarray, card: ModelCard) -> bool:
    """True for a grey picture with bright edges where the training images' were dark, or the other way round."""
    if card.channels != 1 or card.background is None:
        return False
    edges = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]]).mean() / 255
    return bool(edges > 0.6 and card.background < 0.3) or bool(edges < 0.3 and card.background > 0.7)
