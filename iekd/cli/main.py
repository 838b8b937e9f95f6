"""Distil image classifiers, and see what a teacher adds: train, predict, explain, export.

Exit status: 0 done; 1 done in part or gone wrong: a run failed or was lost, images could not be read, doctor found
trouble; 2 what was asked for cannot be done, such as an unknown name or setting; 130 stopped before the end.
Errors are one sentence on standard error. With --json the last line of standard output is one JSON object.
"""

from __future__ import annotations

import gc
import io
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape

from iekd import __version__
from iekd.cli.bench import bench
from iekd.cli.common import (
    RUNS,
    AsJson,
    CpuSlots,
    RunsDir,
    launcher_for,
    out,
    print_json,
    says_why,
    share_cpu,
    table_of,
)
from iekd.cli.compare import compare
from iekd.cli.evaluate import evaluate
from iekd.cli.explain import explain
from iekd.cli.export import export
from iekd.cli.hub import pull, push
from iekd.cli.jobs import as_choice, asks_money
from iekd.cli.models import models
from iekd.cli.options import run_options
from iekd.cli.predict import predict
from iekd.cli.runs import app as runs_app
from iekd.cli.test_set import whole_test_set
from iekd.cli.train import table, train
from iekd.cli.where import HERE, Where, where_options
from iekd.language import VARIABLE


class Program(typer.Typer):
    """The command line as a program: a console that cannot show a character gets its code, and no error."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return super().__call__(*args, **kwargs)


app = Program(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.split("\n")[0])
app.add_typer(runs_app, name="runs")
app.command("train")(says_why(train))
app.command("table")(says_why(table))
app.command("predict")(says_why(predict))
app.command("eval")(says_why(evaluate))
app.command("test-set")(says_why(whole_test_set))
app.command("explain")(says_why(explain))
app.command("export")(says_why(export))
app.command("models")(says_why(models))
app.command("push")(says_why(push))
app.command("pull")(says_why(pull))
app.command("bench")(says_why(run_options(bench)))
app.command("compare")(says_why(compare))


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
        bool, typer.Option("--clean", help="Remove leftovers: half-written files, uploads that no run uses.")
    ] = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Check whether this machine can train and store runs, and say what to do if not; exit status 1 in that case."""
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
@where_options
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; the next free one if it is busy. 0: any free one.")] = 7860,
    runs_dir: RunsDir = RUNS,
    public: Annotated[
        bool, typer.Option("--public", help="Visitors may look and compare, but start nothing. With "
                           "IEKD_PUBLIC_TRAINING=1 they may start small runs; see docs/sharing.md.")
    ] = False,
    root_path: Annotated[
        str, typer.Option(envvar="GRADIO_ROOT_PATH", show_envvar=False, show_default=False,
                          help="Path that a reverse proxy puts before the page's addresses, such as /studio.")
    ] = "",
    mcp: Annotated[
        bool, typer.Option("--mcp", envvar="GRADIO_MCP_SERVER", show_envvar=False,
                           help="Serve the endpoints as MCP tools too, at /gradio_api/mcp; see docs/api.md.")
    ] = False,
    language: Annotated[
        str, typer.Option(envvar=VARIABLE, show_envvar=False, show_default=False,
                          help="Language of the page, such as de, if there is a translation; see docs/translating.md.")
    ] = "",
    cpu_slots: CpuSlots = None,
    where: Where = HERE,
) -> None:  # fmt: skip
    """Open the page. `python app.py` does so too, without options for launchers and CPU slots."""
    share_cpu(cpu_slots)
    gc.disable()  # until the page is there; see launch()
    from iekd.ui.server.launch import launch

    launcher = where.launcher(runs_dir)
    if asks_money(launcher.name):
        launcher = as_choice(launcher)
    launch(host, port, launcher, public, root_path, mcp, language)
