"""The one place that chooses a launcher."""

from __future__ import annotations

from pathlib import Path

from iekd.launchers.base import Launcher
from iekd.launchers.local import LocalLauncher
from iekd.runs.store import Store


def make_launcher(runs_dir: Path | str) -> Launcher:
    """The launcher for the runs of a folder: this machine."""
    return LocalLauncher(Store(runs_dir))
