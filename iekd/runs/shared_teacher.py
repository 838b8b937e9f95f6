"""Runs that train at the same time and need the same teacher: one trains it, the others wait and then find it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from iekd.config.run import RunConfig
from iekd.errors import UserError
from iekd.models.source import TRAIN
from iekd.runs.locks import fcntl
from iekd.runs.store import Run
from iekd.runs.teachers import find_teacher, teacher_folder, to_fine_tune


def missing_teacher(config: RunConfig, runs_dir: Path) -> str:
    """The name of the teacher that a run would have to train, and that others could use; "" if there is none."""
    if not config.needs_teacher or config.teacher_from == TRAIN:
        return ""
    try:
        if find_teacher(config, runs_dir) is not None:
            return ""
        start = to_fine_tune(config, runs_dir)
    except UserError:  # training says it
        return ""
    return teacher_folder(config, runs_dir, weights_fingerprint=start.fingerprint if start else "").name


class SharedTeacher:
    """The right to train a run's teacher, which one of all runs of a folder has at a time; released at the end of the
    block."""

    def __init__(self, run: Run) -> None:
        self.run, self.handle = run, -1

    def __enter__(self) -> SharedTeacher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def ready(self) -> bool:
        """Whether the run could train now: its teacher is there, is another one than any other run's, or is this run's
        to train."""
        runs_dir = self.run.path.parent
        name = "" if self.handle >= 0 else missing_teacher(self.run.config, runs_dir)
        if not name:
            return True
        locks = runs_dir / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        handle = os.open(locks / f"teacher-{name}", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self.handle = handle
        return True
