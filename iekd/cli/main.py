"""The command line: `iekd train | table | runs | eval | bench | compare | models | datasets | doctor | serve`.

Exit status: 0 done, 1 the run failed, 2 bad arguments, 130 stopped before the end. Errors are one sentence on standard
error. With --json the last line of standard output is one JSON object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape

from iekd import __version__
from iekd.cli.bench import bench
from iekd.cli.common import (
    INTERRUPTED,
    RUNS,
    AsJson,
    Detach,
    RunsDir,
    err,
    launcher_for,
    out,
    print_json,
    say,
    say_unused,
    says_why,
    table_of,
)
from iekd.cli.evaluate import evaluate
from iekd.cli.options import run_options
from iekd.cli.runs import app as runs_app
from iekd.cli.runs import say_estimate, say_how_it_ended, train_here
from iekd.config.run import RunConfig

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.split("\n")[0]
)
app.add_typer(runs_app, name="runs")


@app.command()
@says_why
@run_options
def train(config: RunConfig, detach: Detach = False, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Train students side by side; without options, the run that the page starts with."""
    from iekd.runs.prepare import prepare

    launcher = launcher_for(runs_dir)
    store = launcher.store
    prepared = prepare(config, store.root)
    config = prepared.config
    say_unused(config)
    say_estimate(prepared, store)
    if detach:
        run_id = launcher.submit(config)
        say(as_json, f"Run {run_id} trains in the background.", {"run": run_id, "state": "queued"})
        return
    run, handle = store.create(config)
    train_here(run, handle)
    say_how_it_ended(run, as_json)


def _say_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


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
    from iekd.results.table import to_json
    from iekd.runs import grid
    from iekd.runs.grid import make_folder, write_table
    from iekd.runs.prepare import prepare, resolve
    from iekd.runs.store import FAILED

    store, wanted, config = launcher_for(runs_dir).store, grid.parse_pairs(pairs), resolve(config)
    # all of them first: what cannot be trained is said before anything is trained
    configs = [prepare(cell, store.root).config for cell in grid.cells(wanted, config, together)]
    say_unused(configs[0])
    if out_dir is not None:
        make_folder(out_dir)
    stopped: list[Callable[[], bool]] = []

    def train_one(run: Any, handle: int | None) -> None:
        stopped[:] = [train_here(run, handle)]

    done = grid.run_grid(configs, store, train_one, lambda: bool(stopped) and stopped[0]())
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
            out.print(escape(files["md"].read_text()), highlight=False, soft_wrap=True)
            out.print(f"Table: {escape(str(folder))}", highlight=False, soft_wrap=True)
        if missing:
            out.print(f"{missing} of {len(configs)} runs are missing. Run the same command again to go on.")
    if failed:
        raise typer.Exit(1)
    if missing:
        raise typer.Exit(INTERRUPTED)


app.command("eval")(says_why(evaluate))
app.command("bench")(says_why(run_options(bench)))


@app.command("compare")
@says_why
def compare_command(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    run_id: Annotated[
        Optional[str], typer.Option("--run", help="The run whose models answer, or ID/SEED; unset: the shipped ones.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """What teacher and students say of images, side by side."""
    from iekd.inference.compare import classes_known, compare
    from iekd.runs.models import models_called

    models = models_called(launcher_for(runs_dir).store, run_id or "")
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
            notes = {"error": r.error or "", "unlike": r.unlike}
            rows.append({"path": r.name, "predictions": said, **{key: text for key, text in notes.items() if text}})
        print_json({"images": rows})
    else:
        table = table_of("image", *models)
        for r in results:
            if not r.error:
                table.add_row(escape(r.name), *(f"{escape(p.label)} {p.top[0][1]:.0%}" for p in r.predictions.values()))
        if table.row_count:
            out.print(table)
            out.print(escape(f"{classes_known(models)}"), highlight=False, soft_wrap=True)
        for r in results:
            if r.unlike:
                out.print(escape(f"{r.name}: {r.unlike}"), highlight=False, soft_wrap=True)
    if broken:
        raise typer.Exit(2)


@app.command()
def models(as_json: AsJson = False) -> None:
    """The networks that can teach or learn, with their sizes, and the shipped checkpoints."""
    from iekd.models.catalog import models as catalog
    from iekd.models.shipped import shipped_models

    rows: list[dict[str, Any]] = [
        {"name": m.name, "params": m.params(3, 10), "macs": m.macs} for m in catalog().values()
    ]
    shipped: list[dict[str, Any]] = [
        {"name": name, **{k: getattr(card, k) for k in ("model", "method", "accuracy", "params", "datasets")}}
        for name, card in shipped_models().items()
    ]
    if as_json:
        print_json({"models": rows, "checkpoints": shipped})
        return
    table = table_of("model", "parameters", "million multiply-adds (32 x 32)", title="Networks (10 classes, colour)")
    for row in rows:
        table.add_row(row["name"], f"{row['params']:,}", f"{row['macs'] / 1e6:.0f}")
    out.print(table)
    if shipped:
        table = table_of("checkpoint", "model", "trained by", "accuracy", "for", title="Shipped checkpoints")
        for s in shipped:
            accuracy = "" if s["accuracy"] is None else f"{s['accuracy']:.2f} %"
            table.add_row(s["name"], s["model"], s["method"], accuracy, ", ".join(s["datasets"]))
        out.print(table)


@app.command()
def datasets(as_json: AsJson = False) -> None:
    """The datasets that can be trained on."""
    from iekd.data import available, sources

    if as_json:
        print_json({"datasets": [d.__dict__ for d in available()]})
        return
    table = table_of("dataset", "training", "test", "classes", "images", "")
    for d in available():
        kind = f"{d.resolution} x {d.resolution} {'grey' if d.channels == 1 else 'colour'}"
        table.add_row(d.name, f"{d.train_images:,}", f"{d.test_images:,}", str(d.classes), kind, d.note)
    for source in sources():
        if source.usage:
            table.add_row(source.usage, "", "", "", "any size", source.note)
    out.print(table)


@app.command()
@says_why
def doctor(
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove leftovers: half-written files, uploads that no run names.")
    ] = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Look whether this machine can train and keep runs, and say what to do where it cannot; exit status 1 then."""
    from iekd.runs import doctor as examination

    removed = examination.clean(launcher_for(runs_dir).store) if clean else []
    found = examination.examine(runs_dir)
    trouble = any(finding.state == examination.TROUBLE for finding in found)
    if as_json:
        print_json({"findings": [asdict(f) for f in found], "removed": list(map(str, removed)), "trouble": trouble})
    else:
        marks = {"fine": "[green]✓[/]", "note": "[yellow]•[/]", "trouble": "[bold red]✗[/]"}
        for finding in found:
            remedy = f" [bold]{escape(finding.remedy)}[/]" if finding.remedy else ""
            line = f"{marks[finding.state]} {finding.name}: {escape(finding.found)}{'.' if remedy else ''}{remedy}"
            out.print(line, highlight=False, soft_wrap=True)
        for path in removed:
            out.print(f"Removed {escape(str(path))}", highlight=False, soft_wrap=True)
    if trouble:
        raise typer.Exit(1)


@app.command()
@says_why
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; the next free one is taken if it is busy.")] = 7860,
    runs_dir: RunsDir = RUNS,
    public: Annotated[bool, typer.Option("--public", help="Others may open it: nobody may start large runs.")] = False,
) -> None:
    """Open the page (the same as `python app.py`)."""
    from iekd.ui.server.launch import launch

    launch(host, port, launcher_for(runs_dir), public)
