"""The command line's view of a run in progress: a bar, and a line per epoch.

Training continues when its output can no longer be seen: the terminal was closed, or the reader of a pipe has ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from iekd.runs.status_writer import in_words
from iekd.runs.store import LOADING, Status
from iekd.ui.render.words import time_range


class Display:
    """`update` is what runs.worker.execute calls; everything goes to `console`, standard error as a rule."""

    def __init__(self, console: Console, run_id: str) -> None:
        self.console, self.run_id, self.seen = console, run_id, True
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=console, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("starting", total=1.0, left="")

    def __enter__(self) -> Display:
        with self._while_seen():
            self.console.print(f"Run {self.run_id} (Ctrl-C stops it and saves what has been learned)", highlight=False)
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._while_seen():
            self.bar.stop()

    def update(self, status: Status, row: dict[str, Any] | None) -> None:
        if self.seen:
            with self._while_seen():
                self._show(status, row)

    @contextlib.contextmanager
    def _while_seen(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SystemExit):  # rich exits the process if a pipe is broken
            self.seen = False

    def _show(self, status: Status, row: dict[str, Any] | None) -> None:
        speed = f" {status.images_per_second:,.0f} images/s" if status.images_per_second else ""
        stage = status.stage if status.state == "running" and status.stage else status.state
        stage = in_words(stage, status)
        if stage == LOADING and 0 < status.stage_progress < 1:
            stage = f"reading images, {status.stage_progress:.0%}"
        left = f"{time_range(*status.eta_range)} left" if status.eta_range else ""
        self.bar.update(self.task, completed=status.progress, description=f"{stage}{speed}", left=left)
        if row and row["kind"] == "test":
            accuracy = row["values"]["accuracy"]
            self.bar.print(
                f"epoch {row['epoch']:.0f}  {row['learner']:<18} test accuracy {accuracy:.2f} %", highlight=False
            )
