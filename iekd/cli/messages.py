"""What training prints on a terminal: its images, time and settings before, and its results afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from iekd.cli.common import INTERRUPTED, err, out, print_json, table_of
from iekd.errors import as_text
from iekd.models.hub_configs import without_commit
from iekd.plural import counted

if TYPE_CHECKING:
    from iekd.data.base import DatasetInfo
    from iekd.runs.prepare import Prepared
    from iekd.runs.store import Run, Store


def say_dataset(info: DatasetInfo) -> None:
    """On standard error: the classes, and what may not be expected of the images."""
    from iekd.results.dataset_words import class_lines

    for line in class_lines(info):
        err.print(f"  class {escape(line)}", highlight=False, soft_wrap=True)
    say_notes(info.notes)


def say_notes(notes: Iterable[str]) -> None:
    """On standard error, each once."""
    for note in dict.fromkeys(notes):
        err.print(f"[yellow]Note:[/] {escape(note)}", highlight=False, soft_wrap=True)


def say_warnings(warnings: Iterable[object]) -> None:
    """On standard error, each once."""
    for warning in dict.fromkeys(map(str, warnings)):
        err.print(f"[yellow]Warning:[/] {escape(warning)}", highlight=False, soft_wrap=True)


def say_estimate(prepared: Prepared, store: Store) -> None:
    """On standard error: the classes, about how much time and memory the run will take, and what to be warned of."""
    from iekd.runs.estimate import estimate
    from iekd.times import time_range

    say_before(prepared)
    found = estimate(prepared.config, store, prepared.teacher is not None, prepared.info)
    text = f"Estimate: {time_range(found.low, found.high)}, {found.memory} of memory ({found.basis})."
    err.print(text, highlight=False, soft_wrap=True)
    say_warnings(found.warnings(prepared))


def say_before(prepared: Prepared) -> None:
    """On standard error: the classes, what the settings do not say, and what would suit the pictures better."""
    say_dataset(prepared.info)
    say_notes(prepared.sentences())
    say_proposal(prepared)


def say_proposal(prepared: Prepared) -> None:
    """On standard error, a line: what would suit these pictures, where the run has something else."""
    from iekd.estimate.proposal import propose
    from iekd.runs.slots import device_name

    found = propose(prepared.info, device_name(prepared.config.device) == "cuda", prepared.config)
    if found is not None and not found.followed_by(prepared.config):
        err.print(f"Suggestion: {found.command()}. {escape(found.why)}", highlight=False, soft_wrap=True)


def say_how_it_ended(run: Any, as_json: bool) -> None:
    """The results of a run that is over, or why there are none; exit status 1 if it failed, 130 if it was stopped."""
    from iekd.runs.status import FAILED, LOST, STOPPED

    status = run.status
    if status.state == FAILED:
        err.print(f"[bold red]The run failed:[/] {escape(str(status.error))}", highlight=False, soft_wrap=True)
    elif status.error and status.state in (STOPPED, LOST):
        err.print(f"[yellow]The run is {status.state}:[/] {escape(status.error)}", highlight=False, soft_wrap=True)
    say_warnings(filter(None, [status.copy_error]))
    say_results(run, run.report, as_json)


def say_results(run: Run, report: dict[str, Any] | None, as_json: bool, runs: Sequence[str] = ()) -> None:
    """A report, or that there is none yet, and how the run ended, by the exit status too.

    runs: the ids of all that the report is about, if they are several.
    """
    from iekd.results.report import summary
    from iekd.runs.status import FAILED, LOST, STOPPED

    status = run.status
    if report and not as_json and status.state != FAILED:
        print_results(report)
    if not as_json and runs:
        out.print(f"Runs {' and '.join(runs)} are {status.state}.", highlight=False, soft_wrap=True)
    elif not as_json:
        out.print(f"Run [bold]{run.id}[/] is {status.state}: {escape(str(run.path))}", highlight=False, soft_wrap=True)
        if status.resumable and status.state != FAILED:
            out.print(f"'iekd runs resume {run.id}' continues it.", highlight=False, soft_wrap=True)
    else:
        nothing: dict[str, Any] = {
            "run": run.id, "path": str(run.path), "state": status.state, "seconds": status.seconds, "teacher": None,
            "learners": [], "diverged": status.diverged, "dataset": run.config.dataset, "device": status.device,
            "error": status.error,
        }  # fmt: skip
        print_json({**(summary(report) if report else nothing), **({"runs": list(runs)} if runs else {})})
    if status.state in (FAILED, LOST):
        raise typer.Exit(1)
    if status.state == STOPPED or status.live:  # the place that trains it did not answer when it should stop
        raise typer.Exit(INTERRUPTED)


def print_results(report: dict[str, Any]) -> None:
    """The table at the end of a run, its verdict, what is wrong with the images, and which students diverged."""
    from iekd.results.report import skipped_words, verdict

    out.print(results_table(report))
    if said := verdict(report):
        out.print(escape(said), highlight=False, soft_wrap=True)
    if skipped := skipped_words(report):
        out.print(f"[yellow]Note:[/] {skipped}; report.md names them.", highlight=False, soft_wrap=True)
    for note in report.get("data_notes", []):  # said before training too, but that is many lines ago
        out.print(f"[yellow]Note:[/] {escape(as_text(str(note)))}", highlight=False, soft_wrap=True)
    for message in report.get("diverged", {}).values():
        out.print(f"[yellow]{escape(message)}[/]", highlight=False, soft_wrap=True)


def results_table(report: dict[str, Any]) -> Table:
    """The coloured table at the end of a run."""
    from iekd.results.report import is_imbalanced

    tested, extra = counted(report["test_images"], "test image"), is_imbalanced(report)
    title = f"{report['dataset']}: accuracy on {tested}"
    columns = ["network", "seed", "parameters", "accuracy", *["balanced accuracy"] * extra]
    table = table_of(*columns, title=title, numbers=True)

    def add(name: str, seed: str, of: dict[str, Any], accuracy: float, style: str) -> None:
        balanced = [f"{of['balanced_accuracy']:.2f} %"] if extra else []
        table.add_row(name, seed, f"{of['params']:,}", f"{accuracy:.2f} %", *balanced, style=style)

    if teacher := report["teacher"]:
        add(f"teacher {without_commit(teacher['model'])}", "", teacher, teacher["accuracy"], "cyan")
    best = max(learner["accuracy_last"] for learner in report["learners"])
    for r in report["learners"]:
        style = "bold green" if r["accuracy_last"] == best and len(report["learners"]) > 1 else ""
        add(r["method"], str(r["seed"]), r, r["accuracy_last"], style)
    return table
