"""Copies of runs in another place: a folder, or a bucket of an object store, which live run folders cannot be in.

While a run is trained, its worker copies it to `PLACE/ID.zip` after new checkpoints, and once more when it is over. The
file is what `iekd runs export` writes, so `iekd runs import PLACE/ID.zip` brings the run back, and it can be resumed.

Places are understood by fsspec: `s3://bucket/runs`, `gs://...`, `hf://buckets/ORG/NAME`, or a path. For some of them
fsspec needs a package of its own, which it names. Passwords and tokens come from where that package looks for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iekd.errors import RunError
from iekd.paths import absolute
from iekd.runs.store import CHECKPOINTS, Run
from iekd.runs.transfer import write_archive

log = logging.getLogger("iekd")
EVERY = 600.0  # seconds between copies of a run that is going on
POLL = 2.0


class Copies:
    """Copies one run to `place`; without a place, nothing happens.

    During `with`, in a thread, after new checkpoints.
    """

    def __init__(self, run: Run, place: str) -> None:
        self.run, self.place = run, place
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Copies:
        if self.place:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self.place:
            self._thread.join()

    def copy(self) -> str:
        """Copy it now; returns why that was not possible, as a sentence, or ""."""
        if not self.place:
            return ""
        begun = time.monotonic()
        try:
            copied = copy_run(self.run, self.place)
        except RunError as error:
            log.warning("%s", error)
            return str(error)
        log.info("Copied to %s in %.0f s.", copied, time.monotonic() - begun)
        return ""

    def _watch(self) -> None:
        copied, at = self._newest(), time.monotonic()
        while not self._over.wait(POLL):
            newest = self._newest()
            if newest != copied and time.monotonic() - at >= EVERY:
                copied, at = newest, time.monotonic()
                self.copy()

    def _newest(self) -> set[str]:
        with contextlib.suppress(OSError):
            return {name for name in os.listdir(self.run.path / CHECKPOINTS) if not name.startswith(".")}
        return set()


def copy_run(run: Run, place: str) -> str:
    """Write the run, with its checkpoints, to `place`/ID.zip in place of an earlier copy; returns that address.

    Raises:
        RunError: it cannot be written there.
    """
    target = _within(place, f"{run.id}.zip")
    with tempfile.TemporaryDirectory() as folder, _said(target, "write"):
        archive = Path(folder) / "run.zip"
        for left in reversed(range(3)):
            try:
                write_archive(run, archive)
                break
            except FileNotFoundError:  # an old checkpoint went away meanwhile
                archive.unlink(missing_ok=True)
                if not left:
                    raise
        _put(archive, target)
    return target


def check_place(place: str) -> str:
    """Return `place`, a path as an absolute one, if files can be written there, which is tried.

    Raises:
        RunError: they cannot.
    """
    place = place if "://" in place else absolute(place)
    with tempfile.TemporaryDirectory() as folder, _said(place, "write to"):
        probe, target = Path(folder) / "probe", _within(place, ".iekd-probe")
        probe.touch()
        _put(probe, target)
        files, path = _files(target)
        files.rm_file(path)
    return place


@contextlib.contextmanager
def fetched(source: str) -> Iterator[Path]:
    """A local copy of the file at an address, for as long as the block lasts; of a path, the file itself.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    if "://" not in source:
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "run.zip"
        with _said(source, "read"):
            files, path = _files(source)
            files.get_file(path, str(local))
        yield local


def _within(place: str, name: str) -> str:
    return f"{place}{name}" if place.endswith("/") else f"{place}/{name}"


def _files(address: str) -> tuple[Any, str]:
    """fsspec's file system, and the path there."""
    from fsspec.core import url_to_fs  # only for those who copy

    files, path = url_to_fs(address)
    return files, path


def _put(file: Path, address: str) -> None:
    files, path = _files(address)
    files.makedirs(files._parent(path), exist_ok=True)
    if "file" in files.protocol:  # a copy that is broken off leaves the one before; object stores do that by themselves
        part = f"{path}.part"
        shutil.copyfile(file, part)
        os.replace(part, path)
    else:
        files.put_file(str(file), path)


@contextlib.contextmanager
def _said(address: str, doing: str) -> Iterator[None]:
    """Storage of all kinds raises errors of all kinds."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        why = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        raise RunError(
            f"Cannot {doing} '{address}' ({why}). Check the address, your rights there, and whether fsspec's package "
            "for that kind of storage is installed."
        ) from None
