"""Pictures that were uploaded to the page: unpacked beside the runs, and removed when no run needs them any more."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

from iekd.data.archives import NAME, Room, unpack
from iekd.data.base import FOLDER, UPLOADED
from iekd.errors import RunError, UserError
from iekd.runs.store import Store

PLACE = UPLOADED
KEPT = 24 * 3600.0  # seconds that pictures wait for the first run that names them


changing = threading.Lock()  # held while pictures that nobody needs are removed, and while a run begins to need some


def add_pictures(store: Store, archive: Path, room: Room, total: int | None = None) -> str:
    """Unpack an archive; returns the name of the data set.

    total: bytes that all uploaded pictures may take, those that nobody needs being removed first.
    Raises:
        UserError: it is not taken (see archives.py), or there is no room.
    """
    place = store.root / PLACE
    if total is None:
        return FOLDER + str(unpack(archive, place, room).resolve())
    with changing:  # one after the other, or all together would take more
        for path in unused(store):
            shutil.rmtree(path, ignore_errors=True)
        left = total - _size(place)
        if left <= 0:
            raise RunError("There is no room for more pictures on this page. Try again tomorrow.")
        return FOLDER + str(unpack(archive, place, replace(room, size=min(room.size, left))).resolve())


def is_added(store: Store, dataset: str) -> bool:
    """Whether a data set's name is one that `add_pictures` gives. Nothing of it is looked up."""
    path = Path(os.path.normpath(dataset.removeprefix(FOLDER).strip()))
    return (
        dataset.startswith(FOLDER) and path.parent == (store.root / PLACE).resolve() and bool(NAME.fullmatch(path.name))
    )


def unused(store: Store) -> list[Path]:
    """Uploaded pictures that no run names, a day after they came."""
    place = store.root / PLACE
    if not place.is_dir():
        return []
    named = set()
    for run in store.list():
        try:
            named.add(str(run.config.dataset))
        except UserError:
            continue  # a damaged run
    old = [p for p in sorted(place.iterdir()) if NAME.fullmatch(p.name) and time.time() - p.stat().st_mtime > KEPT]
    return [p for p in old if FOLDER + str(p.resolve()) not in named]


def _size(folder: Path) -> int:
    """Bytes on the disk, where the smallest file and each folder take a block too."""
    return sum(max(4096, 512 * path.lstat().st_blocks) for path in folder.rglob("*"))
