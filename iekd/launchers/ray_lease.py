"""Who may write to the folder of a run in a Ray cluster: the last who took it.

Ray starts a worker again when a node no longer answers, but such a node may only be cut off, and its worker may still
train. So each attempt first takes the folder, and whoever looks after a worker ends it once somebody else has taken it.
No lock is needed: on storage that several machines share, locks may be missing or outlive their holders.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path

from iekd.runs.files import read_json, write_json

FILE = "ray.json"  # in the run's folder, while somebody has it
LOOK_EVERY = 0.5  # seconds between two looks of a holder
GONE = 5.0  # seconds after which an earlier holder has looked, and its worker is dead


def take(folder: Path, wait: bool = True) -> str:
    """Take a run's folder, and wait until an earlier holder, if one has not given it back, writes no more; returns what
    `holds` and `give_back` ask for."""
    token, taken = secrets.token_hex(8), (folder / FILE).exists()
    write_json(folder / FILE, {"holder": token})
    if taken and wait:
        time.sleep(GONE)
    return token


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
