"""`fcntl`, from which all locks of this package are taken, or one clear error where the system has none.

The starter of a run locks its folder and hands the locked descriptor to the worker, so that there is no moment in which
the run looks dead, and the kernel unlocks it when the worker dies. Windows cannot hand over a locked file, with or
without the filelock package, so runs need Linux, macOS or WSL2. Losses, models and data do not import this.
"""

from __future__ import annotations

from iekd.errors import PlatformError

try:
    import fcntl
except ImportError:
    raise PlatformError(
        "Runs need Linux or macOS, because this system has no fcntl locks. On Windows use WSL2: "
        "run 'wsl --install', then install and start iekd inside it."
    ) from None

__all__ = ("fcntl",)
