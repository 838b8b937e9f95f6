"""`folder:PATH`: a directory of the user's images, one sub-folder per class (see layout.py), or an archive of one.

Broken files are skipped, counted and named. Nothing in the folder is moved or changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from iekd.data.archives import ARCHIVES, UNPACKED_NAME, is_archive, unpack
from iekd.data.base import DRAWN, Dataset, DatasetInfo, Request, Source
from iekd.data.decoding import to_array
from iekd.data.file_images import Files
from iekd.data.layout import drawn_of, folders, instead_of_test, layout, scan
from iekd.data.reading import read_all
from iekd.errors import DataError, as_text
from iekd.paths import absolute, as_typed, unpacked_dir

log = logging.getLogger(__name__)

FOLDER = "folder:"
UPLOADED = ".pictures"  # a folder of this name, beside the runs, holds what was uploaded to the page


def folder_name(path: Path | str) -> str:
    """The dataset name of a folder, or of an archive of one."""
    return f"{FOLDER}{path}"


class Folder(Source):
    """The user's own files. Their images stay in their files if they do not fit into memory."""

    name = FOLDER
    usage = "folder:PATH"
    note = "your own: <class>/*, or train/ and test/ of those; or a zip"
    uses_test_fraction = True
    may_stream = True

    def check(self, name: str) -> str:
        """The absolute path, without following links. Whether there is such a folder is found out by `prepare`."""
        given = name.removeprefix(FOLDER).strip()
        if not given:
            raise _no_folder(given)
        return folder_name(absolute(given))

    def prepare(self, name: str) -> str:
        """An archive is unpacked into the cache folder, unless it has been before."""
        path = _root(self.check(name))
        try:
            if path.is_dir():
                return folder_name(path.resolve())
            is_file = path.is_file()
        except (OSError, RuntimeError, ValueError):  # a name that no folder can have
            is_file = False
        if not is_file:
            raise _no_folder(as_typed(str(path)))
        if not is_archive(path):
            raise DataError(
                f"'{path}' is a file. Give a folder with one sub-folder per class, or {', '.join(ARCHIVES)}."
            )
        return folder_name(unpack(path, unpacked_dir(), tar=True).resolve())

    def own_path(self, name: str) -> Path | None:
        return None if name == FOLDER else _root(name)

    def title(self, name: str) -> str:
        """The folder's own name; of an unpacked archive, the archive's."""
        *_, around, own = ["", *name.removeprefix(FOLDER).rstrip("/").split("/")]
        if around in (UPLOADED, unpacked_dir().name) and (archive := UNPACKED_NAME.fullmatch(own)):
            return f"pictures '{archive['stem']}'"
        return f"folder '{own}'"

    def describe(self, name: str, test_fraction: float) -> DatasetInfo:
        """Counts from the file names alone; channels and readability are known only after loading.

        A page asks after every change of its form: a large folder is scanned again only when files have come or gone.
        """
        root = _root(name)
        train, test = layout(root)
        tops = [root, *filter(None, (train, test))]
        listed = [*tops, *(top / inner for top in tops for inner in folders(top))]
        info = _described(name, tuple((str(folder), folder.stat().st_mtime_ns) for folder in listed))
        if not info.test_is_drawn:
            return info
        drawn = [drawn_of(n, test_fraction) for n in info.class_sizes]
        sizes = tuple(n - k for n, k in zip(info.class_sizes, drawn, strict=True))
        return replace(info, train_images=sum(sizes), test_images=sum(drawn), class_sizes=sizes)

    def load(self, request: Request) -> Dataset:
        """Grey if all images are grey, else colour. Uploaded images are never cached: they go with their runs."""
        root = _root(request.name)
        class_names, train, test = scan(root, request.test_fraction, request.seed)
        fingerprint = _fingerprint(train, test)  # before they are read: a file that changes meanwhile changes it
        splits, unreadable = read_all(
            (train, test), request.resolution or self.resolution, fingerprint, request.image_memory,
            request.cache and UPLOADED not in root.parts, request.progress,
        )  # fmt: skip
        skipped = list(map(as_text, unreadable))
        _log_surprises(root, class_names, skipped, len(train) + len(test))
        for part, split in zip(("training", "test"), splits, strict=True):
            there = set(split.labels.tolist())
            missing = [c for k, c in enumerate(class_names) if k not in there]
            if part == "training" and missing:
                raise DataError(
                    f"No readable training image of class '{missing[0]}' in '{root}'. Add some, or remove it."
                )
            if not len(split):
                raise DataError(f"No readable {part} image in '{root}'. Use PNG, JPEG, WebP, BMP or GIF files.")
        names = tuple(map(as_text, class_names))
        return Dataset(request.name, names, splits[0], splits[1], tuple(skipped), fingerprint=fingerprint)

    def thumbnails(self, name: str, per_class: int) -> list[tuple[np.ndarray, str]]:
        """The first readable test images of the first classes, 64 pixels wide."""
        class_names, _, test = scan(_root(name), 0.2, 0)
        shown: list[tuple[np.ndarray, str]] = []
        for k, class_name in enumerate(class_names[:20]):
            for i in np.flatnonzero(test.which == k)[:per_class]:
                with contextlib.suppress(DataError):
                    shown.append((to_array(test[int(i)], 64, 3), as_text(class_name)))
        return shown

    def test_files(self, name: str) -> list[str] | None:
        root = _root(name)
        if layout(root)[1] is None:
            return None
        _, _, test = scan(root, 0.2, 0)
        return [test[i] for i in range(len(test))]

    def test_only(self, name: str) -> str | None:
        """A folder may have nothing but test/, which cannot be trained on."""
        root = _root(name)
        return folder_name(root / "test") if (root / "test").is_dir() and not (root / "train").is_dir() else None


