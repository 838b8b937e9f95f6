"""Where things lie on this machine: caches, shipped models, and the package itself."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).parent


def cache_dir() -> Path:
    """Where downloads are kept: `$IEKD_CACHE_DIR`, else `~/.cache/iekd`."""
    return Path(os.environ.get("IEKD_CACHE_DIR") or Path.home() / ".cache" / "iekd")


def unpacked_dir() -> Path:
    """Where an archive is unpacked that is named instead of a folder."""
    return cache_dir() / "pictures"


def absolute(path: str) -> str:
    """The path from the root of the disk. Links are not followed, and no file is looked at."""
    return os.path.abspath(os.path.expanduser(path))


def as_typed(path: str) -> str:
    """A path for a message: below the working directory as most people type it, without the way to it."""
    here = os.getcwd()
    return path if here == os.sep else path.removeprefix(here + os.sep)


def checkpoints_dir() -> Path:
    """The shipped models: `$IEKD_CHECKPOINTS_DIR`, `checkpoints/` beside the package, or the copy inside a wheel."""
    if own := os.environ.get("IEKD_CHECKPOINTS_DIR"):
        return Path(own)
    beside = PACKAGE.parent / "checkpoints"
    return beside if beside.is_dir() else PACKAGE / "_checkpoints"


def python_path() -> str:
    """PYTHONPATH that lets a process import this very package, also from a checkout that is not installed."""
    return os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
