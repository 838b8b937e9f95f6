"""A cache of decoded images, for the next run on them.

A thousand photographs of a telephone take a minute to decode, and three megabytes when they are 32 pixels wide; each
run of a grid, each attempt and each evaluation would decode them again. The caller's name for an entry has to change
whenever the images do. The entries that were not used for longest are removed when all together take too much room.
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
from numpy.lib import format as npy

from iekd.paths import cache_dir

MOST = 8 * 10**9  # bytes of all entries
LEFT = 2 * 10**9  # bytes that stay free on the disk

log = logging.getLogger(__name__)


def folder() -> Path:
    """The folder of all entries."""
    return cache_dir() / "decoded"


def find(name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(values, rows) as they were given to `store`, the values still in their file; None if there is no such entry."""
    path = _path(name)
    try:
        with open(path, "rb") as file:
            npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file)
            first = file.tell()
            values = np.memmap(file, dtype, "r", first, shape)
            file.seek(first + values.nbytes)
            rows = np.load(file)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    if not np.array_equal(np.sort(rows[rows >= 0]), np.arange(len(values))):
        return None
    return values, rows


def store(name: str, values: Sequence[np.ndarray], rows: np.ndarray) -> None:
    """Store arrays with rows of one shape, one after the other.

    rows: (N,) int64, for each of N files the row that is its own, or -1. If there is no room, or no right to write,
    that is only logged.
    """
    size = sum(array.nbytes for array in values)
    new = None
    try:
        folder().mkdir(parents=True, exist_ok=True)
        _make_room(size)
        number, new = tempfile.mkstemp(
            prefix=".", suffix=".part", dir=folder()
        )  # readable by its owner only, as the images may be
        with open(number, "wb") as file:
            shape = (sum(map(len, values)), *values[0].shape[1:])
            header = {"descr": npy.dtype_to_descr(values[0].dtype), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, header)
            for array in filter(len, values):
                file.write(np.ascontiguousarray(array).data.cast("B"))
            np.save(file, rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, _path(name))
        log.info("The decoded images are stored for the next run on them (%.1f MB in '%s').", size / 1e6, folder())
    except OSError as error:
        log.info("The decoded images are not stored for the next run: %s.", error.strerror or error)
        if new is not None:
            Path(new).unlink(missing_ok=True)


def _path(name: str) -> Path:
    return folder() / f"{name}.npy"


def _make_room(size: int) -> None:
    """Remove the entries that were not used for longest, until there is room for `size` bytes more.

    Raises:
        OSError: there is none.
    """
    if size > MOST or shutil.disk_usage(folder()).free < size + LEFT:
        raise OSError(f"there is no room for {size / 1e9:.1f} GB")
    there = []
    for path in folder().glob("[!.]*"):
        with contextlib.suppress(OSError):  # another process may remove the same
            there.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(bytes_of for _, bytes_of, _ in there)
    for _, bytes_of, path in sorted(there):
        if total + size <= MOST:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= bytes_of
