"""Who may write to a run's folder where no lock of one machine can say so: the last who took it.

A run that trains elsewhere is started again when its machine no longer answers, but that machine may only be cut off,
and its worker may still train. So each attempt first takes the folder, and whoever looks after a worker ends it once
somebody else has taken it. No lock is needed: on storage that several machines share, locks may be missing or outlive
their holders.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path

from iekd.runs.files import read_json, write_json

FILE = "ray.json"  # in the run's folder, while somebody has it; so named since only runs in Ray clusters had one
LOOK_EVERY = 0.5  # seconds between two looks of a holder
GONE = 5.0  # seconds after which an earlier holder has looked, and its worker is dead
NOBODY = ""


def take(folder: Path, wait: bool = True) -> str:
    """Take a run's folder, and wait until an earlier holder, if one has not given it back, writes no more; returns what
    `holds` and `give_back` ask for. wait: False where there is no time for that."""
    token = secrets.token_hex(8)
    seconds = _write(folder, token)
    if wait:
        time.sleep(seconds)
    return token


def take_away(folder: Path) -> None:
    """Return when nobody has the folder. The worker of whoever had it is dead then."""
    if (folder / FILE).exists():
        time.sleep(_write(folder, NOBODY))
        give_back(folder, NOBODY)


def bar(folder: Path) -> None:
    """Have whoever has the folder, if somebody does, notice soon that it is no longer theirs; returns at once."""
    if (folder / FILE).exists() and not _is_barred(folder):
        write_json(folder / FILE, {"holder": NOBODY})


def _write(folder: Path, holder: str) -> float:
    """Name a holder; returns for how many seconds an earlier one may still write."""
    file = folder / FILE
    try:
        since, barred = file.stat().st_mtime, _is_barred(folder)
    except FileNotFoundError:
        since, barred = None, False
    write_json(file, {"holder": holder})
    if since is None:
        return 0.0
    # both times are by the clock of whoever has the disk
    return max(0.0, GONE - (file.stat().st_mtime - since)) if barred else GONE


def _is_barred(folder: Path) -> bool:
    return read_json(folder / FILE) == {"holder": NOBODY}


def holds(folder: Path, token: str) -> bool:
    """Whether nobody else has taken it since. A file that cannot be read, as on a network disk for a moment, says
    nothing; one that is not there was given back, or its run was deleted."""
    found = read_json(folder / FILE)
    if found is None:
        return (folder / FILE).exists()
    return isinstance(found, dict) and found.get("holder") == token


def give_back(folder: Path, token: str) -> None:
    """Say that nobody writes to it any longer."""
    if holds(folder, token):
        with contextlib.suppress(OSError):
            (folder / FILE).unlink()
