"""`folder:PATH`: any directory of images, one sub-folder per class.

Two layouts: `train/<class>/*` with `test/<class>/*` (or other usual names of the two, see `split_of`), or plain
`<class>/*`, which is split by a stated fraction and seed. A folder `train` that holds images itself is a class (of
vehicles, say); a folder around all others is looked into. Broken files are skipped, counted and named; nothing is moved
or changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from iekd.data.base import FOLDER, FOLDER_RESOLUTION, UPLOADED, Dataset, DatasetInfo, Request
from iekd.data.decoding import SUFFIXES, to_array
from iekd.data.file_images import Files
from iekd.data.reading import read_all
from iekd.errors import DataError, as_text

log = logging.getLogger(__name__)

TEST_NAMES = ("test", "val", "valid", "validation")  # the first that is there is used
SPLITS = {"train": "train", "training": "train", "testing": "test", **{name: name for name in TEST_NAMES}}
BESIDE = {"seg", "set", "data", "dataset", "images"}  # words that may stand beside such a name
DRAWN = "drawn by chance"
DEEPEST = 4  # folders around all others


def load_folder(request: Request) -> Dataset:
    """Read every image of the folder at the request's resolution (32 if unset); grey if all of them are grey.

    Raises:
        DataError: no images, fewer than two classes, a class missing from a split, or nothing readable.
    """
    root = Path(request.name.removeprefix(FOLDER))
    class_names, train, test = _scan(root, request.test_fraction, request.seed)
    mark = _mark(train, test)  # before they are read: what changes meanwhile makes it another one
    splits, unreadable = read_all(
        (train, test), request.resolution or FOLDER_RESOLUTION, mark, request.image_memory,
        request.keep and UPLOADED not in root.parts, request.progress,
    )  # fmt: skip
    skipped = list(map(as_text, unreadable))
    if instead := _instead_of_test(root):
        log.warning("There is no folder 'test' with one for each class: the images in '%s' are tested on.", instead)
    base, _ = _layout(root)
    for name in _folders(base):
        if name not in class_names and not name.startswith("."):
            log.warning("'%s' is no class: no PNG, JPEG, WebP, BMP or GIF file lies in it.", as_text(str(base / name)))
    for name in skipped:
        log.warning("Skipped, cannot be read: %s", name)
    if skipped:
        log.warning("%d of %d images in '%s' were skipped.", len(skipped), len(train) + len(test), root)
    for part, split in zip(("training", "test"), splits, strict=True):
        there = set(split.labels.tolist())
        missing = [c for k, c in enumerate(class_names) if k not in there]
        if part == "training" and missing:
            raise DataError(f"No readable training image of class '{missing[0]}' in '{root}'. Add some, or remove it.")
        if not len(split):
            raise DataError(f"No readable {part} image in '{root}'. Use PNG, JPEG, WebP, BMP or GIF files.")
    names = tuple(map(as_text, class_names))
    return Dataset(request.name, names, splits[0], splits[1], tuple(skipped), mark=mark)


def describe_folder(name: str, test_fraction: float = 0.2) -> DatasetInfo:
    """Counts from the file names alone; channels and readability are known only after loading.

    A page asks at every change of its form: a large folder is scanned again only when files have come or gone.
    """
    root = Path(name.removeprefix(FOLDER))
    train, test = _layout(root)
    parts = [root, *filter(None, (train, test))]
    folders = [*parts, *(part / inner for part in parts for inner in _folders(part))]
    info = _described(name, tuple((str(folder), folder.stat().st_mtime_ns) for folder in folders))
    if info.tested_on != DRAWN:
        return info
    drawn = [_drawn_of(n, test_fraction) for n in info.class_sizes]
    sizes = tuple(n - k for n, k in zip(info.class_sizes, drawn, strict=True))
    return replace(info, train_images=sum(sizes), test_images=sum(drawn), class_sizes=sizes)


def has_test(name: str) -> bool:
    """Whether a folder brings test images of its own, so that none are drawn by chance."""
    return _layout(Path(name.removeprefix(FOLDER)))[1] is not None


def test_files(name: str) -> list[str]:
    """The test images of a folder that has its own, by where they lie in it."""
    root = Path(name.removeprefix(FOLDER))
    _, _, test = _scan(root, 0.2, 0)
    return [os.path.relpath(test[i], root) for i in range(len(test))]


@lru_cache(maxsize=8)
def _described(name: str, changed: tuple[tuple[str, int], ...]) -> DatasetInfo:
    """`changed` is no more than a key. Where test images are to be drawn, class_sizes are those before that."""
    root = Path(name.removeprefix(FOLDER))
    class_names, train, test = _scan(root, 0.2, 0)
    instead = _instead_of_test(root)
    learned = train.which if instead is not None else np.concatenate([train.which, test.which])
    sizes = tuple(np.bincount(learned, minlength=len(class_names)).tolist())
    tested_on = DRAWN if instead is None else f"from its folder '{instead}'" if instead else ""
    return DatasetInfo(
        name, root.name, len(train), len(test), len(class_names), 3, FOLDER_RESOLUTION, "your folder",
        class_sizes=sizes, tested_on=tested_on, mark=_mark(train, test),
    )  # fmt: skip


def _mark(*parts: Files) -> str:
    """Of the names, sizes and times of all files: another one where any has come, gone or changed."""
    found = []
    for files in parts:
        for i in range(len(files)):
            with contextlib.suppress(OSError):  # it has gone since
                about = os.stat(files[i])
                found.append(f"{as_text(files[i])} {about.st_size} {about.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


def folder_thumbnails(name: str, per_class: int) -> list[tuple[np.ndarray, str]]:
    """The first readable test images of each class, 64 pixels wide."""
    class_names, _, test = _scan(Path(name.removeprefix(FOLDER)), 0.2, 0)
    shown: list[tuple[np.ndarray, str]] = []
    for k, class_name in enumerate(class_names[:20]):
        for i in np.flatnonzero(test.which == k)[:per_class]:
            try:
                shown.append((to_array(test[int(i)], 64, 3), as_text(class_name)))
            except DataError:
                continue
    return shown


def _scan(root: Path, test_fraction: float, seed: int) -> tuple[tuple[str, ...], Files, Files]:
    """(class names, training files, test files), where `which` is the label; looks at names only."""
    base, test_root = _layout(root)
    class_names = tuple(name for name in _folders(base) if not name.startswith(".") and _has_images(base / name))
    if not class_names:
        raise DataError(
            f"No images found in '{base}'. It must hold a sub-folder per class, with PNG, JPEG, WebP, BMP or GIF files."
        )
    if len(class_names) == 1:
        raise DataError(f"'{base}' has only one class, '{class_names[0]}'. Training needs at least two sub-folders.")
    if test_root is not None:
        extra = [name for name in _folders(test_root) if name not in class_names and _has_images(test_root / name)]
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
        held_out = _drawn_of(len(of_class), test_fraction)
        test.append(of_class[np.sort(order[:held_out])])
        train.append(of_class[np.sort(order[held_out:])])
    return class_names, files.take(np.concatenate(train)), files.take(np.concatenate(test))


def _drawn_of(count: int, test_fraction: float) -> int:
    """How many of a class's images are tested on: one at least, and one at least is left."""
    return min(count - 1, max(1, round(count * test_fraction)))


