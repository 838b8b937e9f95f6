"""What decoding a folder's pictures gave, kept for the next run on them.

A thousand photographs of a telephone take a minute to decode, and three megabytes when they are 32 pixels wide; each
run of a grid, each attempt and each evaluation would decode them again. Whoever asks names what is kept so that the
name changes with the pictures. What was not used for longest goes when all together take too much room.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iekd.data.registry import cache_dir

MOST = 8 * 10**9  # bytes of everything that is kept
LEFT = 2 * 10**9  # bytes that stay free on the disk
PIECE = 4096  # rows that are written at a time

log = logging.getLogger(__name__)


def find(name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(values, rows) as they were given to `keep`, the values still in their file; None if they are not there."""
    folder = place() / name
    try:
        values = np.load(folder / "values.npy", mmap_mode="r")
        rows = np.load(folder / "rows.npy")
        os.utime(folder)
    except (OSError, ValueError, EOFError):
        return None
    return values, rows


def keep(name: str, values: Sequence[np.ndarray], rows: np.ndarray) -> None:
    """Keep arrays of equal rows, one after the other, and an array that says which is which.

    Where there is no room for them, or no right to write, that is logged: nothing depends on it.
    """
    size = sum(part.nbytes for part in values)
    new = None
    try:
        place().mkdir(parents=True, exist_ok=True)
        if not _make_room(size):
            return
        new = Path(
            tempfile.mkdtemp(prefix=".", suffix=".part", dir=place())
        )  # for its owner only, as the pictures may be
        with open(new / "values.npy", "wb") as file:
            shape = (sum(map(len, values)), *values[0].shape[1:])
            header = {"descr": np.lib.format.dtype_to_descr(values[0].dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in values:
                for i in range(0, len(part), PIECE):
                    file.write(np.ascontiguousarray(part[i : i + PIECE]).tobytes())
            file.flush()
            os.fsync(file.fileno())
        np.save(new / "rows.npy", rows)
        shutil.rmtree(place() / name, ignore_errors=True)  # it was not what is there now
        new.rename(place() / name)
        log.info("The decoded images are kept for the next run on them (%.1f MB in '%s').", size / 1e6, place())
    except OSError as error:
        log.info("The decoded images are not kept for the next run: %s.", error.strerror or error)
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def place() -> Path:
    """The folder of all that is kept."""
    return cache_dir() / "decoded"


def _make_room(size: int) -> bool:
    """Remove what was not used for longest until `size` bytes more are no more than MOST; False if they cannot be."""
    if size > MOST or shutil.disk_usage(place()).free < size + LEFT:
        return False
    there = []
    for folder in place().iterdir():
        with contextlib.suppress(OSError):  # another process may remove the same
            there.append((folder.stat().st_mtime, sum(f.stat().st_size for f in folder.iterdir()), folder))
    total = sum(bytes_of for _, bytes_of, _ in there)
    for _, bytes_of, folder in sorted(there):
        if total + size <= MOST:
            break
        shutil.rmtree(folder, ignore_errors=True)
        total -= bytes_of
    return True
