"""The lock of a GPU for the whole machine, shared by all folders of runs and all users.

It is a file in a folder that all users share, /tmp/iekd-locks unless IEKD_LOCK_DIR names another; the user's own
temporary folder would not be shared. Nothing in that folder is trusted: links are not followed, only plain files are
opened, and what a file says about its holder is only shown as text.

The CPU has no such lock. It can serve several runs at a time, so each folder of runs has its own queue.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pwd
import re
import stat
import time
from functools import lru_cache
from pathlib import Path

from iekd.runs.locks import fcntl

log = logging.getLogger(__name__)
SHARED = "/tmp/iekd-locks"
LONGEST = 1000  # bytes that a holder may say of itself


class DeviceLock:
    """One GPU's lock. `take` and `give_back` belong to one owner; `busy` only looks.

    The file is opened again each time, because cleaners of temporary folders remove old files.
    """

    def __init__(self, name: str, own: Path) -> None:
        """own: a folder of the user's, in case the shared one cannot be used."""
        self.name, self.own = name, own
        self.handle: int | None = None

    def take(self, run: str, folder: str) -> bool:
        """Take the lock and note who has it; False if somebody else does."""
        handle = self._open()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        if os.fstat(handle).st_nlink != 1:  # removed since it was opened: others would lock a new one
            os.close(handle)
            return False
        said = {"pid": os.getpid(), "user": _user(), "folder": folder, "run": run, "since": time.time()}
        with contextlib.suppress(OSError):  # another user's read-only file can still be locked
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(said).encode(), 0)
        self.handle = handle
        return True

    def give_back(self) -> None:
        if self.handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self.handle, 0)
            os.close(self.handle)
            self.handle = None

    def busy(self) -> bool:
        """Whether somebody has it."""
        handle = self._open()
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def holder(self) -> str:
        """Who says to have it: 'run X of user Y (folder Z, process P)'."""
        handle = self._open()
        try:
            said = json.loads(os.pread(handle, LONGEST, 0))
            words = {key: _plain(said.get(key)) for key in ("run", "user", "folder", "pid")}
        except (OSError, ValueError, AttributeError):
            return "another program"
        finally:
            os.close(handle)
        return "run {run} of user {user} (folder '{folder}', process {pid})".format(**words)

    def _open(self) -> int:
        """Raises OSError only if the user's own folder cannot be used either."""
        shared = os.environ.get("IEKD_LOCK_DIR") or SHARED
        try:
            return _open_shared(shared, self.name)
        except OSError as error:
            _say_once(f"'{shared}' cannot be used ({error.strerror}): only runs of one folder wait for each other.")
        self.own.mkdir(parents=True, exist_ok=True)
        return os.open(self.own / self.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def _open_shared(folder: str, name: str) -> int:
    """A descriptor of a plain file in a folder that everybody may write; both are made where they are missing.

    A file that is there is opened without O_CREAT: Linux refuses that for another user's file in such a folder.
    """
    try:
        os.mkdir(folder)
        os.chmod(folder, 0o1777)  # whatever the umask is
    except FileExistsError:
        pass
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | flags)
    try:
        for _ in range(3):  # another process may make or remove it in between
            for kind in (os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_EXCL):
                try:
                    handle = os.open(name, kind | flags, 0o666, dir_fd=root)
                except FileNotFoundError:
                    continue
                except FileExistsError:
                    break
                except PermissionError:
                    if kind == os.O_RDWR:
                        continue
                    raise
                return _checked(handle, name, made=bool(kind & os.O_CREAT))
        raise FileNotFoundError(2, "it comes and goes", name)
    finally:
        os.close(root)


def _checked(handle: int, name: str, made: bool) -> int:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # a pipe, or a second name of somebody's file
        os.close(handle)
        raise OSError(22, "it is not a plain file", name)
    if made:
        os.fchmod(handle, 0o666)
    return handle


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers have users without a name
        return str(os.getuid())


def _plain(value: object) -> str:
    text = re.sub(r"[^\w.+@-]", "", str(value))
    return text[:80] or "?"


@lru_cache(maxsize=8)
def _say_once(sentence: str) -> None:
    log.warning("%s", sentence)