def split_of(name: str) -> str | None:
    """The split that a folder's name says it holds, "train" or one of TEST_NAMES: of Training, seg_test, train set.

    None for any other name, such as a class's.
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    said = [word for word in words if word in SPLITS]
    return SPLITS[said[0]] if len(said) == 1 and {*words} <= {*said, *BESIDE} else None


def _layout(root: Path) -> tuple[Path, Path | None]:
    """(folder of the classes to learn, folder of those to test, or None where the first is to be split)."""
    root = _innermost(root)
    splits: dict[str, Path] = {}
    for name in _folders(root):
        if (split := split_of(name)) and _is_split(root / name):
            splits.setdefault(split, root / name)
    train, test = splits.get("train"), next((splits[name] for name in TEST_NAMES if name in splits), None)
    if train is None and test is not None:
        raise DataError(f"'{root}' has a folder '{test.name}' but no 'train'. Add 'train/<class>/' with images.")
    others = [root / name for name in _folders(root) if not name.startswith(".") and root / name != train]
    if test is None and any(map(_has_images, others)):
        train = None  # one of several classes, whose images lie deeper
    return _innermost(train or root, "train"), test and _innermost(test, split_of(test.name))


def _instead_of_test(root: Path) -> str | None:
    """The folder in it whose images are tested on for want of test/.

    Empty where there is one; None where there is neither, so that test images are drawn.
    """
    _, tested = _layout(root)
    if tested is None:
        return None
    inside = tested.relative_to(root)
    return "" if "test" in map(split_of, inside.parts) else as_text(str(inside))


def _innermost(folder: Path, split: str | None = None) -> Path:
    """Past folders that hold nothing but one folder of folders, as archives and seg_train/seg_train have them.

    split: what they may be called.
    """
    for _ in range(DEEPEST):
        inner = [folder / name for name in _folders(folder) if not name.startswith(".")]
        if len(inner) != 1 or split_of(inner[0].name) not in (None, split):
            break
        if _has_images(folder) or _has_images(inner[0]) or not _folders(inner[0]):
            break
        folder = inner[0]
    return folder


def _is_split(folder: Path) -> bool:
    """True for a folder of class folders; one that holds only images is a class of that name."""
    return folder.is_dir() and (any(_has_images(folder / d) for d in _folders(folder)) or not _has_images(folder))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"The folder '{folder}' cannot be read: {error.strerror}.") from None


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def _images(folder: Path) -> Iterator[str]:
    """Names of the image files, as they lie; none of a folder that is not there."""
    if folder.is_dir():
        for entry in _entries(folder):
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES and not entry.name.startswith("."):
                yield entry.name


def _has_images(folder: Path) -> bool:
    return next(_images(folder), None) is not None


def _listed(root: Path, class_names: tuple[str, ...]) -> Files:
    return Files.of([str(root / name) for name in class_names], (sorted(_images(root / name)) for name in class_names))
