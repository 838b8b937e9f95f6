"""Writes status.json while a run waits and trains: its stage, how far it is, how fast, and when it will end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Optional

from iekd.estimate.progress import HELD_OUT, TRAINING, Progress
from iekd.plural import counted
from iekd.runs.machine import Machine
from iekd.runs.status import Status
from iekd.runs.store import Run

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
        self.machine: Machine | None = None  # known when training begins

    def write(self, row: dict[str, Any] | None = None, force: bool = False) -> None:
        """Show the status, and now and then, or with `force`, write it."""
        now = time.monotonic()
        if force or now - self.written > STATUS_EVERY:
            if self.machine:
                self.machine.note(self.status)
            self.run.write_status(self.status)
            self.written = now
        if self.watch:
            self.watch(self.status, row)

    def wait(self, reason: str) -> None:
        """Say what the run waits for, where a person would look."""
        log.info("%s", reason)
        self.status.waiting = reason
        self.write(force=True)

    def begin(self, progress: Progress, images_per_step: int, machine: Machine | None = None) -> None:
        """Training begins."""
        self.machine = machine
        self.progress, self.images_per_step = progress, images_per_step
        self.began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since `begin`."""
        return time.monotonic() - self.began

    def start_stage(self, stage: Any) -> None:
        """A stage begins, an engine StageStart; earlier attempts may have done a part of it."""
        self.stage, self.predicted = stage, stage.predicted
        self.status.stage, self.status.images_per_second = stage.stage, None
        trained = stage.done / stage.steps if stage.steps else 1.0
        predicted = stage.predicted / stage.predictions if stage.predictions else 1.0
        self.status.stage_progress = trained if stage.steps else predicted
        self.progress.start(stage.stage, trained, predicted)
        self._note_progress()
        self.stage_began = time.monotonic()
        before = f", {stage.done} of which {'was' if stage.done == 1 else 'were'} done before" if stage.done else ""
        log.info(
            "Stage: %s%s%s.",
            in_words(stage.stage, self.status),
            f", {counted(stage.steps, 'step')}" if stage.steps else "",
            before,
        )
        self.run.event("stage", stage=stage.stage)
        self.write(force=True)

    def advance(self, event: Any) -> None:
        """Progress after an engine Metrics, Stepped or Predicted; learners in lock-step are equally far."""
        stage, images = self.stage, getattr(event, "images", None)
        if images is not None:  # Predicted
            self.predicted += images
            done = min(1.0, self.predicted / stage.predictions)
            self.progress.update(stage.stage, HELD_OUT, done)
        elif getattr(event, "kind", "train") == "train":
            trained = (event.step - stage.done) * self.images_per_step
            self.status.images_per_second = trained / max(1e-3, time.monotonic() - self.stage_began)
            done = min(1.0, event.step / stage.steps)
            self.progress.update(stage.stage, TRAINING, done)
        else:  # a row about held-out images, all of which were counted
            return
        if (images is None) == bool(stage.steps):
            self.status.stage_progress = max(self.status.stage_progress, done)
        self._note_progress()

    def _note_progress(self) -> None:
        left = self.progress.remaining()
        self.status.progress = self.progress.value
        self.status.eta_seconds, self.status.eta_range = left.seconds, (left.low, left.high)


def in_words(stage: str, status: Status) -> str:
    """A stage's name for people who follow a run."""
    return "fine-tune the teacher on these classes" if stage == "teacher" and status.fine_tunes else stage
