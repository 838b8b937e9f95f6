"""`iekd train` and `iekd table`: training in front of the terminal, and what is printed before and after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from iekd.cli.common import (
    INTERRUPTED,
    RUNS,
    AsJson,
    CpuSlots,
    Detach,
    RunsDir,
    err,
    out,
    print_json,
    say,
    say_unused,
    share_cpu,
    table_of,
)
from iekd.cli.jobs import asks_money, say_offer
from iekd.cli.options import run_options
from iekd.cli.where import HERE, Where, where_options
from iekd.config.run import RunConfig
from iekd.errors import UserError, as_text
from iekd.plural import counted
from iekd.runs.owner import LOCAL

if TYPE_CHECKING:
    from iekd.data.base import DatasetInfo
    from iekd.launchers.base import Launcher
    from iekd.results.table import Cell
    from iekd.runs.prepare import Prepared
    from iekd.runs.store import Run, Store


@run_options
@where_options
def train(
    config: RunConfig,
    devices: Annotated[
        str,
        typer.Option(help="Spread the seeds over several devices: auto, or numbers of GPUs such as 0,1. A run each, "
                          "with the same teacher; their results are shown as one."),
    ] = "",
    cpu_slots: CpuSlots = 0,
    where: Where = HERE,
    detach: Detach = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train students side by side; without options, the run that the page starts with."""
    from iekd.runs.prepare import prepare

    share_cpu(cpu_slots)
    launcher = where.launcher(runs_dir)
    store, here = launcher.store, launcher.name == LOCAL
    if devices and not here:
        raise UserError("Option --devices is for the GPUs of this machine. Leave it out, or train a table of seeds.")
    prepared = prepare(config, store.root, here)
    config = prepared.config
    say_unused(config)
    if devices:
        train_spread(prepared, devices, launcher, detach, as_json)
        return
    if asks_money(launcher.name):
        say_before(prepared)
        say_offer(prepared, launcher.new, where.yes or as_json)
    else:
        say_estimate(prepared, store)
    if not here and not asks_money(launcher.name):
        say_notes([f"The estimate is for this machine; the run is trained by the launcher '{launcher.name}'."])
    if detach:
        run_id = launcher.submit(config)
        say(as_json, f"Run {run_id} trains in the background.", {"run": run_id, "state": "queued"})
        return
    if not here:
        follow(lambda: store.get(launcher.submit(config)), launcher, as_json)
        return
    run, handle = store.create(config)
    train_here(run, handle)
    say_how_it_ended(run, as_json)


def follow(start: Callable[[], Run], launcher: Launcher, as_json: bool) -> None:
    """Start a run that another place trains, show how far it is until it is over, and say how it ended."""
    (run,) = train_at_once([start], [launcher.name], launcher)
    if run is None:  # Ctrl-C came first
        raise typer.Exit(INTERRUPTED)
    say_how_it_ended(run, as_json)


def train_spread(prepared: Prepared, devices: str, launcher: Launcher, detach: bool, as_json: bool) -> None:
    """Train one run per device, each with a block of the seeds, and say how they ended."""
    from iekd.runs.side_by_side import jobs_of, spread

    parts = spread(prepared.config, devices)
    say_estimate(replace(prepared, config=parts[0]), launcher.store)
    jobs, titles = jobs_of(parts, launcher), [f"seeds {', '.join(map(str, part.seeds))}" for part in parts]
    if detach:
        ids = [job().id for job in jobs]
        named = " and ".join(f"{run} ({title})" for run, title in zip(ids, titles, strict=True))
        said = f"{counted(len(ids), 'run')} in the background: {named}."
        say(as_json, said, {"run": ids[0], "runs": ids, "state": "queued"})
        return
    runs = [run for run in train_at_once(jobs, titles, launcher) if run is not None]
    say_how_they_ended(runs, launcher.store, as_json)


