"""events.jsonl of a run: its changes of state, which several processes write down."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from iekd.runs.files import LineWriter
from iekd.runs.locks import fcntl


def append_event(folder: Path, name: str, **values: Any) -> None:
    """Add a line; the worker and the page both write here, and lines are numbered."""
    path = folder / "events.jsonl"
    with open(path, "ab") as lock:
        with suppress(OSError):  # storage without file locks: two that write at the same moment may share a number
            fcntl.flock(lock, fcntl.LOCK_EX)
        writer = LineWriter(path)
        writer.append({"time": time.time(), "event": name, **values})
        writer.close()
