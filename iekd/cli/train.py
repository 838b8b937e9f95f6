"""`iekd train` and `iekd table`: training in the foreground. What they print is in messages.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape

from iekd.cli.common import (
    INTERRUPTED,
    RUNS,
    AsJson,
    CpuSlots,
    Detach,
    Nproc,
    RunsDir,
    err,
    out,
    print_json,
    say,
    say_unused,
    share_cpu,
)
from iekd.cli.jobs import asks_money, say_offer
from iekd.cli.messages import (
    say_before,
    say_dataset,
    say_estimate,
    say_how_it_ended,
    say_notes,
    say_results,
    say_warnings,
)
from iekd.cli.options import run_options
from iekd.cli.where import HERE, Where, where_options
from iekd.config.run import RunConfig
from iekd.errors import UserError
from iekd.plural import counted
from iekd.runs.owner import LOCAL

if TYPE_CHECKING:
    from iekd.launchers.by_owner import ByOwner
    from iekd.results.table import Cell
    from iekd.runs.prepare import Prepared
    from iekd.runs.processes import Place
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
    cpu_slots: CpuSlots = None,
    where: Where = HERE,
    nproc: Nproc = None,
    detach: Detach = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train students side by side; without options, the run that the page starts with."""
    from iekd.runs import processes
    from iekd.runs.prepare import prepare

    share_cpu(cpu_slots)
    processes.share_run(nproc)
    place = torchrun_place(detach, devices)
    launcher = where.launcher(runs_dir)
    store, in_this_process = launcher.store, launcher.name == LOCAL
    if not in_this_process:
        check_here(nproc, place, devices)
    prepared = prepare(config, store.root, launcher.here)
    config = prepared.config
    if in_this_process:
        processes.check_processes(config, place.world if place else processes.nproc(), place)
    say_unused(config)
    if devices:
        train_spread(prepared, devices, launcher, detach, as_json)
        return
    if asks_money(launcher.name):
        say_before(prepared)
        say_offer(prepared, launcher.new, where.yes)
    else:
        say_estimate(prepared, store)
    if not launcher.here and not asks_money(launcher.name):
        say_notes([f"The estimate is for this machine; the run is trained by the launcher '{launcher.name}'."])
    if detach:
        run_id = launcher.submit(config)
        say(as_json, f"Run {run_id} trains in the background.", {"run": run_id, "state": "queued"})
        return
    if not in_this_process:
        follow(lambda: store.get(launcher.submit(config)), launcher, as_json)
        return
    run, handle = store.create(config)
    train_here(run, handle, place)
    say_how_it_ended(run, as_json)


def follow(start: Callable[[], Run], launcher: ByOwner, as_json: bool) -> None:
    """Start a run that another place trains, show how far it is until it is over, and say how it ended."""
    (run,) = train_at_once([start], [launcher.name], launcher)
    if run is None:  # Ctrl-C came first
        raise typer.Exit(INTERRUPTED)
    say_how_it_ended(run, as_json)


def check_here(nproc: int | None, place: Place | None, devices: str = "") -> None:
    """For a run that another place trains.

    Raises:
        UserError: an option is about this machine.
    """
    if devices:
        raise UserError("Option --devices is for the GPUs of this machine. Leave it out, or train a table of seeds.")
    if (nproc is not None and nproc > 1) or place is not None:
        raise UserError(
            "Several processes can train a run on this machine only. Leave out --nproc, torchrun or --launcher."
        )


def torchrun_place(detach: bool = False, devices: str = "") -> Place | None:
    """The place of this process, if torchrun has started several. Only the first one returns: the others train along
    and end here.

    Raises:
        UserError: something else was asked for that does not go with several processes.
    """
    from iekd.runs import processes

    place = processes.place_here()
    if place is None and (tasks := processes.tasks_of_slurm()) > 1:
        err.print(
            f"[yellow]Note:[/] srun has started {tasks} processes, and each trains a run of its own. To train one run "
            "together, let srun start torchrun, once on each machine (docs/scaling-ddp.md).",
            soft_wrap=True,
        )
    if devices and (place is not None or processes.nproc() > 1):
        raise UserError("--devices trains a run on each device, and --nproc and torchrun one on all. Choose one.")
    if place is None:
        return None
    if detach:
        raise UserError("--detach cannot be used with torchrun, which ends when its processes do. Leave it out.")
    if place.rank:
        from iekd.runs.follower import follow_torchrun

        raise typer.Exit(follow_torchrun(place))
    return place


def train_spread(prepared: Prepared, devices: str, launcher: ByOwner, detach: bool, as_json: bool) -> None:
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