def train_at_once(jobs: Sequence[Callable[[], Run]], titles: Sequence[str], launcher: Launcher) -> list[Run | None]:
    """Train the runs of all jobs at the same time, with a bar for each."""
    from iekd.cli.progress import Board
    from iekd.runs.side_by_side import train_all
    from iekd.runs.worker import stop_on_signals

    with Board(err, titles) as board:
        return train_all(jobs, launcher, len(jobs), stop_on_signals(), board.update)


def say_how_they_ended(runs: list[Run], store: Store, as_json: bool) -> None:
    """`say_how_it_ended` for runs whose seeds belong together: the results of all, if all of them have one."""
    from iekd.runs.siblings import family_of
    from iekd.runs.store import FINISHED

    unfinished = [run for run in runs if run.status.state != FINISHED]
    for run in unfinished[1:]:
        state, why = run.status.state, run.status.error
        err.print(f"Run {run.id} is {state}{f': {escape(why)}' if why else '.'}", highlight=False, soft_wrap=True)
    if unfinished or not runs:
        say_how_it_ended(unfinished[0] if unfinished else runs[0], as_json)
        return
    family = family_of(store, runs[0])
    for sentence in family.sentences():
        err.print(escape(sentence), highlight=False, soft_wrap=True)
    say_results(runs[0], family.report, as_json, [run.id for run in runs])


