"""Copies of runs in another place: a folder, or a bucket of an object store, which live run folders cannot be in.

While a run is trained, its worker copies it to `PLACE/ID.zip` after new checkpoints, and once more when it is over. The
file is what `iekd runs export` writes, so `iekd runs import PLACE/ID.zip` brings the run back, and it can be resumed.

Places are understood by fsspec: `s3://bucket/runs`, `gs://...`, `hf://buckets/ORG/NAME`, or a path. For some of them
fsspec needs a package of its own, which it names. Passwords and tokens come from where that package looks for them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from iekd.errors import RunError
from iekd.paths import absolute
from iekd.runs.status import Status
from iekd.runs.store import CHECKPOINTS, Run
from iekd.runs.transfer import write_archive

log = logging.getLogger("iekd")
EVERY = 600.0  # seconds between copies of a run that is going on
POLL = 2.0


class Copies:
    """Copies one run to `place`: during `with`, in a thread, after new checkpoints. Without a place, nothing happens.

    error: why the last copy was not possible, as a sentence; "" if it was.
    """

    def __init__(self, run: Run, place: str) -> None:
        self.run, self.place, self.error = run, place, ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Copies:
        if self.place:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def copy_at_last(self, status: Status) -> None:
        """Copy the run, which is over; if that is not possible, its status says so."""
        if not self.place:
            return
        self._over.set()
        self._thread.join()  # it may be copying
        self._copy()
        if self.error:
            status.copy_error = self.error
            self.run.write_status(status)

    def _copy(self) -> None:
        begun = time.monotonic()
        try:
            copied, self.error = copy_run(self.run, self.place), ""
        except RunError as error:
            self.error = str(error)
            log.warning("%s", error)
        else:
            log.info("Copied to %s in %.0f s.", copied, time.monotonic() - begun)

    def _watch(self) -> None:
        copied, at = self._newest(), time.monotonic()
        while not self._over.wait(POLL):
            newest = self._newest()
            if newest != copied and time.monotonic() - at >= EVERY:
                copied, at = newest, time.monotonic()
                self._copy()

    def _newest(self) -> set[str]:
        with contextlib.suppress(OSError):
            return {name for name in os.listdir(self.run.path / CHECKPOINTS) if not name.startswith(".")}
        return set()


def copy_run(run: Run, place: str) -> str:
    """Write the run, with its checkpoints, to `place`/ID.zip in place of an earlier copy; returns that address.

    Raises:
        RunError: it cannot be written there.
    """
    target = _within(_without_password(place), f"{run.id}.zip")
    # beside the runs: /tmp may be small
    with _said(target, "write"), tempfile.TemporaryDirectory(prefix=".copy-", dir=run.path.parent) as folder:
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
    place = _without_password(place) if "://" in place else absolute(place)
    with _said(place, "write to"), tempfile.TemporaryDirectory() as folder:
        probe, target = Path(folder) / "probe", _within(place, f".iekd-probe-{secrets.token_hex(4)}")
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
    with contextlib.ExitStack() as stack:
        with _said(source, "read"):
            local = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run.zip"
            files, path = _files(source)
            files.get_file(path, str(local))
        yield local


def _without_password(place: str) -> str:
    """Return the address of a place, which goes into logs, if no password is in it.

    Raises:
        RunError: one is.
    """
    if "://" in place and urlsplit(place).password:
        raise RunError(
            "A place for copies must not have a password in its address, which would be in logs. Put it where fsspec's "
            "package for that kind of storage looks for it."
        )
    return place


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
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise RunError(f"Cannot {doing} '{address}': the disk there or here is full. Free some space.") from None
        why = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        raise RunError(
            f"Cannot {doing} '{address}' ({why}). Check the address, your rights there, and whether fsspec's package "
            "for that kind of storage is installed."
        ) from None
