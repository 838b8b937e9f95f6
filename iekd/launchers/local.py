"""Starting and stopping runs as background processes of this machine.

`Launcher` is what the page needs of any place that can run training; a cluster's would stand beside `LocalLauncher`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Protocol

import psutil

from iekd import plugins
from iekd.config.run import RunConfig
from iekd.errors import RunError
from iekd.paths import python_path
from iekd.runs.files import read_json, write_json
from iekd.runs.store import LOST, STOPPED, STOPPING, Run, Status, Store, released


class Launcher(Protocol):
    """Submit a configuration, then ask for its state by id."""

    def submit(self, config: RunConfig, key: str | None = None) -> str: ...
    def status(self, run_id: str) -> Status: ...
    def resume(self, run_id: str) -> None: ...
    def cancel(self, run_id: str) -> None: ...
    def logs(self, run_id: str, offset: int = 0) -> tuple[str, int]: ...
    def list(self) -> list[str]: ...


class LocalLauncher:
    """Each run is a process in a session of its own: it outlives the page, the server and the terminal."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def submit(self, config: RunConfig, key: str | None = None, visitor: str = "") -> str:
        """Create the run and start its worker, which waits for its turn; returns the run's id.

        key: submitting twice with one key starts one run. visitor: who asks for it, kept in the run's folder.
        """
        run, handle = self.store.create(config, key, visitor)
        if handle is not None:
            self._start(run, handle)
        return run.id

    def resume(self, run_id: str) -> None:
        """Start another attempt of a run that was stopped, failed or was lost; it goes on from its last checkpoint.

        Raises:
            RunError: it is not over, or there is nothing left to do.
        """
        run = self.store.get(run_id)
        self._start(run, run.reopen())

    def _start(self, run: Run, handle: int) -> None:
        with released(handle), open(run.path / "log.txt", "ab") as log:
            # the worker inherits the lock: there is no moment in which the run looks dead
            subprocess.Popen(
                [sys.executable, "-m", "iekd.runs.worker", str(run.path), "--lock", str(handle)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[handle], start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path(), **plugins.environment()},
            )  # fmt: skip

    def status(self, run_id: str) -> Status:
        return self.store.get(run_id).status

    def cancel(self, run_id: str) -> None:
        request_stop(self.store.get(run_id))

    def logs(self, run_id: str, offset: int = 0) -> tuple[str, int]:
        """(text after byte `offset`, next offset)."""
        with open(self.store.get(run_id).path / "log.txt", "rb") as file:
            file.seek(offset)
            text = file.read()
        return text.decode(errors="replace"), offset + len(text)

    def list(self) -> list[str]:
        return [run.id for run in self.store.list()]


def request_stop(run: Run) -> None:
    """Ask a run to stop: it finishes its step, saves its students and ends as `stopped`.

    Raises:
        RunError: it is over already.
    """
    status = run.status
    if not status.live:
        raise RunError(f"The run '{run.id}' is {status.state} already; there is nothing to stop.")
    write_json(run.path / "control.json", {"request": "stop", "time": time.time()})
    run.event("stop requested")
    process = worker_process(status)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)


def stop_and_wait(run: Run, grace: float = 30.0, saving: float = 300.0) -> Status:
    """Stop a run and wait for its end; a worker that does not end within `grace` seconds is killed.

    saving: seconds for one that has seen the request and writes its students.
    """
    request_stop(run)
    began = time.monotonic()
    while run.alive():
        if time.monotonic() - began > (saving if run.status.state == STOPPING else grace):
            return _end(run, grace)
        time.sleep(0.1)
    return run.status


def end_stuck(store: Store, grace: float = 30.0, saving: float = 300.0) -> None:
    """Kill every worker that was asked to stop more than `grace` seconds ago and is still there.

    saving: seconds for one that has seen the request and writes its students.
    """
    for control in store.root.glob("*/control.json"):
        asked, run = read_json(control) or {}, Run(control.parent)
        if asked.get("request") != "stop" or not run.alive():
            continue
        patience = saving if run.status.state == STOPPING else grace
        if time.time() - asked.get("time", 0) > patience:
            _end(run, patience)


def _end(run: Run, grace: float) -> Status:
    """Kill a worker and its children; a final state that it had written stays."""
    process = worker_process(run.status)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        while run.alive():
            time.sleep(0.05)
        status = run.status
        if status.state == LOST:
            status.state, status.ended = STOPPED, time.time()
            status.error = f"It did not stop by itself within {grace:.0f} s and was ended."
            run.write_status(status)
            run.event("killed")
    return run.status


def worker_process(status: Status) -> psutil.Process | None:
    """The worker, if a process of that id exists and is the one that was started; else None."""
    if status.pid is None or status.pid_started is None:
        return None
    try:
        process = psutil.Process(status.pid)
        return process if abs(process.create_time() - status.pid_started) < 1 else None
    except psutil.NoSuchProcess:
        return None
