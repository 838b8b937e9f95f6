"""Where runs are trained: the options that choose a launcher, for every command that starts runs or serves the page.

A further launcher needs a line in OPTIONS for each option that only it has.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from iekd.cli.common import err, launcher_for
from iekd.runs.variables import COPY_TO

if TYPE_CHECKING:
    from iekd.launchers.by_owner import ByOwner

NAME, COPY, YES = "launcher_name", "copy_to", "yes"


def _only(launcher: str, option: str, text: str, kind: Any = Optional[str], **more: Any) -> Any:
    return Annotated[kind, typer.Option(option, show_default=False, help=f"With --launcher {launcher}: {text}", **more)]


OPTIONS: dict[str, Any] = {
    NAME: Annotated[
        Optional[str],
        typer.Option("--launcher", metavar="NAME", show_default=False,
                     help="Where it is trained: local (this machine, the default), ray, hf-jobs; see docs/scaling.md."),
    ],
    "address": _only(
        "ray", "--address", "the cluster's dashboard; auto, the default: that of this machine.",
        metavar="auto|HOST:PORT",
    ),
    "cpus": _only("ray", "--cpus", "CPUs of each run; unset: 1.", Optional[float]),
    "gpus": _only("ray", "--gpus", "the part of a GPU that each run has, such as 0.5.", Optional[float]),
    "flavor": _only("hf-jobs", "--flavor", "the kind of machine; unset: t4-small."),
    "timeout": _only("hf-jobs", "--timeout", "when the job ends at the latest, such as 90m; unset: 2h."),
    "image": _only("hf-jobs", "--image", "a Docker image with Python, or hf.co/spaces/ORG/NAME."),
    "package": _only("hf-jobs", "--package", "what pip installs as iekd; unset: this program is sent along."),
    "namespace": _only("hf-jobs", "--namespace", "the organisation that pays; unset: you."),
    COPY: Annotated[
        Optional[str],
        typer.Option("--copy-to", metavar="PLACE", envvar=COPY_TO, show_envvar=False, show_default=False,
                     help="Also keep a zip of each run there: a folder, or a bucket such as s3://NAME/runs."),
    ],
    YES: Annotated[bool, typer.Option("--yes", "-y", help="Start paid jobs without asking.")],
}  # fmt: skip


@dataclass(frozen=True)
class Where:
    """name: of the launcher, "" where none was given. options: what it is made from. yes: do not ask."""

    name: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    copy_to: str = ""
    yes: bool = False

    def launcher(self, runs_dir: Path) -> ByOwner:
        """Raises UserError if there is no such launcher, it does not take one of the options, or copies cannot be kept
        where they should be."""
        if self.copy_to:
            from iekd.launchers.hub_jobs import HUB_JOBS
            from iekd.runs.copies import check_place

            if self.name == HUB_JOBS:
                err.print("[yellow]Note:[/] Runs of jobs are in their bucket; only others are copied.", soft_wrap=True)
            os.environ[COPY_TO] = check_place(self.copy_to)
        return launcher_for(runs_dir, self.name, **self.options)


HERE = Where()


def where_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for `command(where, ...)`: gives it the options that make a `Where`, in the place of `where`."""
    own = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        if name != "where":
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        parameters += [
            inspect.Parameter(
                one, inspect.Parameter.KEYWORD_ONLY, default=False if one == YES else None, annotation=kind
            )
            for one, kind in OPTIONS.items()
        ]  # fmt: skip

    @wraps(command)
    def with_where(*config: Any, **values: Any) -> Any:
        given = {name: values.pop(name) for name in OPTIONS if name in values}
        name, copy_to, yes = given.pop(NAME, None) or "", given.pop(COPY, None) or "", bool(given.pop(YES, False))
        return command(*config, where=Where(name, given, copy_to, yes), **values)

    with_where.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_where.__annotations__ = {p.name: p.annotation for p in parameters}
    del with_where.__wrapped__  # type: ignore[attr-defined]  # its signature is not this one
    return with_where
