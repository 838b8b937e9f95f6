"""`iekd runs list | show | compare | add-seeds | stop | resume | first | card | export | import | delete`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape

from iekd.cli.common import (
    RUNS,
    AsJson,
    Detach,
    Nproc,
    RunsDir,
    err,
    launcher_for,
    out,
    print_json,
    say,
    says_why,
    table_of,
)
from iekd.cli.jobs import asks_money, say_offer
from iekd.cli.messages import print_results, say_how_it_ended
from iekd.cli.train import check_here, follow, torchrun_place, train_here
from iekd.cli.where import HERE, Where, where_options
from iekd.config.run import NO_TEACHER
from iekd.data import short_name
from iekd.errors import RunError
from iekd.runs.owner import LOCAL

if TYPE_CHECKING:
    from iekd.launchers.base import Launcher
    from iekd.runs.store import Run

app = typer.Typer(
    no_args_is_help=True, help="List, show, compare, stop, resume, export, import and delete runs; draw cards."
)
RunId = Annotated[str, typer.Argument(metavar="ID")]


@app.command("list")
@says_why
def runs_list(runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Every run with its state, newest first."""
    runs = launcher_for(runs_dir).store.list()
    if as_json:
        print_json({"runs": [overview(run) for run in runs]})
        return
    if not runs:
        out.print(f"No runs in '{escape(str(runs_dir))}' yet. 'iekd train' makes one.")
        return
    table = table_of("run", "state", "dataset", "networks", "methods and their accuracy (%)")
    for run in runs:
        row = overview(run)
        taught = row["methods"] and row["teacher"] != NO_TEACHER
        networks = f"{row['teacher']} -> {row['student']}" if taught else row["student"]
        results = _means(row["learners"]) or row["methods"]
        results += [f"{name} diverged" for name in row["diverged"]]
        name = f"{row['run']}\n{row['name']}" if row["name"] else row["run"]
        state = " ".join(filter(None, [row["state"], row["waiting"], row["doubt"]]))
        dataset = short_name(row["dataset"])  # `show` has the whole path
        table.add_row(*map(escape, (name, state, dataset, networks, ", ".join(results))))
    out.print(table)


def _means(learners: list[dict[str, Any]]) -> list[str]:
    """Each method with its accuracy, or the mean and standard deviation of its seeds."""
    from iekd.results.report import spread, summaries

    found = summaries({"learners": learners})
    return [f"{s.method} {spread(s.mean, s.sd)}{f' ({s.n} seeds)' if s.n > 1 else ''}" for s in found]