def train_at_once(jobs: Sequence[Callable[[], Run]], titles: Sequence[str], launcher: ByOwner) -> list[Run | None]:
    """Train the runs of all jobs at the same time, with a bar for each."""
    from iekd.cli.progress import Board
    from iekd.runs.side_by_side import train_all
    from iekd.runs.worker import stop_on_signals

    with Board(err, titles) as board:
        stop = stop_on_signals()
        launcher.stop_starting_if(stop)
        return train_all(jobs, launcher, len(jobs), stop, board.update)


def say_how_they_ended(runs: list[Run], store: Store, as_json: bool) -> None:
    """`say_how_it_ended` for runs whose seeds belong together: the results of all, if all of them have one."""
    from iekd.runs.siblings import family_of
    from iekd.runs.status import FINISHED

    unfinished = [run for run in runs if run.status.state != FINISHED]
    for run in unfinished[1:]:
        state, why = run.status.state, run.status.error
        err.print(f"Run {run.id} is {state}{f': {escape(why)}' if why else '.'}", highlight=False, soft_wrap=True)
    if unfinished or not runs:
        say_how_it_ended(unfinished[0] if unfinished else runs[0], as_json)
        return
    say_warnings(filter(None, (run.status.copy_error for run in runs)))
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
    cpu_slots: CpuSlots = None,
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
    from iekd.runs.processes import place_here
    from iekd.runs.status import FAILED

    share_cpu(cpu_slots)
    if place_here() is not None:
        raise UserError("iekd table cannot be started by torchrun: it trains many runs. Use iekd train there.")
    launcher = where.launcher(runs_dir)
    store, wanted, config = launcher.store, grid.parse_pairs(pairs), resolve(config, launcher.store.root)
    # all of them first: errors are shown before anything is trained
    prepared = [prepare(cell, store.root, launcher.here) for cell in grid.cells(wanted, config, together)]
    configs = [cell.config for cell in prepared]
    say_unused(configs[0])
    say_dataset(prepared[0].info)  # the same in all cells
    say_notes(said for cell in prepared for said in cell.sentences())
    say_warnings(caution for cell in prepared for caution in cell.cautions())
    if out_dir is not None:
        make_folder(out_dir)
    left = [cell for cell in prepared if grid.finished_run(cell.config, store) is None]
    if left and asks_money(launcher.name):
        _say_offers(left, launcher, where.yes)
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
    say_warnings(why for cell in done if cell.run and (why := store.get(cell.run).status.copy_error))
    if failed:
        raise typer.Exit(1)
    if missing:
        raise typer.Exit(INTERRUPTED)


def _say_offers(left: Sequence[Prepared], launcher: ByOwner, yes: bool) -> None:
    """The price of the new cells together, and of each that is resumed, whose machine and time are those that it was
    started with. One that another command has started and that still trains is paid for already."""
    from iekd.runs import grid

    cells = [(cell, grid.earlier_run(cell.config, launcher.store)) for cell in left]
    new = [cell for cell, earlier in cells if earlier is None or earlier.owner != launcher.name]
    if new:
        say_offer(new[0], launcher.new, yes, len(new))
    for cell, earlier in cells:
        if earlier is not None and earlier.owner == launcher.name and not earlier.status.live:
            say_offer(cell, launcher.new, yes, resumed=earlier)


def _train_grid(configs: Sequence[RunConfig], launcher: ByOwner) -> list[Cell]:
    """In this process, one after the other; or as many at a time as there are GPUs, or the cluster has room for."""
    from iekd.cli.progress import Board
    from iekd.runs import grid
    from iekd.runs.worker import stop_on_signals

    width = launcher.width(configs[0])
    trains_elsewhere = any(grid.live_run(config, launcher.store) for config in configs)
    if width > 1 or launcher.name != LOCAL or trains_elsewhere:
        titles = [f"{c.teacher} -> {c.student}, seed {', '.join(map(str, c.seeds))}" for c in configs]
        with Board(err, titles) as board:  # interrupted cells continue where new ones are trained
            stop = stop_on_signals()
            launcher.stop_starting_if(stop)
            return grid.run_grid_at_once(configs, launcher.new, width, stop, board.update, launcher)
    stopped: list[Callable[[], bool]] = []

    def train_one(run: Any, handle: int | None) -> None:
        stopped[:] = [train_here(run, handle)]

    return grid.run_grid(configs, launcher.store, train_one, lambda: bool(stopped) and stopped[0]())


def train_here(run: Any, handle: int | None, place: Place | None = None) -> Callable[[], bool]:
    """Train a run, whose lock the descriptor holds, in this process with a bar; tells whether it was asked to stop.

    place: see `worker.execute`.
    """
    from iekd.cli.progress import Display
    from iekd.runs.worker import execute, stop_on_signals

    stop = stop_on_signals(run)
    try:
        with Display(err, run.id) as display:
            execute(run, stop, display.update, place)
    finally:
        if handle is not None:
            os.close(handle)
    return stop
