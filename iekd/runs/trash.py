"""Deleted runs that can still be brought back: a folder `.trash` among the runs, with a folder for each deletion.

It is emptied when a server starts, and of what is older than an hour while one is there. Names that begin with a dot
are no runs to anybody else.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass

from iekd.errors import RunError, UserError
from iekd.runs.store import Run, Store, not_writable

TRASH = ".trash"
KEPT = 3600.0  # seconds that a deletion can be undone


@dataclass(frozen=True)
class Deletion:
    """Runs that were deleted at once. name: of their folder in the trash; at: when, in seconds since 1970."""

    name: str
    at: float
    runs: tuple[Run, ...]


def delete(store: Store, run_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """Move runs that are over to the trash; (ids of those that were moved, a sentence on each that was not).

    Raises:
        RunError: the folder of runs cannot be written.
    """
    folder = store.root / TRASH / f"{time.time():.3f}-{secrets.token_hex(3)}"
    moved, refused = [], []
    try:
        folder.mkdir(parents=True)
        for run_id in dict.fromkeys(run_ids):
            try:
                store.move_out(run_id, folder / run_id)
                moved.append(run_id)
            except UserError as error:
                refused.append(str(error))
        if not moved:
            folder.rmdir()
    except OSError as error:
        raise not_writable(store.root, error) from None
    return moved, refused


def deletions(store: Store) -> list[Deletion]:
    """Everything that can be undone, newest first."""
    found = []
    trash = store.root / TRASH
    for folder in trash.iterdir() if trash.is_dir() else ():
        with contextlib.suppress(ValueError, OSError):  # not ours; or just emptied
            at = float(folder.name.partition("-")[0])
            runs = tuple(Run(path) for path in sorted(folder.iterdir()) if (path / "config.json").is_file())
            if runs:
                found.append(Deletion(folder.name, at, runs))
    return sorted(found, key=lambda deletion: deletion.at, reverse=True)


def undo(store: Store, name: str) -> list[str]:
    """Bring back the runs of a deletion; returns their ids.

    Raises:
        RunError: they are gone, or a run of one of these ids is there again.
    """
    known = next((deletion for deletion in deletions(store) if deletion.name == name), None)
    if known is None:
        raise RunError("These runs cannot be brought back any more: they were removed for good, or are back already.")
    there = [run.id for run in known.runs if (store.root / run.id).exists()]
    if there:
        raise RunError(f"A run '{there[0]}' is there already. Delete it first.")
    try:
        for run in known.runs:
            run.path.rename(store.root / run.id)
        (store.root / TRASH / name).rmdir()
    except OSError as error:
        raise not_writable(store.root, error) from None
    return [run.id for run in known.runs]


def empty(store: Store, older_than: float = 0.0) -> None:
    """Remove for good what was deleted so many seconds ago, or earlier."""
    trash, now = store.root / TRASH, time.time()
    for deletion in deletions(store):
        if max(0.0, now - deletion.at) >= older_than:  # names are rounded, and clocks are set back
            hidden = trash / f".{deletion.name}"  # nobody brings back half of it meanwhile
            with contextlib.suppress(OSError):
                (trash / deletion.name).rename(hidden)
    for hidden in trash.glob(".*"):  # also what a server that was killed had begun to remove
        shutil.rmtree(hidden, ignore_errors=True)
