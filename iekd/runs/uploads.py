"""Images that were uploaded to the page: unpacked beside the runs, and removed when no run needs them any more."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

from iekd.data import folder_name, own_path
from iekd.data.archives import UNPACKED_NAME, Room, unpack
from iekd.data.folder import UPLOADED
from iekd.errors import RunError, UserError
from iekd.runs.store import Store
from iekd.runs.trash import deletions

WAITS = 24 * 3600.0  # seconds that uploaded images wait for the first run that uses them

changing = threading.Lock()  # held while images that no run needs are removed, and while a run begins to need some


def uploads_dir(store: Store) -> Path:
    """Where uploaded images are, one folder per archive."""
    return store.root / UPLOADED


def add_pictures(store: Store, archive: Path, room: Room, total: int | None = None, classes: str = "") -> str:
    """Unpack an uploaded zip; returns the name of the dataset.

    Args:
        total: bytes that all uploaded images may take; those that no run needs are removed first.
        classes: which folders are the classes where they lie in folders: "outer" or "inner"; empty: not said.

    Raises:
        UserError: it is refused (see archives.py), or there is not enough space left.
    """
    folder = uploads_dir(store)
    if total is None:
        return folder_name(unpack(archive, folder, room, nested=classes).resolve())
    with changing:  # one at a time, or together they could exceed the total
        for path in unused(store):
            shutil.rmtree(path, ignore_errors=True)
        left = total - _size(folder)
        if left <= 0:
            raise RunError("There is no room for more images on this page. Try again tomorrow.")
        room = replace(room, size=min(room.size, left))
        return folder_name(unpack(archive, folder, room, nested=classes).resolve())


def is_added(store: Store, dataset: str) -> bool:
    """Whether a dataset's name is one that `add_pictures` gives. No file is looked up."""
    given = own_path(dataset)
    if given is None:
        return False
    path = Path(os.path.normpath(str(given).strip()))
    return path.parent == uploads_dir(store).resolve() and bool(UNPACKED_NAME.fullmatch(path.name))


def unused(store: Store) -> list[Path]:
    """Uploaded images that no run uses, a day after the upload."""
    folder = uploads_dir(store)
    if not folder.is_dir():
        return []
    named = set()
    deleted = [run for deletion in deletions(store) for run in deletion.runs]  # may be brought back
    for run in [*store.list(), *deleted]:
        try:
            named.add(str(run.config.dataset))
        except UserError:
            continue  # a damaged run
    now = time.time()
    old = [p for p in sorted(folder.iterdir()) if UNPACKED_NAME.fullmatch(p.name) and now - p.stat().st_mtime > WAITS]
    return [p for p in old if folder_name(p.resolve()) not in named]


def _size(folder: Path) -> int:
    """Bytes on the disk, where the smallest file and each folder take a block too."""
    return sum(max(4096, 512 * path.lstat().st_blocks) for path in folder.rglob("*"))
