"""A process that trains a run together with its worker (processes.py): `python -m iekd.runs.follower ...`, or torchrun.

It loads what the worker loads, trains the same networks on its part of each batch, and writes nothing into the run's
folder. It ends when the worker says so, or is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from iekd.errors import RunError, UserError
from iekd.runs.processes import CAUSE, GONE, LOADED, OVER, POLL, RUN, Place, Team, environment_store, file_store
from iekd.runs.status_writer import StatusWriter
from iekd.runs.store import Run
from iekd.runs.teachers import Found, as_heard
from iekd.runs.training import Training
from iekd.runs.worker import error_sentence

log = logging.getLogger("iekd")


class Unseen(StatusWriter):
    """Of a process whose status nobody reads."""

    def write(self, row: dict[str, Any] | None = None, force: bool = False) -> None:
        pass

    def wait(self, reason: str) -> None:
        pass


class Following(Training):
    """The training of a process that is not the worker."""

    def __init__(self, run: Run, team: Team) -> None:
        super().__init__(run, Unseen(run, run.status, None), lambda: False, team)

    def train(self) -> None:
        assert self.team is not None
        self.team.wait_for(LOADED)  # what the worker decodes is in a cache then, and its folder does not change
        self.attempt.look()
        self._make_experiment()
        with contextlib.closing(self.experiment.events()) as events:
            for _ in events:
                pass

    def _choose_teacher(self) -> Found | None:
        """The worker's choice: another run may have saved the teacher since."""
        assert self.team is not None
        return as_heard(self.team.wait_for(LOADED), self.config, self.run.path.parent)

    def _find_room(self, loaded: Any) -> None:
        """The worker has looked."""

    def _threads_changed(self, threads: int, load: float) -> None:
        """The worker's count is shown."""


def follow(run: Run, team: Team, parent: int | None = None) -> int:
    """Train until the worker says that the run is over; this process ends then, wherever it is. Returns its exit status
    if it fails.

    parent: the worker, if it has started this process.
    """
    log.setLevel(logging.ERROR)  # the worker says everything else
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the worker gets them too, and stops after a step
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_worker, args=(team, parent), daemon=True).start()
    try:
        if not (run.path / "config.json").is_file():
            raise RunError(f"There is no folder '{run.path}' here. All machines must see the same folder of runs.")
        Following(run, team).train()
    except BaseException as error:
        if not isinstance(error, UserError):  # perhaps because another one has failed, which says why, or has stopped
            time.sleep(CAUSE / 2)
        log.exception("Process %d failed", team.place.rank)
        with contextlib.suppress(RuntimeError):
            team.say_failed(error_sentence(error))
        return 1
    threading.Event().wait()
    return 0


def _leave_with_worker(team: Team, parent: int | None) -> None:
    while True:
        time.sleep(POLL)
        if parent is not None and os.getppid() != parent:
            os._exit(1)
        try:
            if not team.store.check([OVER]):
                continue
            team.store.set(f"{GONE}{team.place.rank}", "")
        except Exception:  # whoever had the store is gone
            os._exit(1)
        os._exit(0)


def follow_torchrun(place: Place) -> int:
    """`follow` the worker among the processes that torchrun has started."""
    team = Team(place, environment_store(), by_torchrun=True)
    return follow(Run(Path(team.wait_for(RUN))), team)


def main() -> int:
    run_dir, folder, rank, count, worker = sys.argv[1:]
    place = Place(int(rank), int(count), int(rank), int(count))
    return follow(Run(Path(run_dir)), Team(place, file_store(Path(folder), place.world)), int(worker))


if __name__ == "__main__":
    sys.exit(main())
