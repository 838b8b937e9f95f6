"""Runs as background processes of this machine, which wait for the device in the queue of runs/queue.py."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import psutil

from iekd import plugins
from iekd.config.run import RunConfig
from iekd.launchers.base import FolderLauncher
from iekd.paths import python_path
from iekd.runs import queue
from iekd.runs.owner import LOCAL
from iekd.runs.slots import slots
from iekd.runs.status import Status
from iekd.runs.store import Run
from iekd.space import on_zero_gpu


class LocalLauncher(FolderLauncher):
    """Each run is a process in a session of its own: it outlives the page, the server and the terminal.

    The worker inherits the lock of the run's folder, so the kernel itself says whether it lives.
    """

    name = LOCAL
    here = True

    def start(self, run: Run, handle: int) -> None:
        with open(run.path / "log.txt", "ab") as log:
            # the worker inherits the lock: there is no moment in which the run looks dead
            subprocess.Popen(
                [sys.executable, "-m", "iekd.runs.worker", str(run.path), "--lock", str(handle)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[handle], start_new_session=True,
                env={
                    **os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path(), **plugins.environment(),
                    **({"CUDA_VISIBLE_DEVICES": ""} if on_zero_gpu() else {}),  # what torch finds there never answers
                },
            )  # fmt: skip

    def alive(self, run_id: str) -> bool:
        return self.store.get(run_id).locked()

    def width(self, config: RunConfig) -> int:
        return len(slots(config.device)) or 1

    def ahead_of(self, run_id: str) -> Sequence[str]:
        return [run.id for run in queue.ahead_of(self.store.get(run_id), self.store)]

    def move_to_front(self, run_id: str) -> None:
        queue.move_to_front(self._own(run_id), self.store)

    def hurry(self, run: Run) -> None:
        process = worker_process(run.status)
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)

    def kill(self, run: Run) -> bool:
        process = worker_process(run.status)
        if process is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        return True


def worker_process(status: Status) -> psutil.Process | None:
    """The worker, if a process of that id exists and is the one that was started; else None."""
    if status.pid is None or status.pid_started is None:
        return None
    try:
        process = psutil.Process(status.pid)
        return process if abs(process.create_time() - status.pid_started) < 1 else None
    except psutil.NoSuchProcess:
        return None
