"""Options of the command line that mirror the fields of RunConfig, so that a new field is an option at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Optional

import typer

from iekd.cli.common import err
from iekd.config.methods import KD_ON_TOP, METHODS
from iekd.config.presets import PRESETS
from iekd.config.run import GROUPS, RunConfig, make_config
from iekd.config.settings import choices_of
from iekd.config.values import LISTS
from iekd.models.aliases import renamed

SWITCHES = [name for name, field in RunConfig.model_fields.items() if field.annotation is bool]
NETWORKS = ("teacher", "more_teachers", "student", "peer")
ABOUT_PRESETS = "; ".join(f"{name}: {preset.text}" for name, preset in PRESETS.items())


def run_options(command: Callable[..., Any], without: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Decorator for `command(config, ...)`: gives it one option per field of RunConfig, and --preset, for `config`.

    The options are text, or switches, and None if not given; make_config checks them. `without`: fields that the
    command sets itself and that get no option.
    """
    fields = [name for name in RunConfig.model_fields if name not in without]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(name))
        for name in (*fields, "preset")
    ]
    own = inspect.signature(command, eval_str=True)
    others = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in own.parameters.items()
        if name != "config"
    ]

    @wraps(command)
    def with_config(**values: Any) -> Any:
        given = {name: values.pop(name) for name in (*fields, "preset")}
        config = make_config(**given)
        for name in dict.fromkeys(part.strip() for role in NETWORKS for part in (given.get(role) or "").split(",")):
            if said := renamed(name):
                err.print(said, highlight=False, soft_wrap=True)
        return command(config, **values)

    parameters = [*options, *others]
    with_config.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_config.__annotations__ = {p.name: p.annotation for p in parameters}
    del with_config.__wrapped__  # type: ignore[attr-defined]  # its signature is not this one
    return with_config


def _annotation(name: str) -> Any:
    text, option = ABOUT_PRESETS if name == "preset" else _help(name), "--" + name.replace("_", "-")
    panel = next((group for group, names in GROUPS.items() if name in names), None)
    common: dict[str, Any] = {"help": text, "show_default": False, "rich_help_panel": panel}
    if name in SWITCHES:
        return Annotated[Optional[bool], typer.Option(f"{option}/--no-{option[2:]}", **common)]
    return Annotated[Optional[str], typer.Option(option, metavar=_metavar(name), **common)]


def _metavar(name: str) -> str:
    """What kind of value it takes; make_config checks it, so to typer all are text."""
    if name == "preset":
        return "NAME"
    if name in LISTS:
        return "A,B,..."
    kinds = str(RunConfig.model_fields[name].annotation)
    return "INTEGER" if "int" in kinds else "NUMBER" if "float" in kinds else "TEXT"


def _help(field: str) -> str:
    info = RunConfig.model_fields[field]
    default = ",".join(map(str, info.default)) if isinstance(info.default, tuple) else info.default
    choices = choices_of(info)
    choices = [*METHODS, f"most of them with {KD_ON_TOP}"] if field == "methods" else choices
    parts = [str(info.description), f"of: {', '.join(choices)}" * bool(choices)]
    return "; ".join([*filter(None, parts), *([f"default: {default}"] if default not in (None, "") else [])])
