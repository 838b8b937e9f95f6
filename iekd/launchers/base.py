"""What the page, the endpoints and the commands need of any place that can train runs, and what such places share.

`Launcher` is the contract. `FolderLauncher` fulfils it where workers write to the run's folder themselves, and leaves
to a subclass how a worker is started, found alive, told to hurry and killed. docs/adding-a-launcher.md shows how.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from iekd.config.run import RunConfig
from iekd.errors import RunError, UserError
from iekd.runs.files import read_json, write_json
from iekd.runs.owner import LOCAL, Owner, record, set_owner
from iekd.runs.status import FAILED, LOST, STOPPED, STOPPING, Status
from iekd.runs.store import Run, Store, released

log = logging.getLogger(__name__)
GRACE = 30.0  # seconds that a worker has to see a request to stop
SAVING = 300.0  # seconds that one which has seen it has to save its students
COPYING = 1800.0  # seconds that one which is over has to copy its run elsewhere (copies.py)
KILLING = 60.0  # seconds until a killed worker must be gone


class Launcher(Owner, Protocol):
    """Starts, stops and lists the runs of one store. Every method may be called from any thread.

    What each implementation promises:

    - One key, one run: `submit` with the same key returns the same run's id, however many clicks or processes ask.
    - A run looks alive from the moment that its id exists until its worker has ended.
    - Every attempt of a run ends in exactly one final state: finished, stopped or failed, written by the worker; or
      lost, which every reader derives when the worker is gone without one.
    - Nothing depends on the server: when it dies its runs continue, and another launcher of the same name over the same
      store finds, shows and stops them.
    - What cannot be done is a UserError that says why.
    """

    @property
    def name(self) -> str:
        """Recorded in the folder of each of its runs; it never changes."""
        ...

    @property
    def here(self) -> bool:
        """Whether its runs are trained on this machine, whose devices they need and whose speed tells how long they
        take."""
        ...

    @property
    def store(self) -> Store:
        """Where its runs are."""
        ...

    def submit(self, config: RunConfig, key: str | None = None, visitor: str = "") -> str:
        """Create a run and have it trained when its turn comes; returns the run's id.

        Args:
            key: submitting again with the same key starts nothing.
            visitor: who asks for it, stored in the run's folder.
        Raises:
            RunError: the folder of runs cannot be written, or the worker cannot be started; there is no run then.
        """
        ...

    def resume(self, run_id: str) -> None:
        """Train another attempt of a run that was stopped, failed or was lost, from its last checkpoint.

        It may have been another launcher's; it is this one's now.
        Raises:
            RunError: it is not over, there is nothing left to do, or the worker cannot be started.
        """
        ...

    def width(self, config: RunConfig) -> int:
        """How many runs of that configuration it can train at the same time, at least 1.

        Raises:
            RunError: it cannot be asked.
        """
        ...

    def status(self, run_id: str) -> Status:
        """Raises RunError if there is no such run; so do all methods below."""
        ...

    def move_to_front(self, run_id: str) -> None:
        """Let a queued run be the next to train.

        Raises:
            RunError: it is not queued, or this launcher's queue cannot be reordered.
        """
        ...

    def request_stop(self, run_id: str) -> None:
        """Ask a run to stop and return: it finishes its step, saves its students and ends as `stopped`.

        Raises:
            RunError: it is over already, or another launcher's.
        """
        ...

    def stop_and_wait(self, run_id: str, grace: float = GRACE, saving: float = SAVING) -> Status:
        """`request_stop`, then wait for the end; returns the final status.

        Args:
            grace: seconds after which a worker that has not seen the request is killed.
            saving: the same for one that has seen it and saves its students.
        Raises:
            RunError: as `request_stop`.
        """
        ...

    def end_stuck(self, grace: float = GRACE, saving: float = SAVING) -> None:
        """Kill each worker that should have ended since `request_stop`; the server calls it every few seconds."""
        ...

    def give_up(self, run_id: str) -> None:
        """Let a run be lost whose state cannot be known because the place that trains it is gone for good.

        Raises:
            RunError: its state is known.
        """
        ...

    def logs(self, run_id: str, offset: int = 0) -> tuple[str, int]:
        """(text of the log after byte `offset`, next offset)."""
        ...

    def list(self) -> Sequence[str]:
        """Ids of all runs of the store, newest first, whoever started them."""
        ...


class FolderLauncher(ABC):
    """A launcher whose workers write to the run's folder themselves, on a file system that all of them share.

    A subclass sets `name` and says how to `start`, find `alive` and `kill` a worker. It may say how to `hurry` one,
    what is `ahead_of` it, when it is in `doubt` about one, how to `disown` one, and how many it trains at a time
    (`width`).
    """

    name: str
    here = False
    stopping: Callable[[], bool] = staticmethod(lambda: False)  # asked before something that was long prepared starts

    def __init__(self, store: Store) -> None:
        self.store = store
        store.owners[self.name] = self

    @abstractmethod
    def start(self, run: Run, handle: int) -> None:
        """Start a process that executes `python -m iekd.runs.worker RUN_DIR`, and return without waiting for it.

        handle: the descriptor of the run's lock, which is held until this returns.
        """

    @abstractmethod
    def alive(self, run_id: str) -> bool: ...

    @abstractmethod
    def kill(self, run: Run) -> bool:
        """End the worker and its children at once; False if there is none."""

    def hurry(self, run: Run) -> None:
        """Tell the worker that there is a request to stop. It reads the folder between two steps, so it need not be."""
        return

    def ahead_of(self, run_id: str) -> Sequence[str]:
        return []

    def doubt(self, run_id: str) -> str:
        return ""

    def width(self, config: RunConfig) -> int:
        return 1

    def disown(self, run: Run) -> None:
        """Have nothing more to do with a run whose worker cannot be asked; should it live, it must write no more."""
        set_owner(run.path, LOCAL)

    def move_to_front(self, run_id: str) -> None:
        self._own(run_id)
        raise RunError(f"The run '{run_id}' cannot be moved: the launcher '{self.name}' has a queue of its own.")

    def submit(self, config: RunConfig, key: str | None = None, visitor: str = "") -> str:
        run, handle = self.store.create(config, key, visitor, self.name)
        if handle is not None:
            try:
                self._hand_over(run, handle)
            except BaseException:
                set_owner(run.path, LOCAL)  # there is no worker, whatever the launcher would say
                self.store.delete(run.id)
                raise
        return run.id

    def resume(self, run_id: str) -> None:
        run = self.store.get(run_id)
        before = record(run.path)
        handle = run.reopen(self.name)
        try:
            self._hand_over(run, handle)
        except BaseException as error:
            set_owner(run.path, **(before or {"name": LOCAL}))  # whoever resumes it later finds what was noted
            status = run.status
            status.state, status.ended, status.error = FAILED, time.time(), f"The worker could not be started: {error}"
            run.write_status(status)
            run.event(FAILED, error=status.error)
            raise

    def _hand_over(self, run: Run, handle: int) -> None:
        with released(handle):
            self.start(run, handle)

    def status(self, run_id: str) -> Status:
        return self.store.get(run_id).status

    def request_stop(self, run_id: str) -> None:
        run = self._own(run_id)
        status = run.status
        if not status.live:
            raise RunError(f"The run '{run.id}' is {status.state} already; there is nothing to stop.")
        write_json(run.path / "control.json", {"request": "stop", "time": time.time()})
        run.event("stop requested")
        self.hurry(run)

    def stop_and_wait(self, run_id: str, grace: float = GRACE, saving: float = SAVING) -> Status:
        self.request_stop(run_id)
        run, began = self.store.get(run_id), time.monotonic()
        while run.alive():
            if time.monotonic() - began > _patience(run, grace, saving):
                return self._end(run, grace)
            time.sleep(0.1)
        return run.status

    def end_stuck(self, grace: float = GRACE, saving: float = SAVING) -> None:
        for control in self.store.root.glob("[!.]*/control.json"):
            asked, run = read_json(control) or {}, Run(control.parent, self.store.owners)
            if asked.get("request") != "stop" or run.owner != self.name or not run.alive():
                continue
            patience = _patience(run, grace, saving)
            if time.time() - asked.get("time", 0) > patience:
                try:
                    self._end(run, patience)
                except UserError as error:  # such as a token that is gone; it keeps no other from being ended
                    log.warning("action=end-stuck run=%s %s", run.id, error)

    def give_up(self, run_id: str) -> None:
        run = self._own(run_id)
        status = run.status
        if not status.live:
            raise RunError(f"The run '{run.id}' is {status.state} already; there is nothing to give up.")
        if not status.doubt:
            raise RunError(f"The run '{run.id}' is {status.state}, and its launcher answers. Stop it instead.")
        self.disown(run)
        run.event("given up", why=status.doubt)

    def _end(self, run: Run, grace: float) -> Status:
        """Kill a worker; a final state that it had written stays."""
        if self.kill(run):
            deadline = time.monotonic() + KILLING
            while run.alive() and time.monotonic() < deadline:
                time.sleep(0.05)
            status = run.status
            if status.state == LOST:
                status.state, status.ended = STOPPED, time.time()
                status.error = f"It did not stop by itself within {grace:.0f} s and was ended."
                run.write_status(status)
                run.event("killed")
        return run.status

    def logs(self, run_id: str, offset: int = 0) -> tuple[str, int]:
        path = self.store.get(run_id).path / "log.txt"
        if not path.exists():  # its worker has not begun
            return "", offset
        with open(path, "rb") as file:
            file.seek(offset)
            text = file.read()
        return text.decode(errors="replace"), offset + len(text)

    def list(self) -> Sequence[str]:
        return [run.id for run in self.store.list()]

    def _own(self, run_id: str) -> Run:
        """The run; raises RunError if it is another launcher's."""
        run = self.store.get(run_id)
        if run.owner != self.name:
            raise RunError(
                f"The run '{run_id}' was started by the launcher '{run.owner}', and this is '{self.name}'. "
                "Use the launcher that started it."
            )
        return run


def _patience(run: Run, grace: float, saving: float) -> float:
    """Seconds after a request to stop until its worker is killed."""
    status = run.status
    if not status.live:
        return COPYING
    return saving if status.state == STOPPING else grace
