"""What the commands share: consoles, how errors are shown, and the options that most of them have."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iekd.config.run import RunConfig
from iekd.config.unused import unused_settings
from iekd.errors import RunError, UserError
from iekd.hub.pull import pulled
from iekd.hub_names import PREFIX
from iekd.inference.onnx_file import EXPORTED
from iekd.models.artifact import CARD
from iekd.models.source import check_path
from iekd.paths import absolute
from iekd.runs.owner import LOCAL
from iekd.runs.slots import cpu_slots
from iekd.runs.variables import CPU_SLOTS, NPROC

if TYPE_CHECKING:
    from iekd.launchers.by_owner import ByOwner

out, err = Console(), Console(stderr=True)
RUNS = Path("runs")
RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="IEKD_RUNS_DIR", help="Folder that holds the runs.")]
INTERRUPTED = 130  # exit status of what was stopped before its end
Detach = Annotated[
    bool, typer.Option("--detach", help="Train in the background; the run continues when the terminal closes.")
]
CpuSlots = Annotated[
    Optional[int],
    typer.Option(envvar=CPU_SLOTS, show_default=False, help="How many runs may train on the CPU at a time."),
]
Nproc = Annotated[
    Optional[int],
    typer.Option("--nproc", metavar="N", envvar=NPROC, show_envvar=False, show_default=False,
                 help="Let N processes of this machine share each batch, on a GPU each: see docs/scaling-ddp.md."),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


def launcher_for(runs_dir: Path, name: str = "", **options: Any) -> ByOwner:
    """Where the runs of a folder are trained; every command gets its launcher, and its store, here.

    name, options: as for make_launcher, "" and None for what was not given.
    """
    from iekd.launchers.factory import make_launcher

    given = {option: value for option, value in options.items() if value not in ("", None)}
    return make_launcher(runs_dir, name or LOCAL, **given) if name or given else make_launcher(runs_dir)


def share_cpu(slots: int | None) -> None:
    """Let so many runs train on the CPU at a time, in this process and those that it starts; None: as it is.

    Raises:
        UserError: it is below 1, or there are fewer cores.
    """
    if slots is not None:
        os.environ[CPU_SLOTS] = str(cpu_slots(str(slots)))


def find_model(name: str, runs_dir: Path) -> Path:
    """The folder or file of a model: RUN/LEARNER or RUN, RUN/LEARNER/EXPORT for what the page exported, a shipped
    checkpoint's name, hf:ORG/NAME, or a path (also that of a folder that `iekd export` has made).

    Raises:
        UserError: there is none.
    """
    from iekd.runs.choices import choice_called

    if name.startswith(PREFIX):
        return pulled(name)
    exported = os.path.join(absolute(name), EXPORTED)
    if os.path.isfile(exported) and not os.path.isfile(os.path.join(absolute(name), CARD)):
        return Path(exported)
    try:
        return Path(check_path(name))
    except UserError as error:
        no_path = error
    try:
        return choice_called(launcher_for(runs_dir).store, name).path
    except RunError as no_run:
        if os.path.exists(absolute(name)) or Path(name).suffix or name.startswith((".", "/", "~")):
            raise no_path from None
        raise UserError(
            f"{str(no_run).rstrip('.')}. MODEL can also be a shipped checkpoint ('iekd models' lists them), a model's "
            "folder, an .onnx file or a file of weights."
        ) from None


def say_seed(runs_dir: Path, source: str) -> None:
    """On standard error: which seed's students are taken of a run that has several, where none was named."""
    from iekd.runs.models import saved_seeds

    if not source or "/" in source:
        return
    first, *others = saved_seeds(launcher_for(runs_dir).store.get(source)) or [0]
    if others:
        listed = ", ".join(f"{source}/{seed}" for seed in others)
        err.print(f"[yellow]Note:[/] The students are those of seed {first}; for others give {listed}.", soft_wrap=True)


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


def table_of(first: str, *others: str, title: str | None = None, numbers: bool = False) -> Table:
    """An empty table. Its first column has names to copy and is never cut; long words in the others are wrapped."""
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for column in others:
        table.add_column(column, overflow="fold", justify="right" if numbers else "left")
    return table


def say_unused(config: RunConfig) -> None:
    """On standard error: which of the given options have no effect."""
    for field, purpose in unused_settings(config).items():
        say_no_effect(f"--{field.replace('_', '-')}", purpose)


def say_no_effect(option: str, purpose: str) -> None:
    """Say that an option was given that nothing uses."""
    err.print(f"[yellow]Note:[/] {option} has no effect here: it is for {purpose} only.", soft_wrap=True)


def say(as_json: bool, sentence: str, value: dict[str, Any]) -> None:
    """Print a sentence, or with --json the value."""
    print_json(value) if as_json else out.print(sentence, highlight=False)


def print_json(value: dict[str, Any]) -> None:
    """Print a value as one line of JSON, and nothing else on standard output."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
