"""Which launcher owns a run, and what readers of a run's folder ask the launcher.

A run of this machine has no record of an owner: it is alive while `run.lock` is locked. Any other launcher writes its
name to `launcher.json`, and tells itself whether the run is alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from iekd.runs.files import read_json, write_json

LOCAL = "local"
UNREADABLE = "unreadable"
RECORD = "launcher.json"


class Owner(Protocol):
    """The part of a launcher that a Store needs to tell the state of its runs. All are called every few seconds."""

    def alive(self, run_id: str) -> bool:
        """Whether its worker runs or will certainly be started. True while that is unknown: a run that is shown as lost
        may be resumed, and would then be trained twice."""
        ...

    def doubt(self, run_id: str) -> str:
        """Why that is unknown at the moment, as a sentence; "" where it is known."""
        ...

    def ahead_of(self, run_id: str) -> Sequence[str]:
        """Ids of the runs that this one waits for, oldest first; empty where the launcher does not know."""
        ...


def owner_of(run_dir: Path) -> str:
    """The name of the launcher that owns the run in this folder."""
    name = record(run_dir).get("name")
    if isinstance(name, str):
        return name
    return UNREADABLE if (run_dir / RECORD).exists() else LOCAL


def record(run_dir: Path) -> dict[str, Any]:
    """What the owner noted for itself, such as the id of its job."""
    found = read_json(run_dir / RECORD)
    return found if isinstance(found, dict) else {}


def set_owner(run_dir: Path, name: str, **notes: Any) -> None:
    """Give the run to a launcher. notes: JSON values that the launcher wants to find again."""
    if name == LOCAL:
        (run_dir / RECORD).unlink(missing_ok=True)
    else:
        write_json(run_dir / RECORD, {"name": name, **notes})
