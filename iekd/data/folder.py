"""`folder:PATH`: any directory of images, one sub-folder per class.

Two layouts: `train/<class>/*` with `test/<class>/*` (or `val`, `valid`, `validation`), or plain `<class>/*`, which is
split by a stated fraction and seed. A folder `train` that holds images itself is a class (of vehicles, say). Broken
files are skipped, counted and named; nothing is moved or changed.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from iekd.data.dataset import Dataset, Split
from iekd.data.images import FORMATS, SUFFIXES, to_array
from iekd.data.registry import FOLDER, DatasetInfo, Request
from iekd.errors import DataError

log = logging.getLogger(__name__)

DEFAULT_RESOLUTION = 32
TEST_NAMES = ("test", "val", "valid", "validation")
Labelled = list[tuple[Path, int]]


def load_folder(request: Request) -> Dataset:
    """Read every image of the folder at the request's resolution (32 if unset); grey if all of them are grey.

    Raises:
        DataError: no images, fewer than two classes, a class missing from a split, or nothing readable.
    """
    root = Path(request.name.removeprefix(FOLDER))
    class_names, train, test = _scan(root, request.test_fraction, request.seed)
    resolution = request.resolution or DEFAULT_RESOLUTION
    with ThreadPoolExecutor() as pool:
        channels = 1 if all(pool.map(_is_grey, (path for path, _ in train), chunksize=64)) else 3
    skipped: list[str] = []
    splits = [_read(part, resolution, channels, skipped) for part in (train, test)]
    for name in skipped:
        log.warning("Skipped, cannot be read: %s", name)
    if skipped:
        log.warning("%d of %d images in '%s' were skipped.", len(skipped), len(train) + len(test), root)
    for part, split in zip(("training", "test"), splits, strict=True):
        missing = [c for k, c in enumerate(class_names) if k not in split.labels]
        if part == "training" and missing:
            raise DataError(f"No readable training image of class '{missing[0]}' in '{root}'. Add some, or remove it.")
        if not len(split):
            raise DataError(f"No readable {part} image in '{root}'. Use PNG, JPEG, WebP, BMP or GIF files.")
    return Dataset(request.name, class_names, splits[0], splits[1], tuple(skipped))


def describe_folder(name: str) -> DatasetInfo:
    """Counts from the file names alone; channels and readability are known only after loading."""
    root = Path(name.removeprefix(FOLDER))
    class_names, train, test = _scan(root, 0.2, 0)
    return DatasetInfo(name, root.name, len(train), len(test), len(class_names), 3, DEFAULT_RESOLUTION, "your folder")


def folder_thumbnails(name: str, per_class: int) -> list[tuple[np.ndarray, str]]:
    """The first readable test images of each class, 64 pixels wide."""
    class_names, _, test = _scan(Path(name.removeprefix(FOLDER)), 0.2, 0)
    shown: list[tuple[np.ndarray, str]] = []
    for k, class_name in enumerate(class_names[:20]):
        for path in [p for p, label in test if label == k][:per_class]:
            try:
                shown.append((to_array(path, 64, 3), class_name))
            except DataError:
                continue
    return shown


def _scan(root: Path, test_fraction: float, seed: int) -> tuple[tuple[str, ...], Labelled, Labelled]:
    """(class names, training files, test files) with labels; looks at names only."""
    train_root = root / "train"
    test_root = next((root / n for n in TEST_NAMES if _is_split(root / n)), None)
    if _is_split(train_root) and test_root is None:
        root = train_root
    if test_root is not None and not _is_split(train_root):
        raise DataError(f"'{root}' has a folder '{test_root.name}' but no 'train'. Add 'train/<class>/' with images.")
    base = root if test_root is None else train_root
    class_names = tuple(
        sorted(d.name for d in base.iterdir() if d.is_dir() and not d.name.startswith(".") and _files(d))
    )
    if not class_names:
        raise DataError(
            f"No images found in '{base}'. It must hold a sub-folder per class, with PNG, JPEG, WebP, BMP or GIF files."
        )
    if len(class_names) == 1:
        raise DataError(f"'{base}' has only one class, '{class_names[0]}'. Training needs at least two sub-folders.")
    if test_root is not None:
        extra = sorted(d.name for d in test_root.iterdir() if d.is_dir() and d.name not in class_names and _files(d))
        if extra:
            raise DataError(
                f"Class '{extra[0]}' is in '{test_root}' but not in '{base}'. Use the same class names in both."
            )
        listed = [[(p, k) for k, c in enumerate(class_names) for p in _files(r / c)] for r in (base, test_root)]
        return class_names, listed[0], listed[1]
    rng = np.random.default_rng(seed)
    train, test = [], []
    for k, name in enumerate(class_names):
        files = _files(base / name)
        if len(files) < 2:
            raise DataError(f"Class '{name}' in '{base}' has only one image. It needs at least two: one to test with.")
        order = rng.permutation(len(files))
        held_out = min(len(files) - 1, max(1, round(len(files) * test_fraction)))
        test += [(files[i], k) for i in sorted(order[:held_out])]
        train += [(files[i], k) for i in sorted(order[held_out:])]
    return class_names, train, test


def _is_split(folder: Path) -> bool:
    """True for a folder of class folders; one that holds only images is a class of that name."""
    return folder.is_dir() and (any(_files(d) for d in folder.iterdir()) or not _files(folder))


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _is_grey(path: Path) -> bool:
    """From the header alone; a broken file says nothing either way."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.mode in ("1", "L", "I", "I;16", "I;16B", "F")
    except Exception:  # reported when it is read in full
        return True


def _read(files: Labelled, resolution: int, channels: int, skipped: list[str]) -> Split:
    images = np.empty((len(files), resolution, resolution, channels), np.uint8)
    readable = np.ones(len(files), bool)

    def read(i: int) -> None:
        try:
            images[i] = to_array(files[i][0], resolution, channels)
        except DataError:
            readable[i] = False

    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
        list(pool.map(read, range(len(files)), chunksize=64))
    skipped += [str(files[i][0]) for i in np.flatnonzero(~readable)]
    labels = np.array([label for _, label in files], np.int64)
    return Split(images[readable], labels[readable])
