"""Where things lie on this machine: caches, shipped models, and the package itself."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import unquote

from iekd.errors import UserError

PACKAGE = Path(__file__).parent
QUOTES = (("'", "'"), ('"', '"'), ("`", "`"), ("‘", "’"), ("“", "”"))


def home_dir() -> Path:
    """The home folder; the temporary one for a user who has none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())


def cache_dir() -> Path:
    """Where downloads are kept: `$IEKD_CACHE_DIR`, else `~/.cache/iekd`."""
    return Path(os.environ.get("IEKD_CACHE_DIR") or home_dir() / ".cache" / "iekd")


def make_cache_dir(folder: Path) -> Path:
    """`folder`, which is below the cache, made if need be.

    Raises:
        UserError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"The cache folder '{cache_dir()}' cannot be written ({error.strerror}). "
            "Set the environment variable IEKD_CACHE_DIR to a folder that can be written."
        ) from None
    return folder


def unpacked_dir() -> Path:
    """Where an archive is unpacked that is named instead of a folder."""
    return cache_dir() / "pictures"


def typed(text: str) -> str:
    """A path as it was typed or pasted, without the quotes or `file://` that file managers and shells put around it."""
    text = text.strip()
    while len(text) > 1 and (text[0], text[-1]) in QUOTES:
        text = text[1:-1].strip()
    if text.lower().startswith(("file:///", "file://localhost/")):
        text = unquote("/" + text[len("file://") :].partition("/")[2])
    return text


def absolute(path: str) -> str:
    """The path from the root of the disk of one that was typed. Links are not followed, and no file is looked at."""
    return os.path.abspath(os.path.expanduser(typed(path)))


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
