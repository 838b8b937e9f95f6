"""The command line's view of a run in progress: a bar, and a line per epoch.

Training continues when its output can no longer be seen: the terminal was closed, or the reader of a pipe has ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from iekd.runs.status import LOADING, QUEUED, Status
from iekd.runs.status_writer import in_words
from iekd.runs.store import Run
from iekd.times import time_range


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"), console=console, transient=True,
    )  # fmt: skip


def _stage(status: Status) -> str:
    stage = status.stage if status.state == "running" and status.stage else status.state
    stage = in_words(stage, status)
    if status.state == QUEUED and status.waiting:
        return f"{stage}: {status.waiting.rstrip('.')}"
    if stage == LOADING and 0 < status.stage_progress < 1:
        return f"reading images, {status.stage_progress:.0%}"
    return stage


def _left(status: Status) -> str:
    return f"{time_range(*status.eta_range)} left" if status.eta_range else ""


class Display:
    """`update` is what runs.worker.execute calls; everything goes to `console`, standard error as a rule."""

    def __init__(self, console: Console, run_id: str) -> None:
        self.console, self.run_id, self.seen = console, run_id, True
        self.bar = _bars(console)
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
        described = f"{_stage(status)}{speed}"
        self.bar.update(self.task, completed=status.progress, description=described, left=_left(status))
        if row and row["kind"] == "test":
            accuracy = row["values"]["accuracy"]
            self.bar.print(
                f"epoch {row['epoch']:.0f}  {row['learner']:<18} test accuracy {accuracy:.2f} %", highlight=False
            )


class Board:
    """Several runs in progress, a bar each, and a line when one of them is over."""

    def __init__(self, console: Console, titles: Sequence[str]) -> None:
        """titles: what to call the runs that `update` names by their number."""
        self.console, self.titles, self.seen = console, titles, True
        self.bars, self.tasks = _bars(console), dict[int, tuple[Run, TaskID]]()
        self.doubts: dict[int, str] = {}

    def __enter__(self) -> Board:
        with contextlib.suppress(OSError):
            runs = "all runs" if len(self.titles) > 1 else "the run"
            self.console.print(f"Ctrl-C stops {runs} and saves what has been learned.", highlight=False)
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.bars.stop()

    def update(self, runs: Mapping[int, Run]) -> None:
        """runs: all that train or wait."""
        if not self.seen:
            return
        try:
            for number, run in runs.items():
                if number not in self.tasks:
                    self.tasks[number] = run, self.bars.add_task("", total=1.0, left="")
                status = run.status
                self.bars.update(
                    self.tasks[number][1], completed=status.progress, left=_left(status),
                    description=f"{escape(self.titles[number])}: {_stage(status)}",
                )  # fmt: skip
                if status.doubt != self.doubts.get(number, ""):
                    self.doubts[number] = status.doubt
                    news = status.doubt or "there is news of it again."
                    self.bars.print(f"Run {run.id} ({escape(self.titles[number])}): {escape(news)}", highlight=False)
            for number in [number for number in self.tasks if number not in runs]:
                run, task = self.tasks.pop(number)
                self.bars.remove_task(task)
                self.bars.print(f"Run {run.id} ({escape(self.titles[number])}) is {run.status.state}.", highlight=False)
        except (OSError, SystemExit):  # as for a Display
            self.seen = False
