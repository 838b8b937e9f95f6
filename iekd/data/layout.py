"""How images lie in a folder: which sub-folders are the classes, and what is for training and for testing.

Two layouts: `train/<class>/*` with `test/<class>/*` (or other usual names of the two, see `split_of`), or plain
`<class>/*`, which is split by a fraction and a seed. A folder `train` that holds images itself is a class (of vehicles,
say). A folder around all others is looked into. Only names are read here, never an image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from iekd.data.decoding import SUFFIXES
from iekd.data.file_images import Files
from iekd.errors import DataError, as_text

TEST_NAMES = ("test", "val", "valid", "validation")  # the first that is there is used
SPLITS = {"train": "train", "training": "train", "testing": "test", **{name: name for name in TEST_NAMES}}
BESIDE = {"seg", "set", "data", "dataset", "images"}  # words that may stand beside such a name
DEEPEST = 4  # folders around all others


def scan(root: Path, test_fraction: float, seed: int) -> tuple[tuple[str, ...], Files, Files]:
    """(class names, training files, test files), in which `which` is the label.

    test_fraction, seed: how test images are drawn from a folder that brings none.

    Raises:
        DataError: no images, only one class, a class with one image, or classes to test that are not learned.
    """
    base, test_root = layout(root)
    class_names = tuple(name for name in folders(base) if not name.startswith(".") and _has_images(base / name))
    if not class_names:
        raise DataError(
            f"No images found in '{base}'. It must hold a sub-folder per class, with PNG, JPEG, WebP, BMP or GIF files."
        )
    if len(class_names) == 1:
        raise DataError(f"'{base}' has only one class, '{class_names[0]}'. Training needs at least two sub-folders.")
    if test_root is not None:
        extra = [name for name in folders(test_root) if name not in class_names and _has_images(test_root / name)]
        if extra:
            raise DataError(
                f"Class '{extra[0]}' is in '{test_root}' but not in '{base}'. Use the same class names in both."
            )
        return class_names, _listed(base, class_names), _listed(test_root, class_names)
    files, rng = _listed(base, class_names), np.random.default_rng(seed)
    train, test = [], []
    for k, name in enumerate(class_names):
        of_class = np.flatnonzero(files.which == k)
        if len(of_class) < 2:
            raise DataError(f"Class '{name}' in '{base}' has only one image. It needs at least two: one to test with.")
        order = rng.permutation(len(of_class))
        held_out = drawn_of(len(of_class), test_fraction)
        test.append(of_class[np.sort(order[:held_out])])
        train.append(of_class[np.sort(order[held_out:])])
    return class_names, files.take(np.concatenate(train)), files.take(np.concatenate(test))


def drawn_of(count: int, test_fraction: float) -> int:
    """How many images of a class are drawn for testing: at least one, and at least one is left to train on."""
    return min(count - 1, max(1, round(count * test_fraction)))


def split_of(name: str) -> str | None:
    """The split that a folder's name announces: "train" for Training or train set, "test" for seg_test, ...

    None for any other name, such as that of a class.
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    said = [word for word in words if word in SPLITS]
    return SPLITS[said[0]] if len(said) == 1 and {*words} <= {*said, *BESIDE} else None


def layout(root: Path) -> tuple[Path, Path | None]:
    """(folder with the classes to train on, folder with those to test, or None if the first has to be split).

    Raises:
        DataError: a folder cannot be read, or has test images but nothing to train on.
    """
    root = _innermost(root)
    splits: dict[str, Path] = {}
    for name in folders(root):
        if (split := split_of(name)) and _is_split(root / name):
            splits.setdefault(split, root / name)
    train, test = splits.get("train"), next((splits[name] for name in TEST_NAMES if name in splits), None)
    if train is None and test is not None:
        raise DataError(f"'{root}' has a folder '{test.name}' but no 'train'. Add 'train/<class>/' with images.")
    others = [root / name for name in folders(root) if not name.startswith(".") and root / name != train]
    if test is None and any(map(_has_images, others)):
        train = None  # one of several classes, whose images lie deeper
    return _innermost(train or root, "train"), test and _innermost(test, split_of(test.name))


def instead_of_test(root: Path) -> str | None:
    """The folder whose images are tested on because there is no test/, such as "val".

    Empty if there is a test/; None if there is neither, so that test images are drawn.
    """
    _, tested = layout(root)
    if tested is None:
        return None
    inside = tested.relative_to(root)
    return "" if "test" in map(split_of, inside.parts) else as_text(str(inside))


def _innermost(folder: Path, split: str | None = None) -> Path:
    """Skip folders that hold nothing but one folder of folders, as in archives and in seg_train/seg_train.

    split: the split whose name such a folder may have.
    """
    for _ in range(DEEPEST):
        inner = [folder / name for name in folders(folder) if not name.startswith(".")]
        if len(inner) != 1 or split_of(inner[0].name) not in (None, split):
            break
        if _has_images(folder) or _has_images(inner[0]) or not folders(inner[0]):
            break
        folder = inner[0]
    return folder


def _is_split(folder: Path) -> bool:
    """True for a folder of class folders; one that holds only images is a class of that name."""
    return folder.is_dir() and (any(_has_images(folder / d) for d in folders(folder)) or not _has_images(folder))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"The folder '{folder}' cannot be read: {error.strerror}.") from None


def folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def _images(folder: Path) -> Iterator[str]:
    """Names of the image files in any order; none if there is no such folder."""
    if folder.is_dir():
        for entry in _entries(folder):
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES and not entry.name.startswith("."):
                yield entry.name


def _has_images(folder: Path) -> bool:
    return next(_images(folder), None) is not None


def _listed(root: Path, class_names: tuple[str, ...]) -> Files:
    return Files.of([str(root / name) for name in class_names], (sorted(_images(root / name)) for name in class_names))
