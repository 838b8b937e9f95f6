"""Writes status.json while a run waits and trains: its stage, how far it is, how fast, and when it will end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Optional

from iekd.config.run import STAGES
from iekd.estimate.cost import Plan
from iekd.runs.store import Run, Status

log = logging.getLogger("iekd")
Watcher = Callable[[Status, Optional[dict[str, Any]]], None]
STATUS_EVERY = 0.5  # seconds between writes


class StatusWriter:
    """The status of a run in memory and on disk; changes of `status` are written by `write`.

    watch: called with the status, and each new row of metrics, for whoever sits in front of it.
    """

    def __init__(self, run: Run, status: Status, watch: Watcher | None) -> None:
        self.run, self.status, self.watch = run, status, watch
        self.written = 0.0
        self.progress_before: float | None = None  # what earlier attempts have done of it

    def write(self, row: dict[str, Any] | None = None, force: bool = False) -> None:
        """Show the status, and now and then, or with `force`, write it."""
        now = time.monotonic()
        if force or now - self.written > STATUS_EVERY:
            self.run.write_status(self.status)
            self.written = now
        if self.watch:
            self.watch(self.status, row)

    def wait(self, reason: str) -> None:
        """Say what the run waits for, where a person would look."""
        log.info("%s", reason)
        self.status.waiting = reason
        self.write(force=True)

    def begin(self, plan: Plan, images_per_step: int, resumed: bool) -> None:
        """Training begins. plan: what each stage costs. resumed: an earlier attempt has done a part of it."""
        self.plan, self.images_per_step, self.resumed = plan, images_per_step, resumed
        self.began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since `begin`."""
        return time.monotonic() - self.began

    def start_stage(self, stage: str, steps: int, done: int) -> None:
        """A stage of so many steps begins; `done` of them were done by earlier attempts."""
        self.status.stage, self.stage_steps, self.stage_done = stage, steps, done
        self.status.stage_progress = done / steps if steps else 1.0
        self._add_up()
        self.status.images_per_second = None
        self.stage_began = time.monotonic()
        before = f", {done} of which were done before" if done else ""
        log.info("Stage: %s%s%s.", stage, f", {steps} steps" if steps else "", before)
        self.run.event("stage", stage=stage)
        self.write(force=True)

    def advance(self, row: Any) -> None:
        """Progress after an engine Metrics or EvaluationProgress; learners in lock-step are equally far."""
        status = self.status
        if row.kind == "train":
            images = (row.step - self.stage_done) * self.images_per_step
            status.images_per_second = images / max(1e-3, time.monotonic() - self.stage_began)
        status.stage_progress = max(status.stage_progress, min(1.0, row.step / max(1, self.stage_steps)))
        self._add_up()
        if self.progress_before is None:
            self.progress_before = status.progress if self.resumed else 0.0
        gained = status.progress - self.progress_before
        if gained > 0.02:
            status.eta_seconds = self.elapsed * (1 - status.progress) / gained

    def _add_up(self) -> None:
        """Progress over the run, to which a stage contributes what it costs."""
        cost, stage = self.plan.macs, self.status.stage
        before = sum(cost[earlier] for earlier in STAGES[: STAGES.index(stage)])
        self.status.progress = (before + cost[stage] * self.status.stage_progress) / self.plan.total
