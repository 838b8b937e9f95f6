"""The command line: `iekd train | table | runs | eval | bench | compare | models | datasets | serve`.

Exit status: 0 done, 1 the run failed, 2 bad arguments. Errors are one sentence on standard error. With --json the last
line of standard output is one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iekd.cli_bench import bench
from iekd.cli_eval import evaluate
from iekd.cli_options import run_options
from iekd.config import RunConfig
from iekd.errors import UserError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.split("\n")[0]
)
runs_app = typer.Typer(no_args_is_help=True, help="List, show, stop and delete runs.")
app.add_typer(runs_app, name="runs")
out, err = Console(), Console(stderr=True)

RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="IEKD_RUNS_DIR", help="Folder that holds the runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
RUNS = Path("runs")


def says_why(command: Callable[..., Any]) -> Callable[..., Any]:
    """A UserError becomes its sentence and exit status 2."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            err.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None

    return wrapped


@app.command()
@says_why
@run_options
def train(config: RunConfig, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Train students side by side; without options, the run that the page starts with."""
    from iekd.runs.report import summary
    from iekd.runs.store import FAILED, Store

    run, _ = _train_here(config, Store(runs_dir))
    status, report = run.status, run.report
    if status.state == FAILED:
        err.print(f"[bold red]The run failed:[/] {escape(str(status.error))}", highlight=False, soft_wrap=True)
    elif report:
        out.print(results_table(report)) if not as_json else None
    if not as_json:
        out.print(f"Run [bold]{run.id}[/] is {status.state}: {escape(str(run.path))}", highlight=False, soft_wrap=True)
    else:
        nothing: dict[str, Any] = {
            "run": run.id, "path": str(run.path), "state": status.state, "seconds": status.seconds, "teacher": None,
            "learners": [], "dataset": config.dataset, "device": status.device, "error": status.error,
        }  # fmt: skip
        _print_json(summary(report) if report else nothing)
    if status.state == FAILED:
        raise typer.Exit(1)


def _train_here(config: RunConfig, store: Any) -> tuple[Any, Callable[[], bool]]:
    """Train in this process with a bar; the run, and whether it was asked to stop."""
    from iekd.progress import Display
    from iekd.runs.worker import execute, stop_on_signals
    from iekd.teachers import check_teacher

    check_teacher(config, store.root)
    run, handle = store.create(config)
    stop = stop_on_signals(run)
    try:
        with Display(err, run.id) as display:
            execute(run, stop, display.update)
    finally:
        if handle is not None:
            os.close(handle)
    return run, stop


@app.command()
@says_why
@partial(run_options, without=("teacher", "student"))
def table(
    config: RunConfig,
    pairs: Annotated[str, typer.Option(help="Pairs as teacher:student, with commas.")] = "resnet20:resnet8",
    together: Annotated[
        bool, typer.Option("--together", help="All seeds of a pair in one run: faster, but it resumes less finely.")
    ] = False,
    out_dir: Annotated[
        Optional[Path], typer.Option("--out", help="Folder for the table; unset: a place of its own under the runs.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Pairs x methods x seeds as one table, in Markdown, CSV and LaTeX; run it again to go on where it stopped."""
    from iekd import table as grid
    from iekd.runs.store import FAILED, Store
    from iekd.teachers import check_teacher

    store, wanted = Store(runs_dir), grid.parse_pairs(pairs)
    configs = grid.cells(wanted, config, together)
    for each in configs:  # what cannot be trained is said before anything is
        check_teacher(each, store.root)
    if out_dir is not None:
        grid.make_folder(out_dir)
    stopped: list[Callable[[], bool]] = []

    def train_one(cell: RunConfig) -> Any:
        run, stop = _train_here(cell, store)
        stopped[:] = [stop]
        return run

    done = grid.run_grid(configs, store, train_one, lambda: bool(stopped) and stopped[0]())
    missing = len(configs) - sum(cell.report is not None for cell in done)
    folder = out_dir or grid.default_folder(wanted, config, store.root)
    files = grid.write_table(done, config, folder) if missing < len(configs) else {}
    failed = [cell for cell in done if cell.state == FAILED]
    for cell in failed:
        err.print(
            f"[bold red]Run {cell.run} failed:[/] {escape(str(store.get(cell.run).status.error))}", soft_wrap=True
        )
    if as_json:
        _print_json({**grid.to_json(done), "files": files, "missing": missing})
    else:
        if files:
            out.print(escape(files["md"].read_text()), highlight=False, soft_wrap=True)
            out.print(f"Table: {escape(str(folder))}", highlight=False, soft_wrap=True)
        if missing:
            out.print(f"{missing} of {len(configs)} runs are missing. Run the same command again to go on.")
    if failed:
        raise typer.Exit(1)


def results_table(report: dict[str, Any]) -> Table:
    """The coloured table at the end of a run."""
    from iekd.runs.report import verdict

    table = Table(
        title=f"{report['dataset']}: accuracy on {report['test_images']:,} test images", caption=verdict(report)
    )
    for column in ("network", "seed", "parameters", "last epoch", "best epoch"):
        table.add_column(column, justify="left" if column == "network" else "right")
    if teacher := report["teacher"]:
        table.add_row(
            f"teacher {teacher['model']}",
            "",
            f"{teacher['params']:,}",
            f"{teacher['accuracy']:.2f} %",
            "",
            style="cyan",
        )
    best = max(learner["accuracy_last"] for learner in report["learners"])
    for r in report["learners"]:
        style = "bold green" if r["accuracy_last"] == best and len(report["learners"]) > 1 else ""
        last, peak = f"{r['accuracy_last']:.2f} %", f"{r['accuracy_best']:.2f} %"
        table.add_row(r["method"], str(r["seed"]), f"{r['params']:,}", last, peak, style=style)
    return table


@runs_app.command("list")
@says_why
def runs_list(runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Every run with its state, newest first."""
    from iekd.runs.store import Store

    runs = Store(runs_dir).list()
    if as_json:
        _print_json({"runs": [_overview(run) for run in runs]})
        return
    if not runs:
        out.print(f"No runs in '{escape(str(runs_dir))}' yet. 'iekd train' makes one.")
        return
    table = Table()
    table.add_column("run", no_wrap=True)  # to be copied
    for column in ("name", "state", "data set", "teacher", "student", "methods", "accuracy"):
        table.add_column(column)
    for run in runs:
        row = _overview(run)
        best = ", ".join(f"{r['method']} {r['accuracy_last']:.1f}" for r in row["learners"])
        words = [
            row["run"],
            row["name"],
            row["state"],
            row["dataset"],
            row["teacher"],
            row["student"],
            ",".join(row["methods"]),
            best,
        ]
        table.add_row(*map(escape, words))
    out.print(table)


@runs_app.command("show")
@says_why
def runs_show(
    run_id: Annotated[str, typer.Argument(metavar="ID")], runs_dir: RunsDir = RUNS, as_json: AsJson = False
) -> None:
    """One run: configuration, state, results and the end of its log."""
    from iekd.runs.store import Store

    run = Store(runs_dir).get(run_id)
    status, report = run.status, run.report
    if as_json:
        _print_json(
            {
                **_overview(run),
                "status": status.__dict__,
                "config": run.config.model_dump(mode="json"),
                "report": report,
            }
        )
        return
    out.print(f"[bold]{run.id}[/] {status.state} {status.stage} {status.progress:.0%}", highlight=False)
    if status.error:
        out.print(f"[red]{escape(status.error)}[/]", soft_wrap=True)
    out.print(escape(run.config.command_line()), highlight=False, soft_wrap=True)
    if report:
        out.print(results_table(report))
    out.print(escape(run.log_tail()), highlight=False, soft_wrap=True)


@runs_app.command("stop")
@says_why
def runs_stop(
    run_id: Annotated[str, typer.Argument(metavar="ID")], runs_dir: RunsDir = RUNS, as_json: AsJson = False
) -> None:
    """Stop a run after its current step; what its students learned so far is kept."""
    from iekd.runs.launcher import stop_and_wait
    from iekd.runs.store import Store

    status = stop_and_wait(Store(runs_dir).get(run_id))
    _say(as_json, f"Run {run_id} is {status.state}.", {"run": run_id, "state": status.state})


@runs_app.command("delete")
@says_why
def runs_delete(
    run_id: Annotated[str, typer.Argument(metavar="ID")], runs_dir: RunsDir = RUNS, as_json: AsJson = False
) -> None:
    """Delete a run that is over: its folder with models, metrics and log."""
    from iekd.runs.store import Store

    Store(runs_dir).delete(run_id)
    _say(as_json, f"Run {run_id} is deleted.", {"run": run_id, "deleted": True})


app.command("eval")(says_why(evaluate))
app.command("bench")(says_why(run_options(bench)))


@app.command("compare")
@says_why
def compare_command(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    run_id: Annotated[
        Optional[str], typer.Option("--run", help="The run whose models answer; unset: the shipped ones.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """What teacher and students say of images, side by side."""
    from iekd.compare import compare, demo_models, run_models
    from iekd.runs.store import Store

    models = run_models(Store(runs_dir).get(run_id)) if run_id else demo_models()
    results = compare(models, [(str(path), path) for path in images])
    broken = [r for r in results if r.error]
    for result in broken:
        err.print(f"[bold red]Error:[/] {escape(str(result.error))}", highlight=False, soft_wrap=True)
    if as_json:
        rows = []
        for r in results:
            said = {
                name: [{"label": label, "score": score} for label, score in p.top] for name, p in r.predictions.items()
            }
            rows.append({"path": r.name, "predictions": said, **({"error": r.error} if r.error else {})})
        _print_json({"images": rows})
    else:
        table = Table()
        table.add_column("image")
        for name in models:
            table.add_column(name)
        for r in results:
            if not r.error:
                table.add_row(escape(r.name), *(f"{escape(p.label)} {p.top[0][1]:.0%}" for p in r.predictions.values()))
        out.print(table)
    if broken:
        raise typer.Exit(2)


@app.command()
def models(as_json: AsJson = False) -> None:
    """The networks that can teach or learn, with their sizes, and the shipped checkpoints."""
    from iekd.models.catalog import models as catalog
    from iekd.teachers import shipped_models

    rows: list[dict[str, Any]] = [
        {"name": m.name, "params": m.params(3, 10), "macs": m.macs} for m in catalog().values()
    ]
    shipped: list[dict[str, Any]] = [
        {"name": name, **{k: getattr(card, k) for k in ("model", "method", "accuracy", "params", "datasets")}}
        for name, card in shipped_models().items()
    ]
    if as_json:
        _print_json({"models": rows, "checkpoints": shipped})
        return
    table = Table("model", "parameters", "million multiply-adds (32 x 32)", title="Networks (10 classes, colour)")
    for row in rows:
        table.add_row(row["name"], f"{row['params']:,}", f"{row['macs'] / 1e6:.0f}")
    out.print(table)
    if shipped:
        table = Table("checkpoint", "model", "trained by", "accuracy", "for", title="Shipped checkpoints")
        for s in shipped:
            accuracy = "" if s["accuracy"] is None else f"{s['accuracy']:.2f} %"
            table.add_row(s["name"], s["model"], s["method"], accuracy, ", ".join(s["datasets"]))
        out.print(table)


@app.command()
def datasets(as_json: AsJson = False) -> None:
    """The data sets that can be trained on."""
    from iekd.data import available

    if as_json:
        _print_json({"datasets": [d.__dict__ for d in available()]})
        return
    table = Table("data set", "training", "test", "classes", "images", "")
    for d in available():
        kind = f"{d.resolution} x {d.resolution} {'grey' if d.channels == 1 else 'colour'}"
        table.add_row(d.name, f"{d.train_images:,}", f"{d.test_images:,}", str(d.classes), kind, d.note)
    table.add_row("folder:PATH", "", "", "", "any size", "your own: PATH/train/<class>/*, PATH/test/<class>/*")
    out.print(table)


@app.command()
@says_why
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; the next free one is taken if it is busy.")] = 7860,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Open the page (the same as `python app.py`)."""
    from iekd.ui.layout import launch

    launch(host, port, runs_dir)


def _overview(run: Any) -> dict[str, Any]:
    from iekd.errors import RunError
    from iekd.runs.report import summary

    try:
        config = run.config
    except RunError:  # shown, so that it can be deleted
        return {
            "run": run.id, "name": "", "path": str(run.path), "state": "damaged", "seconds": None, "dataset": "",
            "teacher": "", "student": "", "methods": [], "seeds": [], "learners": [],
        }  # fmt: skip
    status, report = run.status, run.report
    learners = summary(report)["learners"] if report else []
    return {
        "run": run.id, "name": config.name, "path": str(run.path), "state": status.state, "seconds": status.seconds,
        "dataset": config.dataset, "teacher": config.teacher, "student": config.student,
        "methods": list(config.methods), "seeds": list(config.seeds), "learners": learners,
    }  # fmt: skip


def _say(as_json: bool, sentence: str, value: dict[str, Any]) -> None:
    _print_json(value) if as_json else out.print(sentence, highlight=False)


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, default=str) + "\n")