@app.command("show")
@says_why
def runs_show(run_id: RunId, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """One run: configuration, state, results and the end of its log."""
    from iekd.runs.siblings import family_of, to_json

    store = launcher_for(runs_dir).store
    run = store.get(run_id)
    status, report, family = run.status, run.report, family_of(store, run)
    if as_json:
        print_json(
            {
                **overview(run),
                "family": to_json(run, family),
                "status": status.__dict__,
                "config": run.config.model_dump(mode="json"),
                "report": report,
            }
        )
        return
    out.print(f"[bold]{run.id}[/] {status.state} {status.stage} {status.progress:.0%}", highlight=False)
    if status.doubt:
        out.print(f"[yellow]{escape(status.doubt)}[/]", soft_wrap=True)
    if status.error:
        out.print(f"[red]{escape(status.error)}[/]", soft_wrap=True)
    if status.copy_error:
        out.print(f"[yellow]{escape(status.copy_error)}[/]", soft_wrap=True)
    out.print(escape(run.config.command_line()), highlight=False, soft_wrap=True)
    if report:
        print_results(family.report or report)
    for said in family.sentences():
        out.print(escape(said), highlight=False, soft_wrap=True)
    out.print(escape(run.log_tail()), highlight=False, soft_wrap=True)


@app.command("compare")
@says_why
def runs_compare(
    run_ids: Annotated[list[str], typer.Argument(metavar="ID ID...", help="Two to eight runs.", show_default=False)],
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Runs side by side: accuracies, gains with intervals, and the settings that differ."""
    from iekd.runs.compare import compare_runs, to_json

    found = to_json(compare_runs(launcher_for(runs_dir).store, run_ids))
    if as_json:
        print_json(found)
        return
    table = table_of("run", "state", "teacher", "baseline", "best taught", "gain over the baseline")
    for row in found["runs"]:
        name = f"{row['run']}\n{row['name']}" if row["name"] else row["run"]
        numbers = [_percent(row["teacher_accuracy"]), _percent(row["plain_accuracy"])]
        taught = f"{_percent(row['accuracy'])} {row['method']}"
        table.add_row(*map(escape, (name, row["state"], *numbers, taught, _gain(row))))
    out.print(table)
    for row in found["runs"]:
        if row["too_weak"]:
            out.print(escape(f"{row['run']} is too weak to judge. {row['too_weak']}"), highlight=False, soft_wrap=True)
    if not found["settings"]:
        out.print("All settings are the same.")
        return
    differing = table_of("setting that differs", *(row["run"] for row in found["runs"]))
    for setting in found["settings"]:
        differing.add_row(setting["name"], *map(escape, map(_value, setting["values"])))
    out.print(differing)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _gain(row: dict[str, Any]) -> str:
    """+2.0 (+1.6 to +2.5 over 3 seeds)."""
    if row["gain"] is None:
        return ""
    low_high = row["interval"]
    over = f"{row['seeds']} seeds" if row["interval_over"] == "seeds" else row["interval_over"]
    return f"{row['gain']:+.2f}" + (f" ({low_high[0]:+.2f} to {low_high[1]:+.2f} over {over})" if low_high else "")


def _value(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


@app.command("add-seeds")
@says_why
def runs_add_seeds(
    run_id: RunId,
    seeds: Annotated[int, typer.Option("--seeds", help="How many; the next unused numbers are taken.")] = 2,
    detach: Detach = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Train more seeds of a finished run with its settings and its teacher; 'show' and the page count all together."""
    from iekd.results.report import verdict
    from iekd.runs.prepare import prepare
    from iekd.runs.siblings import family_of, growing, key_of, more_seeds, note_extension

    launcher = launcher_for(runs_dir)
    store = launcher.store
    run = store.get(run_id)
    if other := growing(store, run):
        raise RunError(f"The run '{other.id}' is adding seeds to this one. Wait until it has ended.")
    config = prepare(more_seeds(store, run, seeds), store.root, launcher.here).config
    named = ", ".join(map(str, config.seeds))
    if detach:
        started = launcher.submit(config, key_of(run, config))
        note_extension(store.get(started), run)
        value = {"run": started, "extends": run.id, "seeds": list(config.seeds), "state": "queued"}
        say(as_json, f"Run {started} trains seeds {named} in the background.", value)
        return
    made, handle = store.create(config)
    note_extension(made, run)
    train_here(made, handle)
    say_how_it_ended(made, as_json)
    family = family_of(store, made)
    if family.report and not as_json:
        out.print(f"All seeds together: {escape(verdict(family.report))}", highlight=False, soft_wrap=True)
        for said in family.sentences():
            out.print(escape(said), highlight=False, soft_wrap=True)


@app.command("stop")
@says_why
def runs_stop(
    run_id: RunId,
    gone: Annotated[
        bool, typer.Option("--gone", help="The place that trained it is gone for good: let the run be lost, so that it "
                                          "can be resumed elsewhere.")
    ] = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Stop a run after its current step; what its students have learned so far is saved."""
    launcher = launcher_for(runs_dir)
    if gone:
        launcher.give_up(run_id)
        status = launcher.status(run_id)
    else:
        status = launcher.stop_and_wait(run_id)
    if status.doubt:
        raise RunError(
            f"The run '{run_id}' has been asked to stop, and has not done so yet. {status.doubt} If what trains it is "
            f"gone for good, 'iekd runs stop --gone {run_id}' lets it be resumed elsewhere."
        )
    say(as_json, f"Run {run_id} is {status.state}.", {"run": run_id, "state": status.state})


@app.command("resume")
@says_why
@where_options
def runs_resume(
    run_id: RunId,
    where: Where = HERE,
    nproc: Nproc = None,
    detach: Detach = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Resume a stopped, failed or lost run from its last checkpoint.

    It continues where it trained before unless --launcher is given; --nproc may change.
    """
    from iekd.runs import processes
    from iekd.runs.prepare import prepare

    processes.share_run(nproc)
    place = torchrun_place(detach)
    by_owner = where.launcher(runs_dir)
    launcher: Launcher = by_owner.new if where.name else by_owner  # with a name, the run is that one's from now on
    run = launcher.store.get(run_id)
    here = (where.name or run.owner) == LOCAL
    if here:
        processes.check_processes(run.config, place.world if place else processes.nproc(), place)
    else:
        check_here(nproc, place)
    if asks_money(where.name or run.owner):
        paid = by_owner.new if where.name else by_owner.owner(run_id)
        say_offer(prepare(run.config, launcher.store.root, False), paid, where.yes, resumed=run)
    if detach:
        launcher.resume(run_id)
        say(as_json, f"Run {run_id} continues in the background.", {"run": run_id, "state": "queued"})
        return
    if not here:

        def resume() -> Run:
            launcher.resume(run_id)
            return run

        follow(resume, by_owner, as_json)
        return
    train_here(run, run.reopen(), place)
    say_how_it_ended(run, as_json)


@app.command("first")
@says_why
def runs_first(run_id: RunId, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Move a queued run to the front of the queue."""
    launcher_for(runs_dir).move_to_front(run_id)
    say(as_json, f"Run {run_id} moved to the front of the queue.", {"run": run_id})


@app.command("card")
@says_why
def runs_card(
    run_id: RunId,
    target: Annotated[
        Optional[Path], typer.Option("--out", help="The PNG to write; unset: ID-card.png in this folder.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Draw the result of a finished run as an image to share, 1200 x 630 pixels; prints its alt text too."""
    from iekd.runs.card import card_of, notes, png_of
    from iekd.runs.siblings import family_of

    store, path = launcher_for(runs_dir).store, target or Path(f"{run_id}-card.png")
    run = store.get(run_id)
    card = card_of(run, family_of(store, run).report)
    content, alt_text = png_of(card), card.alt_text()
    try:
        with open(path, "xb") as file:
            file.write(content)
    except FileExistsError:
        raise RunError(f"'{path}' is there already. Choose another name with --out.") from None
    except OSError as error:
        raise RunError(f"'{path}' cannot be written ({error.strerror}). Choose another path with --out.") from None
    for note in notes(card):
        err.print(escape(note), highlight=False, soft_wrap=True)
    value = {"run": run_id, "file": str(path), "alt_text": alt_text, "notes": notes(card)}
    say(as_json, f"The card is in '{path}'. Alt text: {alt_text}", value)


@app.command("export")
@says_why
def runs_export(
    run_id: RunId,
    target: Annotated[
        Optional[Path], typer.Option("--out", help="The file to write; unset: ID.zip in this folder.")
    ] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints/--no-checkpoints", help="With them it can be resumed elsewhere.")
    ] = True,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Write a run that is over to one zip file: configuration, metrics, results, log, models, checkpoints."""
    from iekd.runs.transfer import export_run

    path = target or Path(f"{run_id}.zip")
    export_run(launcher_for(runs_dir).store.get(run_id), path, checkpoints)
    size = path.stat().st_size
    say(
        as_json,
        f"Run {run_id} is in '{path}' ({size / 1e6:.1f} MB).",
        {"run": run_id, "file": str(path), "bytes": size},
    )


@app.command("import")
@says_why
def runs_import(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="What 'iekd runs export' or --copy-to wrote, or its address.")
    ],
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Add an exported run to the folder of runs; its id stays the same, and it can be resumed."""
    from iekd.runs.copies import fetched
    from iekd.runs.transfer import import_run

    with fetched(source) as file:
        run = import_run(launcher_for(runs_dir).store, file)
    say(as_json, f"Run {run.id} is {run.status.state}.", {"run": run.id, "state": run.status.state})


@app.command("delete")
@says_why
def runs_delete(
    run_id: RunId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Delete a run that is over: its folder with models, metrics and log. At a terminal it asks first."""
    store = launcher_for(runs_dir).store
    run = store.get(run_id)
    if sys.stdin.isatty() and not (yes or as_json):
        typer.confirm(
            f"Delete {run.path} with its models, curves and log? This cannot be undone.", abort=True, err=True
        )
    store.delete(run_id)
    say(as_json, f"Run {run_id} is deleted.", {"run": run_id, "deleted": True})


def overview(run: Any) -> dict[str, Any]:
    """What `list` and `show` print of a run as JSON; a damaged run is in it too, with empty fields."""
    from iekd.results.report import summary
    from iekd.runs.notes import name_of

    try:
        config = run.config
    except RunError:  # shown, so that it can be deleted
        return {
            "run": run.id, "name": "", "path": str(run.path), "state": "damaged", "seconds": None, "dataset": "",
            "teacher": "", "student": "", "methods": [], "seeds": [], "learners": [], "diverged": {},
            "waiting": "", "doubt": "",
        }  # fmt: skip
    status, report = run.status, run.report
    learners = summary(report)["learners"] if report else []
    return {
        "run": run.id, "name": name_of(run, config), "path": str(run.path), "state": status.state,
        "seconds": status.seconds, "dataset": config.dataset, "teacher": config.teacher, "student": config.student,
        "methods": list(config.methods), "seeds": list(config.seeds), "learners": learners,
        "diverged": status.diverged, "waiting": status.waiting,
        "doubt": status.doubt,
    }  # fmt: skip
