"""How many threads compute on the CPU: the cores that this process may use, minus those that other processes use.

Threads that share one operation wait for each other at its end. One that the system does not schedule delays all, so on
a busy machine fewer threads are faster. `Threads` checks again every few seconds while training.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Literal, Optional, Union

import psutil
import torch

from iekd.data.control_groups import cores, cpus_here, lines_of

log = logging.getLogger(__name__)

EVERY = 2.0  # seconds between two checks
FIRST_LOOK = 0.2  # seconds that the check before the first step takes
FEWER, MORE = 0.4, 0.75  # cores that must be missing, or free, before the number changes: else it would oscillate
PATIENCE = 2  # checks in a row that must find free cores before threads are added

Told = Callable[[int, float], None]  # threads from now on, cores that other processes use
LoadAtHand = Callable[[], Optional[float]]  # cores that other processes used since the last call; None if unknown


def processor() -> str:
    """The processor's name, where the system tells it."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Load:
    """Each call returns how many of our cores other processes used since the last call; None if that is unknown.

    Background work with a lower priority (`nice`) than ours is not counted: the system gives us its cores at once. Time
    that the host of a virtual machine gave to others is counted.
    """

    def __init__(
        self, stat: Path = Path("/proc/stat"), cpus: set[int] | None = None,
        own: Callable[[], float] | None = None, clock: Callable[[], float] = time.monotonic, nice: int | None = None,
    ) -> None:  # fmt: skip
        """own: seconds of CPU time of this process and its children so far. nice: our own priority."""
        self.stat, self.clock, self.own = stat, clock, own or own_seconds
        self.cpus = cpus_here() if cpus is None else cpus
        self.nice = os.nice(0) if nice is None else nice
        self.before = self._sample()

    def __call__(self) -> float | None:
        before, now = self.before, self._sample()
        self.before = now
        if before is None or now is None or now[0] <= before[0]:
            return None
        used = (now[1] - before[1]) / (now[0] - before[0])
        return min(max(used, 0.0), float(len(self.cpus)))

    def _sample(self) -> tuple[float, float] | None:
        """(time, seconds of all others on our cores so far)."""
        names, ticks, found = {f"cpu{n}" for n in self.cpus}, 0, False
        for line in lines_of(self.stat):
            name, *numbers = line.split()
            if name in names:
                user, niced, system, _, _, irq, softirq, stolen = map(int, numbers[:8])
                ticks += user + system + irq + softirq + stolen + (niced if self.nice > 0 else 0)
                found = True
        return (self.clock(), ticks / os.sysconf("SC_CLK_TCK") - self.own()) if found else None


def own_seconds() -> float:
    """CPU time so far of this process and all below it."""
    me, total = psutil.Process(), 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])  # with that of children that have ended
    return total


class Threads:
    """The number of threads that compute, in all: fixed, or following the load.

    A thread that computes calls `use` between two steps: OpenMP keeps the number per calling thread.
    """

    def __init__(
        self, asked: Union[int, Literal["auto"]] = "auto", *, tell: Told | None = None, load: LoadAtHand | None = None,
        before: int | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """tell: called after each change. before: the number that an earlier attempt used last, to start with."""
        self.tell, self.clock, self.load = tell, clock, load
        self.fixed = asked != "auto"
        if asked != "auto":
            self.at_a_time = self.most = self.count = asked
            return
        # torch's own number knows of OMP_NUM_THREADS, of hyper-threads, and of whoever has set it before
        self.at_a_time, self.most = cores(), min(cores(), torch.get_num_threads())
        self.count, self.room = min(before or self.most, self.most), 0
        self.next_look = 0.0

    @contextlib.contextmanager
    def used(self) -> Generator[None, None, None]:
        """Within, this thread computes with that many; the load is measured for a moment before the first step."""
        restored = torch.get_num_threads()
        if not self.fixed and self.most > 1:
            self.load = self.load or Load()
            self.next_look = self.clock() + FIRST_LOOK
            time.sleep(FIRST_LOOK)
            self.look()
        try:
            self.use()
            yield
        finally:
            torch.set_num_threads(restored)

    def use(self, among: int = 1) -> None:
        """Let the calling thread, one of `among` that compute, take its share of the threads from now on."""
        share = max(1, self.count // among)
        if torch.get_num_threads() != share:
            torch.set_num_threads(share)

    def look(self) -> None:
        """Check whether the load has changed, every few seconds; call it between steps, from one thread at a time."""
        if self.fixed or self.load is None or self.clock() < self.next_look:
            return
        self.next_look = self.clock() + EVERY
        load = self.load()
        if load is None:
            return
        # others' load is on the whole machine; a cgroup's quota may leave us fewer cores than are idle
        free = min(float(self.most), len(cpus_here()) - load)
        self.room = self.room + 1 if free > self.count + MORE else 0
        if free < self.count - FEWER:
            self._change(max(1, int(free + FEWER)), load)
        elif self.room >= PATIENCE:
            self._change(min(self.most, int(free + 1 - MORE)), load)

    def _change(self, count: int, load: float) -> None:
        if count == self.count:
            return
        before, self.count, self.room = self.count, count, 0
        log.info(
            "Other processes use %.1f of %d cores: %d thread(s) compute from now on, before it was %d.",
            load, len(cpus_here()), count, before,
        )  # fmt: skip
        if self.tell:
            self.tell(count, load)