@partial(run_options, without=("teacher", "student"))
@where_options
def table(
    config: RunConfig,
    pairs: Annotated[str, typer.Option(help="Pairs as teacher:student, with commas.")] = "resnet20:resnet8",
    together: Annotated[
        bool, typer.Option("--together", help="All seeds of a pair in one run: faster, but resumes in larger steps.")
    ] = False,
    out_dir: Annotated[
        Optional[Path], typer.Option("--out", help="Folder for the table; unset: its own folder below the runs.")
    ] = None,
    cpu_slots: CpuSlots = 0,
    where: Where = HERE,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Pairs x methods x seeds as one table, in Markdown, CSV and LaTeX; run it again to continue where it stopped.

    On a machine with several GPUs it trains a run on each at the same time; in a cluster, as many as there is room for.
    """
    from iekd.results.table import to_json
    from iekd.runs import grid
    from iekd.runs.grid import make_folder, write_table
    from iekd.runs.prepare import prepare, resolve
    from iekd.runs.store import FAILED

    share_cpu(cpu_slots)
    launcher = where.launcher(runs_dir)
    store, wanted, config = launcher.store, grid.parse_pairs(pairs), resolve(config)
    # all of them first: errors are shown before anything is trained
    prepared = [prepare(cell, store.root, launcher.name == LOCAL) for cell in grid.cells(wanted, config, together)]
    configs = [cell.config for cell in prepared]
    say_unused(configs[0])
    say_dataset(prepared[0].info)  # the same in all cells
    say_notes(said for cell in prepared for said in cell.sentences())
    say_warnings(caution for cell in prepared for caution in cell.cautions())
    if out_dir is not None:
        make_folder(out_dir)
    if asks_money(launcher.name):
        say_offer(prepared[0], launcher.new, where.yes or as_json, len(configs))
    done = _train_grid(configs, launcher)
    missing = len(configs) - sum(cell.report is not None for cell in done)
    folder = out_dir or grid.default_folder(wanted, config, store.root)
    files = write_table(done, config, folder) if missing < len(configs) else {}
    failed = [cell for cell in done if cell.state == FAILED]
    for cell in failed:
        err.print(
            f"[bold red]Run {cell.run} failed:[/] {escape(str(store.get(cell.run).status.error))}", soft_wrap=True
        )
    if as_json:
        print_json({**to_json(done), "files": files, "missing": missing})
    else:
        if files:
            out.print(escape(files["md"].read_text("utf-8")), highlight=False, soft_wrap=True)
            out.print(f"Table: {escape(str(folder))}", highlight=False, soft_wrap=True)
        if missing:
            gone = f"{missing} of {counted(len(configs), 'run')} {'is' if missing == 1 else 'are'} missing"
            out.print(f"{gone}. Run the same command again to continue.")
    if failed:
        raise typer.Exit(1)
    if missing:
        raise typer.Exit(INTERRUPTED)


def _train_grid(configs: Sequence[RunConfig], launcher: Launcher) -> list[Cell]:
    """In this process, one after the other; or as many at a time as there are GPUs, or the cluster has room for."""
    from iekd.cli.progress import Board
    from iekd.runs import grid
    from iekd.runs.worker import stop_on_signals

    width = launcher.width(configs[0])
    if width > 1 or launcher.name != LOCAL:
        titles = [f"{c.teacher} -> {c.student}, seed {', '.join(map(str, c.seeds))}" for c in configs]
        with Board(err, titles) as board:
            return grid.run_grid_at_once(configs, launcher, width, stop_on_signals(), board.update)
    stopped: list[Callable[[], bool]] = []

    def train_one(run: Any, handle: int | None) -> None:
        stopped[:] = [train_here(run, handle)]

    return grid.run_grid(configs, launcher.store, train_one, lambda: bool(stopped) and stopped[0]())


def train_here(run: Any, handle: int | None) -> Callable[[], bool]:
    """Train a run, whose lock the descriptor holds, in this process with a bar; tells whether it was asked to stop."""
    from iekd.cli.progress import Display
    from iekd.runs.worker import execute, stop_on_signals

    stop = stop_on_signals(run)
    try:
        with Display(err, run.id) as display:
            execute(run, stop, display.update)
    finally:
        if handle is not None:
            os.close(handle)
    return stop


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
    from iekd.ui.render.words import time_range

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

    found = propose(prepared.info, device_name(prepared.config.device) == "cuda")
    if found is not None and not found.followed_by(prepared.config):
        err.print(f"Suggestion: {found.command()}. {escape(found.why)}", highlight=False, soft_wrap=True)


def say_how_it_ended(run: Any, as_json: bool) -> None:
    """The results of a run that is over, or why there are none; exit status 1 if it failed, 130 if it was stopped."""
    from iekd.runs.store import FAILED

    status = run.status
    if status.state == FAILED:
        err.print(f"[bold red]The run failed:[/] {escape(str(status.error))}", highlight=False, soft_wrap=True)
    say_results(run, run.report, as_json)


def say_results(run: Run, report: dict[str, Any] | None, as_json: bool, runs: Sequence[str] = ()) -> None:
    """A report, or that there is none yet, and how the run ended, by the exit status too.

    runs: the ids of all that the report is about, if they are several.
    """
    from iekd.results.report import summary
    from iekd.runs.store import FAILED, STOPPED

    status = run.status
    if report and not as_json and status.state != FAILED:
        print_results(report)
    if not as_json and runs:
        out.print(f"Runs {' and '.join(runs)} are {status.state}.", highlight=False, soft_wrap=True)
    elif not as_json:
        out.print(f"Run [bold]{run.id}[/] is {status.state}: {escape(str(run.path))}", highlight=False, soft_wrap=True)
        if status.state == STOPPED:
            out.print(f"'iekd runs resume {run.id}' continues it.", highlight=False, soft_wrap=True)
    else:
        nothing: dict[str, Any] = {
            "run": run.id, "path": str(run.path), "state": status.state, "seconds": status.seconds, "teacher": None,
            "learners": [], "diverged": status.diverged, "dataset": run.config.dataset, "device": status.device,
            "error": status.error,
        }  # fmt: skip
        print_json({**(summary(report) if report else nothing), **({"runs": list(runs)} if runs else {})})
    if status.state == FAILED:
        raise typer.Exit(1)
    if status.state == STOPPED:
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
        add(f"teacher {teacher['model']}", "", teacher, teacher["accuracy"], "cyan")
    best = max(learner["accuracy_last"] for learner in report["learners"])
    for r in report["learners"]:
        style = "bold green" if r["accuracy_last"] == best and len(report["learners"]) > 1 else ""
        add(r["method"], str(r["seed"]), r, r["accuracy_last"], style)
    return table
