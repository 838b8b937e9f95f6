"""What status.json of a run folder holds: the states of a run, and how far it has come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

QUEUED, RUNNING, STOPPING = "queued", "running", "stopping"
STOPPED, FINISHED, FAILED, LOST = "stopped", "finished", "failed", "lost"
LIVE = (QUEUED, RUNNING, STOPPING)
LOADING = "loading"  # the stage before the first


@dataclass
class Status:
    """What status.json holds. Times are seconds since 1970; progress is 0..1 over the whole run.

    created: when it was requested; queued: when this attempt was, if it is not the first. spent: seconds of training
    by earlier attempts that this one continues. would_repeat: it failed, and would fail again in the same way.
    diverged: learner -> a sentence on how its numbers became NaN or infinite, while others continued.
    eta_seconds, eta_range: what is left, as expected, and the range in which that is expected to lie.
    gpu: the name of the GPU that it computes on, with its memory and what this run holds of it, in bytes, and its
    utilisation in percent where that is known; threads: how many compute, on a processor (machine.py).
    waiting: what it waits for besides the runs of its own folder, as a sentence. cautions: what makes its result worth
    little, as sentences. slot: where on this machine it trains, names of Slots with commas; "" while it waits. yields:
    it waits for a teacher that another run trains, and later runs may train before it. fine_tunes: whether its teacher
    begins with somebody's weights. doubt: why the state may be another one by now, as a sentence; it is told by the
    run's launcher, and in no file. copy_error: why there is no copy of it elsewhere (copies.py), as a sentence.
    """

    state: str = QUEUED
    created: float = 0.0
    queued: float | None = None
    attempt: int = 1
    spent: float = 0.0
    started: float | None = None
    ended: float | None = None
    pid: int | None = None
    pid_started: float | None = None
    stage: str = ""
    stage_progress: float = 0.0
    progress: float = 0.0
    eta_seconds: float | None = None
    eta_range: tuple[float, float] | None = None
    images_per_second: float | None = None
    device: str = ""
    gpu: str = ""
    gpu_memory: int | None = None
    gpu_memory_used: int | None = None
    gpu_utilisation: int | None = None
    threads: int | None = None
    error: str | None = None
    would_repeat: bool = False
    waiting: str = ""
    diverged: dict[str, str] = field(default_factory=dict)
    cautions: list[str] = field(default_factory=list)
    fine_tunes: bool = False
    slot: str = ""
    yields: bool = False
    doubt: str = ""
    copy_error: str = ""

    @property
    def resumable(self) -> bool:
        """Whether it makes sense to resume it."""
        return self.state in (STOPPED, FAILED, LOST) and not self.would_repeat

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def seconds(self) -> float | None:
        """How long it has been running, or ran, all attempts together."""
        return None if self.started is None else self.spent + (self.ended or time.time()) - self.started
