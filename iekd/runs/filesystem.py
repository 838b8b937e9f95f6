"""Whether a folder can hold runs: what a run does to files, tried once on small ones.

A mounted bucket or a network share may look like a disk and lack locks, appending or renaming. What such a folder lacks
is better known before a run trusts it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from iekd.runs.locks import fcntl


def what_it_lacks(folder: Path) -> str:
    """Try locks, appending and renaming in a folder that exists; returns what does not work, "" if all does."""
    try:
        with tempfile.TemporaryDirectory(prefix=".try-", dir=folder) as inside:
            return _lacks(Path(inside))
    except OSError as error:
        return f"writing ({error.strerror or error})"


def _lacks(folder: Path) -> str:
    first, second = folder / "first", folder / "second"
    with open(first, "ab") as held, open(first, "ab") as other:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"file locks ({error.strerror or error})"
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return "file locks (two programs got the same lock)"
        except BlockingIOError:
            pass
    for line in (b"one\n", b"two\n"):
        with open(first, "ab") as file:
            file.write(line)
            os.fsync(file.fileno())
    second.write_bytes(b"old")
    os.replace(first, second)
    if first.exists() or second.read_bytes() != b"one\ntwo\n":
        return "appending or renaming (a file had other contents afterwards)"
    with open(second, "r+b") as file:
        file.truncate(4)
    return "" if second.read_bytes() == b"one\n" else "cutting off the end of a file"