def _root(name: str) -> Path:
    return Path(name.removeprefix(FOLDER))


def _no_folder(given: str) -> DataError:
    return DataError(f"There is no folder '{given}'. Give the path of a folder with one sub-folder per class.")


def _log_surprises(root: Path, class_names: tuple[str, ...], skipped: list[str], images: int) -> None:
    """Warn of what the user may not expect: other test images, folders that are no class, files that were skipped."""
    if instead := instead_of_test(root):
        log.warning("There is no folder 'test' with one for each class: the images in '%s' are tested on.", instead)
    base, _ = layout(root)
    for name in folders(base):
        if name not in class_names and not name.startswith("."):
            log.warning("'%s' is no class: no PNG, JPEG, WebP, BMP or GIF file lies in it.", as_text(str(base / name)))
    for name in skipped:
        log.warning("Skipped, cannot be read: %s", name)
    if skipped:
        log.warning("%d of %d images in '%s' were skipped.", len(skipped), images, root)


@lru_cache(maxsize=8)
def _described(name: str, changed: tuple[tuple[str, int], ...]) -> DatasetInfo:
    """`changed` is only part of the cache's key. If test images are to be drawn, class_sizes still include them."""
    root = _root(name)
    class_names, train, test = scan(root, 0.2, 0)
    instead = instead_of_test(root)
    learned = train.which if instead is not None else np.concatenate([train.which, test.which])
    sizes = tuple(np.bincount(learned, minlength=len(class_names)).tolist())
    tested_on = DRAWN if instead is None else f"from its folder '{instead}'" if instead else ""
    return DatasetInfo(
        name, root.name, len(train), len(test), len(class_names), 3, Folder.resolution, "your folder",
        class_sizes=sizes, tested_on=tested_on, fingerprint=_fingerprint(train, test),
    )  # fmt: skip


def _fingerprint(*splits: Files) -> str:
    """A hash of the names, sizes and times of all files, whichever split they are in."""
    found = []
    for files in splits:
        for i in range(len(files)):
            with contextlib.suppress(OSError):  # the file has gone since
                about = os.stat(files[i])
                found.append(f"{as_text(files[i])} {about.st_size} {about.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]
