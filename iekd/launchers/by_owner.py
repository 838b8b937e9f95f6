"""One launcher out of several: new runs are trained by one of them, and each earlier run stays with its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from iekd.config.run import RunConfig
from iekd.errors import RunError, UserError
from iekd.launchers.base import GRACE, SAVING, FolderLauncher, Launcher
from iekd.runs.owner import LOCAL
from iekd.runs.status import Status
from iekd.runs.store import Store

log = logging.getLogger(__name__)


class ByOwner:
    """A Launcher. `new` starts the new runs; whatever is asked about a run is asked of the launcher that owns it."""

    def __init__(self, new: Launcher, others: Mapping[str, Launcher], offered: Launcher | None = None) -> None:
        """others: by name, over the same store as `new`. offered: what people may choose on a page."""
        self.new, self._launchers, self.offered = new, {**others, new.name: new}, offered

    def as_choice(self, owner: Launcher) -> ByOwner:
        """New runs are trained on this machine, and what was `new` becomes a choice: whoever chooses it pays for it.

        owner: the same launcher without the options of `new`, for runs that were started with options of their own.
        """
        return ByOwner(self._launchers[LOCAL], {**self._launchers, owner.name: owner}, self.new)

    @property
    def name(self) -> str:
        return self.new.name

    @property
    def here(self) -> bool:
        return self.new.here

    @property
    def store(self) -> Store:
        return self.new.store

    def stop_starting_if(self, stop: Callable[[], bool]) -> None:
        """Ask this before something starts that took long to prepare."""
        if isinstance(self.new, FolderLauncher):
            self.new.stopping = stop

    def owner(self, run_id: str) -> Launcher:
        """The launcher of a run.

        Raises:
            RunError: there is no such run, or its launcher is not known here.
        """
        name = self.store.get(run_id).owner
        if name not in self._launchers:
            raise RunError(
                f"The run '{run_id}' was started by the launcher '{name}', which is not known here. "
                "Use the program that started it."
            )
        return self._launchers[name]

    def submit(self, config: RunConfig, key: str | None = None, visitor: str = "") -> str:
        return self.new.submit(config, key, visitor)

    def width(self, config: RunConfig) -> int:
        return self.new.width(config)

    def resume(self, run_id: str) -> None:
        self.owner(run_id).resume(run_id)

    def alive(self, run_id: str) -> bool:
        return self.owner(run_id).alive(run_id)

    def doubt(self, run_id: str) -> str:
        return self.owner(run_id).doubt(run_id)

    def ahead_of(self, run_id: str) -> Sequence[str]:
        return self.owner(run_id).ahead_of(run_id)

    def status(self, run_id: str) -> Status:
        return self.store.get(run_id).status

    def move_to_front(self, run_id: str) -> None:
        self.owner(run_id).move_to_front(run_id)

    def request_stop(self, run_id: str) -> None:
        self.owner(run_id).request_stop(run_id)

    def stop_and_wait(self, run_id: str, grace: float = GRACE, saving: float = SAVING) -> Status:
        return self.owner(run_id).stop_and_wait(run_id, grace, saving)

    def end_stuck(self, grace: float = GRACE, saving: float = SAVING) -> None:
        for launcher in self._launchers.values():
            try:
                launcher.end_stuck(grace, saving)
            except UserError as error:  # such as a Hub that cannot be reached; the others' workers are looked after
                log.warning("action=end-stuck launcher=%s %s", launcher.name, error)

    def give_up(self, run_id: str) -> None:
        self.owner(run_id).give_up(run_id)

    def logs(self, run_id: str, offset: int = 0) -> tuple[str, int]:
        return self._launchers.get(self.store.get(run_id).owner, self.new).logs(run_id, offset)

    def list(self) -> Sequence[str]:
        return self.new.list()
