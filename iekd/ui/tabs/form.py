"""The form: a RunConfig as Gradio components, and back. Labels, help and defaults come from RunConfig's own fields."""

from __future__ import annotations

from typing import Any

import gradio as gr

from iekd.config.methods import METHODS, check_method, combined, sort_methods
from iekd.config.presets import PRESETS
from iekd.config.run import GROUPS, NO_TEACHER, RunConfig, label, make_config
from iekd.config.settings import choices_of
from iekd.config.values import LISTS, SettingError
from iekd.data.base import DatasetInfo
from iekd.data.folder import folder_name, folder_path
from iekd.data.registry import available, check_name, sources
from iekd.errors import UserError, about_setting
from iekd.estimate.proposal import Proposal, propose
from iekd.language import N_, _
from iekd.models import libraries
from iekd.models.catalog import check_model, model_name, models
from iekd.paths import typed
from iekd.runs.gpus import gpus
from iekd.runs.slots import device_name
from iekd.ui.render.words import count

OWN_IMAGES = folder_name("")  # the choice of one's own images; where they are is a field of its own
OWN_IMAGES_HELP = N_("One sub-folder of images per class; or train/ and test/ with those inside. Or a zip of it.")
Values = dict[str, Any]  # what the form's fields hold, by setting; `folder` and `with_kd` are fields of the form alone


class MissingError(UserError):
    """Nothing is wrong, but something has still to be named."""


PRESET_FIELDS = list(dict.fromkeys(field for preset in PRESETS.values() for field in preset.values))


def default(field: str) -> Any:
    """The default of a setting."""
    return RunConfig.model_fields[field].default


def help_in_english(field: str) -> str:
    """What a setting's help is on the page; what stands in the catalogue."""
    text = str(RunConfig.model_fields[field].description).replace("unset", "empty")
    first = text.split()[0].strip(",:")
    is_name = "." in first or first in METHODS or first == "auto"
    return text if is_name else text[0].upper() + text[1:]


def help_text(field: str) -> str:
    """The help of a setting in the page's language."""
    return _(help_in_english(field))


def model_choices(with_none: bool) -> list[tuple[str, str]]:
    """(text, name) of every network that is listed. with_none: none is a choice too."""
    sizes = [(f"{model_name(m.name)} · {count(m.params(3, 10))}", m.name) for m in models().values()]
    return [*sizes, (_("None (labels only)"), NO_TEACHER)] if with_none else sizes


def dataset_choices() -> list[tuple[str, str]]:
    """As cards of two lines: the title, and what it takes."""
    named = [(f"{_(d.title)}\n{_(d.note)[:1].upper()}{_(d.note)[1:]}".strip(), d.name) for d in available()]
    return [*named, (_("Your own images…\nFiles, the camera, a zip, or a folder on this machine"), OWN_IMAGES)]


def asks_libraries(network: str) -> bool:
    """Whether libraries, which take seconds to import, have to be asked for a network: theirs, or an unknown one."""
    return libraries.names_one(network) or (network not in ("", NO_TEACHER) and network not in models())


def own_dataset(text: str) -> str:
    """The dataset that is meant in the field for one's own images: a path, or a name such as `npz:PATH` of a plugin."""
    scheme, colon, _rest = text.partition(":")
    return text if scheme + colon in _schemes() else folder_name(text)


def folder_help() -> str:
    """What may be typed there; the page's own words, then what plugins understand."""
    others = [f"{usage}: {_(note)}." for scheme, (usage, note) in _schemes().items() if scheme != OWN_IMAGES]
    return _(" Or ").join([_(OWN_IMAGES_HELP), *others])


def _schemes() -> dict[str, tuple[str, str]]:
    """Of the sources that understand a path or the like: what its names begin with -> how they are written, a note."""
    return {source.name: (source.usage, source.note) for source in sources() if source.usage}


def method_choices() -> list[tuple[str, str]]:
    """(text, name) of every method."""
    return [(f"{name}: {_(spec.summary)}", name) for name, spec in METHODS.items()]


def preset_values(name: str) -> dict[str, Any]:
    """What the form's fields become when a preset is chosen: its values, and the defaults of what any preset sets."""
    return {field: shown(PRESETS[name].values.get(field, default(field))) for field in PRESET_FIELDS}


def proposal(config: RunConfig, info: DatasetInfo) -> Proposal | None:
    """What would suit these pictures; None where the form says it already."""
    found = propose(info, device_name(config.device) == "cuda", config)
    return None if found is None or found.followed_by(config) else found


def proposed_values(proposal: Proposal) -> dict[str, Any]:
    """What the form's fields become when a proposal is taken."""
    return {**preset_values(proposal.preset), **{name: shown(value) for name, value in proposal.values.items()}}


def shown(value: Any) -> Any:
    """A setting as a component shows it."""
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, tuple) else value


