"""What looks after one run inside a Ray cluster: `python -m iekd.launchers.ray_job RUN_DIR JOB`, the command of a job.

It is a driver on the head node that waits for a task: the worker of the run, in a process of its own on the node that
Ray has chosen. When that node dies, the next attempt is another task. Ray has the queue; this decides only what an end
of a task means for the run. Not here: who starts jobs (ray.py).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iekd.errors import UserError
from iekd.runs.events import append_event
from iekd.runs.lease import LOOK_EVERY, give_back, holds, take
from iekd.runs.owner import RECORD, record
from iekd.runs.status import FAILED, FINISHED, STOPPED
from iekd.runs.store import Run

RETRIES = 5  # after nodes that died
CANCELLING = 1.5  # seconds, and twice POLL; Ray kills a job's command 3 s after it was asked to end
POLL = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description="Look after one run in a Ray cluster (started by iekd itself).")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("job")
    arguments = parser.parse_args()
    run = Run(arguments.run_dir)
    noted = record(run.path)
    if noted.get("job") != arguments.job:  # it was deleted, or handed to another job, before this one began
        sys.stderr.write(f"The run in '{run.path}' is not this job's. Is the folder on storage that all nodes share?\n")
        return 1
    asked: list[int] = []
    import ray

    ray.init(logging_level=logging.ERROR, log_to_driver=False)  # the job's environment names the cluster
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    return Job(run, ray, noted, asked).attend()


class Job:
    """noted: by the launcher, for this job. asked: becomes non-empty when the job is to end."""

    def __init__(self, run: Run, ray: Any, noted: Mapping[str, Any], asked: list[int]) -> None:
        self.run, self.ray, self.asked, self.name = run, ray, asked, noted["job"]
        self.token = ""  # while it has the folder
        self.cpus, self.gpus = float(noted["cpus"]), float(noted["gpus"])
        # retried here and not by Ray, so that the run's folder says what happens before there is another node
        remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, max_calls=1)
        self.task = remote(train_here)

    def attend(self) -> int:
        """Have the run trained until it is over; returns the exit status of the job."""
        if not self._take():
            return 1
        # an earlier worker, which was believed to be gone, may have finished it
        why = None if self.run.status.state == FINISHED else self._attempts()
        if not self._is_mine():
            return 1
        self._end_what_has_not_ended(why)
        give_back(self.run.path, self.token)
        return 0 if self.run.status.state in (FINISHED, STOPPED) else 1

    def _attempts(self) -> str | None:
        """Train until an attempt ends by itself; returns what became of the node if the last one did not."""
        for retry in range(RETRIES + 1):
            self._say_what_it_waits_for()
            why = self._train()
            if why is None or self.asked:  # taking the folder may last longer than Ray lets this live
                break
            # from now on the worker writes no more, should its node only be cut off
            if not self._take():
                break
            if retry == RETRIES or self.run.stop_requested or not self.run.status.live:
                break
            self.run.retry(why)
        return why

    def _take(self) -> bool:
        """Take the folder; False if the run was given to somebody else. Whoever does that first takes the run from this
        job and then the folder, so here the order is the other."""
        if not self._is_named() or (self.token and not holds(self.run.path, self.token)):
            return False
        self.token = take(self.run.path)
        if self._is_named():
            return True
        give_back(self.run.path, self.token)
        return False

    def _is_named(self) -> bool:
        """Whether the run is this job's. A record that cannot be read for a moment says nothing."""
        noted = record(self.run.path)
        return noted.get("job") == self.name if noted else (self.run.path / RECORD).exists()

    def _is_mine(self) -> bool:
        return holds(self.run.path, self.token) and self._is_named()

    def _end_what_has_not_ended(self, why: str | None) -> None:
        """Write the final state that the worker could not write. If its process was killed, there is none: whoever
        reads the folder then finds the run lost."""
        if not self.run.status.live:
            return
        if self.asked:
            requested = self.run.stop_requested
            self._end(STOPPED, "It did not stop by itself and was ended." if requested
                      else "Its job in the Ray cluster was stopped.")  # fmt: skip
        elif self.run.stop_requested:
            self._end(STOPPED, None)
        elif why is not None:
            self._end(FAILED, why)

    def _train(self) -> str | None:
        """One attempt; returns what became of the node if it died, and None however else it ended.

        A run that cannot be started at all fails here.
        """
        errors, waiting = self.ray.exceptions, self.task.remote(str(self.run.path), self.gpus, self.cpus, self.token)
        while not self.ray.wait([waiting], timeout=POLL)[0]:
            unstarted = self.run.stop_requested and self.run.status.pid is None
            lost = not self._is_mine()
            if self.asked or unstarted or lost:
                self.ray.cancel(waiting)
                self.ray.wait([waiting], timeout=CANCELLING if self.asked or lost else None)
                break
        try:
            self.ray.get(waiting, timeout=POLL)
        except errors.TaskCancelledError:
            pass
        except errors.GetTimeoutError:  # it takes long to end, and Ray leaves this no time to see it
            if not self.asked:
                sys.exit(1)
            self.token = take(self.run.path, wait=False)  # what is left of it ends itself
        except errors.RayTaskError as error:
            self._fail(f"The worker could not be started: {_first_line(error.cause)}")
        except (errors.RuntimeEnvSetupError, errors.TaskUnschedulableError) as error:
            self._fail(f"The Ray cluster could not start it: {_first_line(error)}")
        except (errors.OutOfMemoryError, errors.OutOfDiskError) as error:  # it would be so again
            self._fail(
                f"Ray has ended the worker, because its node has too little memory or disk ({type(error).__name__}). "
                "Use a smaller batch size, or a larger node."
            )
        except errors.RayError as error:
            return f"The node that trained it, or Ray's process there, is gone ({type(error).__name__})."
        return None

    def _say_what_it_waits_for(self) -> None:
        """Nobody else writes the status now."""
        status = self.run.status
        needs = f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")
        having = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        fits = any(have.get("CPU", 0) >= self.cpus and have.get("GPU", 0) >= self.gpus for have in having)
        status.waiting = f"Waiting for {needs} in the Ray cluster" + ("." if fits else "; no node has so much now.")
        self.run.write_status(status)

    def _fail(self, why: str) -> None:
        if self.run.status.live:
            self._end(FAILED, why)

    def _end(self, state: str, why: str | None) -> None:
        """The final state of a run whose worker is gone, or never was there, unless it is somebody else's by now."""
        if not self._is_mine():
            return
        status = self.run.status
        status.state, status.error, status.ended, status.waiting = state, why, time.time(), ""
        self.run.write_status(status)
        self.run.event(state, **({"error": why} if why else {}))


def _first_line(error: BaseException) -> str:
    """Of an error's message, in which a UserError is a sentence."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def train_here(folder: str, gpus: float, cpus: float, token: str) -> None:
    """The task: start the worker on this node and stay until it has ended, or the folder is somebody else's.

    It needs nothing of this package that takes long to import: Ray's process here has only this to do.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise UserError(
            f"The node {socket.gethostname()} has no folder '{folder}'. Put the runs on storage that all nodes share."
        )
    if not holds(path, token):
        return
    append_event(path, "placed", node=socket.gethostname(), ray_node=_node_id())
    alone = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}  # Ray sets it for whoever has reserved a GPU
    with open(path / "log.txt", "ab") as text:
        worker = subprocess.Popen(
            [sys.executable, "-m", "iekd.runs.worker", folder, "--lifeline", "--holder", token],
            stdin=subprocess.PIPE, stdout=text, stderr=text, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(max(1, int(cpus))), **alone},
        )  # fmt: skip
    try:
        while worker.poll() is None and holds(path, token):
            time.sleep(LOOK_EVERY)
    finally:  # also when Ray cancels the task
        if worker.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)  # with its children
            worker.wait()


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


if __name__ == "__main__":
    sys.exit(main())
