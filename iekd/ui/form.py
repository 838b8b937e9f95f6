"""The form: a RunConfig as Gradio components, and back. Labels, help and defaults come from RunConfig's own fields."""

from __future__ import annotations

from typing import Any, get_args

import gradio as gr

from iekd.config import METHODS, NO_TEACHER, RunConfig, make_config
from iekd.data.registry import FOLDER, available
from iekd.errors import UserError
from iekd.models.catalog import models
from iekd.models.source import parse_numbers
from iekd.ui.words import METHOD_NAMES, count, model_name

OWN_FOLDER = FOLDER
ADVANCED = {
    "Optimiser": ("batch_size", "lr", "momentum", "weight_decay", "schedule"),
    "How students are taught": (
        "inheritance_weight",
        "exploration_weight",
        "factor_weight",
        "temperature",
        "kd_weight",
    ),
    "Teacher": ("teacher_epochs", "auto_encoder_epochs", "teacher_from", "teacher_mean", "teacher_std"),
    "Pictures": ("limit_train", "resolution", "test_fraction", "data_seed"),
    "This run": ("device", "precision", "name"),
}
LABELS = {
    "lr": "Learning rate",
    "auto_encoder_epochs": "Auto-encoder epochs",
    "kd_weight": "KD weight",
    "teacher_from": "Teacher comes from",
    "limit_train": "Limit training images",
    "name": "Name of the run",
}
METHOD_HELP = {
    "baseline": "the student alone, labels only. The yardstick",
    "kd": "knowledge distillation: copies the teacher's softened answers",
    "ft": "factor transfer: all channels imitate the teacher's factor",
    "ie-ft": "inheritance + exploration: half imitates the teacher, half moves away",
}


def default(field: str) -> Any:
    return RunConfig.model_fields[field].default


def label(field: str) -> str:
    return LABELS.get(field, field.replace("_", " ").capitalize())


def help_text(field: str) -> str:
    text = str(RunConfig.model_fields[field].description)
    return text[0].upper() + text[1:]


def model_choices(with_none: bool) -> list[tuple[str, str]]:
    sizes = [(f"{model_name(m.name)} · {count(m.params(3, 10))}", m.name) for m in models().values()]
    return [*sizes, ("None (labels only)", NO_TEACHER)] if with_none else sizes


def dataset_choices() -> list[tuple[str, str]]:
    named = [(f"{d.title} · {d.note}" if d.note else d.title, d.name) for d in available()]
    return [*named, ("Your own folder of pictures…", OWN_FOLDER)]


def method_choices() -> list[tuple[str, str]]:
    return [(f"{METHOD_NAMES.get(m, m)}: {METHOD_HELP.get(m, text)}", m) for m, text in METHODS.items()]


def advanced_field(field: str) -> Any:
    """A component for one of the lesser settings, by the type of its field."""
    info = RunConfig.model_fields[field]
    choices = [c for c in get_args(info.annotation) if isinstance(c, str)]
    common: dict[str, Any] = {
        "label": label(field),
        "info": help_text(field),
        "value": info.default,
        "elem_id": f"f-{field}",
    }
    if choices:
        return gr.Dropdown(choices, filterable=False, min_width=200, **common)
    if info.annotation is str:
        return gr.Textbox(max_lines=1, min_width=200, **common)
    if info.default is None:  # a Number turns "nothing" into 0 once it is shown
        return gr.Textbox(**{**common, "value": ""}, placeholder="not set", max_lines=1, min_width=200)
    return gr.Number(min_width=200, **common)


def to_config(values: dict[str, Any]) -> RunConfig:
    """What the form says, checked.

    Raises:
        UserError: the first thing that is wrong, in one sentence.
    """
    given = dict(values)
    folder = (given.pop("folder", "") or "").strip()
    if given["dataset"] == OWN_FOLDER:
        if not folder:
            raise UserError(
                "Give the path of your folder: one sub-folder of pictures per class, or train/ and test/ with those."
            )
        given["dataset"] = OWN_FOLDER + folder
    if not given["methods"]:
        raise UserError("No method is ticked. Tick at least one, such as the baseline.")
    given["methods"] = tuple(m for m in METHODS if m in given["methods"])  # the order of the page, not of the clicks
    given["seeds"] = _seeds(given["seeds"])
    given["name"] = (given.get("name") or "").strip()
    for field in ("teacher_mean", "teacher_std"):
        given[field] = parse_numbers(label(field), str(given.get(field) or "")) or None
    for field, value in given.items():
        if isinstance(value, float) and value.is_integer():  # a number field gives 2.0 for 2
            given[field] = int(value)
        elif value is None or (isinstance(value, str) and not value.strip()):
            given[field] = _unset(field)
    return make_config(**given)


def to_values(config: RunConfig) -> dict[str, Any]:
    """What the form has to say to give this configuration."""
    values = config.model_dump()
    own = config.dataset.startswith(FOLDER)
    return {
        **{k: "" if v is None else v for k, v in values.items()},
        "dataset": OWN_FOLDER if own else config.dataset,
        "folder": config.dataset.removeprefix(FOLDER) if own else "",
        "methods": list(config.methods),
        "seeds": ", ".join(map(str, config.seeds)),
        "teacher_mean": ", ".join(map(str, config.teacher_mean or ())),
        "teacher_std": ", ".join(map(str, config.teacher_std or ())),
    }


def _unset(field: str) -> Any:
    """What an empty field means: nothing where that is allowed, else a mistake worth a sentence."""
    if default(field) in (None, ""):
        return default(field)
    usual = ", ".join(map(str, default(field))) if isinstance(default(field), tuple) else default(field)
    raise UserError(f"{label(field)} is empty. Give a value; {usual} is usual.")


def _seeds(text: Any) -> tuple[int, ...]:
    words = str("" if text is None else text).replace(";", ",").replace(" ", ",").split(",")
    if not any(words):
        _unset("seeds")
    try:
        return tuple(int(word) for word in words if word)
    except ValueError:
        raise UserError(f"Seeds '{text}' cannot be used: give whole numbers with commas, such as 0, 1, 2.") from None
