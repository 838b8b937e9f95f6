"""Small files that several processes read while one writes: readers never see half of one."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Replace `path` in one step: temporary name, flush, fsync, rename."""
    # containers of two machines may have the same process number, and share the folder
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(3).hex()}.part")
    try:
        with open(part, "w") as file:
            json.dump(value, file, indent=1, default=str)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_json(path: Path) -> Any | None:
    """The value in `path`, or None if there is no such file or it is not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def content_sum(path: Path) -> str:
    """SHA-256 of a file's content, computed again only once the file has changed. Raises OSError without one."""
    about = path.stat()
    return _sum(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=256)
def _sum(path: Path, changed: int, size: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def sync_folder(path: Path) -> None:
    """Make sure that the names in a folder outlive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class LineWriter:
    """Appends JSON lines, one write() each, numbered from where the file ends."""

    def __init__(self, path: Path) -> None:
        self.count = path.read_bytes().count(b"\n") if path.exists() else 0
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, row: dict[str, Any]) -> None:
        """Raises OSError where the line could not be written as a whole; what there is of it is cut off again."""
        line = (json.dumps({"seq": self.count, **row}, separators=(",", ":")) + "\n").encode()
        before = os.lseek(self.file, 0, os.SEEK_END)
        if os.write(self.file, line) < len(line):
            os.ftruncate(self.file, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.count += 1

    def sync(self) -> None:
        """Make sure that what was written outlives a loss of power."""
        os.fsync(self.file)

    def close(self) -> None:
        os.close(self.file)


def truncate_lines(path: Path, count: int | None = None) -> None:
    """Cut a file off after `count` lines; an incomplete last line is always removed. None: keep all whole lines."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        end = 0
        for line in itertools.islice(file, count):
            if not line.endswith(b"\n"):
                break
            end += len(line)
        file.truncate(end)


def read_lines(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """(rows after byte `offset`, the offset to continue from). An incomplete last line is left for the next call."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]
    # one array is read three times as fast as so many lines
    rows: list[dict[str, Any]] = json.loads(
        b"[" + b",".join(line for line in whole.splitlines() if line.strip()) + b"]"
    )
    return rows, offset + len(whole)


def read_tail(path: Path, lines: int) -> str:
    """The last lines of a text file that may be large."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 400 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