def combined_choices() -> list[tuple[str, str]]:
    """(text, name) of every method with knowledge distillation on top."""
    return [(name, name) for name in combined()]


def expert_field(field: str) -> Any:
    """A component for one of the lesser settings, by the type of its field."""
    info = RunConfig.model_fields[field]
    choices = choices_of(info)
    if field == "device" and device_name("auto") == "cuda" and len(found := gpus()) > 1:
        choices += [f"cuda:{index}" for index in range(len(found))]
    common: dict[str, Any] = {
        "label": _(label(field)),
        "info": help_text(field),
        "value": info.default,
        "elem_id": f"f-{field}",
    }
    if field == "peer":
        same = [(_("the same network"), "")]
        return gr.Dropdown(
            [*same, *model_choices(False)], allow_custom_value=True, min_width=200, **{**common, "value": ""}
        )
    if choices:
        named = [(_("the method's default") if choice == "own" else choice, choice) for choice in choices]
        return gr.Dropdown(named, filterable=False, min_width=200, **common)
    if info.annotation is bool:
        return gr.Checkbox(min_width=200, **common)
    if field in LISTS:
        return gr.Textbox(max_lines=1, min_width=200, **{**common, "value": shown(info.default)})
    if info.annotation is str or isinstance(info.default, str):  # a number, or a word such as auto
        return gr.Textbox(max_lines=1, min_width=200, **common)
    if info.default is None:  # a Number turns "nothing" into 0 once it is shown
        return gr.Textbox(**{**common, "value": ""}, placeholder=_("not set"), max_lines=1, min_width=200)
    return gr.Number(min_width=200, **common)


def to_config(values: Values) -> RunConfig:
    """What the form says, its names and ranges checked; no file is looked at.

    Raises:
        UserError: the first thing that is wrong, in one sentence.
    """
    given = dict(values)
    folder = typed(given.pop("folder", "") or "")
    if given["dataset"] == OWN_IMAGES:
        if not folder:
            raise MissingError(
                _(
                    "Fill the cards with images and press “Use these images”, or give a zip or a folder with one "
                    "sub-folder per class."
                )
            )
        given["dataset"] = own_dataset(folder)
    given["methods"] = [*(given["methods"] or ()), *(given.pop("with_kd", None) or ())]
    if not given["methods"]:
        raise UserError(_("No method is ticked. Tick at least one, such as the plain student."), "methods")
    with about_setting("methods"):
        given["methods"] = sort_methods(map(check_method, given["methods"]))  # the page's order, not that of the clicks
    given["name"] = (given.get("name") or "").strip()
    for field, value in given.items():
        if isinstance(value, float) and value.is_integer():  # a number field gives 2.0 for 2
            given[field] = int(value)
        elif value is None or (isinstance(value, str) and not value.strip()):
            given[field] = _unset(field)
    try:
        return make_config(**given)
    except SettingError as error:
        raise UserError(f"{_(label(error.field))} {error.what}", error.field) from None


def wrong_field(problem: UserError, values: Values) -> str:
    """The field of the form to mark for an error; "" if it is about none of them."""
    return "folder" if problem.field == "dataset" and values["dataset"] == OWN_IMAGES else problem.field


def changed(values: Values) -> dict[str, int]:
    """How many settings of each group of the expert settings are not at their default; groups without are left out."""

    def is_changed(field: str) -> bool:
        value, usual = values[field], shown(default(field))
        value = value.strip() if isinstance(value, str) else value
        return value not in (usual, str(usual), None, "")

    found = {group: sum(map(is_changed, names)) for group, names in expert_groups().items()}
    return {group: count for group, count in found.items() if count}


def expert_groups() -> dict[str, list[str]]:
    """The expert settings by group; the name of the run stands at Start instead."""
    return {group: [name for name in names if name != "name"] for group, names in GROUPS.items()}


def to_values(config: RunConfig) -> Values:
    """What the form has to say to give this configuration.

    Raises:
        UserError: a run has used a method, a network or a dataset that is not known here, of a plugin for example. The
            form has no such choice.
    """
    values = config.model_dump()
    for method in config.methods:
        check_method(method)
    for network in {config.teacher, config.student, config.peer} - {NO_TEACHER, None}:
        check_model(str(network))
    dataset = check_name(config.dataset)
    own = any(dataset.startswith(scheme) for scheme in _schemes())
    return {
        **{field: shown(value) for field, value in values.items()},
        "dataset": OWN_IMAGES if own else dataset,
        "folder": folder_path(dataset) if own else "",
        "methods": [m for m in config.methods if m in METHODS],
        "with_kd": [m for m in config.methods if m not in METHODS],
    }


def _unset(field: str) -> Any:
    """What an empty field means: nothing where that is allowed, else a mistake worth a sentence."""
    if default(field) in (None, "", ()):
        return default(field)
    raise UserError(
        _("{setting} is empty. Give a value; {usual} is usual.", setting=_(label(field)), usual=shown(default(field))),
        field,
    )
