"""Steps 2 and 3 of the form, the expert settings below them, and the run as code to copy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

from iekd.language import _
from iekd.ui.render.about import how_it_works_html
from iekd.ui.render.train import group_html, search_html, slug, step_html
from iekd.ui.tabs import choices, form
from iekd.ui.tabs.find_network import find_network
from iekd.ui.tabs.run import PRIVATE

# a card's values go into the fields at once, without asking the server: what is chosen is what Start sends
FILL_IN = "(chosen, ...now) => (VALUES)[chosen] ?? now"


def networks_step(fields: dict[str, Any]) -> gr.HTML:
    """Build step 2: teacher and student. Returns what shows their sizes."""
    gr.HTML(
        step_html(
            _("Networks"),
            _(
                "The large one teaches, the small one learns. Names such as timm:resnet18, torchvision:resnet18 or "
                "hf:ORG/NAME, a classifier on the Hugging Face Hub, can be typed too."
            ),
            2,
        )
    )
    with gr.Row(elem_id="pair"):
        for name, title in (
            ("teacher", _("Teacher (parameters)")),
            ("student", _("Student (parameters)")),
        ):
            fields[name] = gr.Dropdown(
                form.model_choices(name == "teacher"), value=form.default(name), label=title, min_width=200,
                elem_id=f"f-{name}", allow_custom_value=True,
            )  # fmt: skip
    find_network(fields["teacher"], fields["student"])
    return gr.HTML(elem_id="networks")


def methods_step(fields: dict[str, Any]) -> tuple[gr.Radio, gr.Radio]:
    """Build step 3. Returns the choice of methods and that of rigour; `choices.py` says what each fills in."""
    gr.HTML(step_html(_("Methods"), _("All students get the same images and begin with the same weights."), 3))
    methods = gr.Radio(
        choices.method_cards(), value="plain", label=_("Students to compare"), elem_id="method-choice",
        elem_classes="cards",
    )  # fmt: skip
    with gr.Column(elem_id="pick-methods"):
        fields["methods"] = gr.CheckboxGroup(
            form.method_choices(), value=list(form.default("methods")), label=_("Methods: one student for each"),
            elem_id="f-methods",
        )  # fmt: skip
        fields["with_kd"] = gr.CheckboxGroup(
            form.combined_choices(), value=[], label=_("The same with knowledge distillation on top"),
            elem_id="f-with_kd",
        )  # fmt: skip
    rigour = gr.Radio(choices.rigour_cards(), value="quick", label=_("Rigour"), elem_id="rigour", elem_classes="cards")
    with gr.Row():
        fields["epochs"] = gr.Number(
            form.default("epochs"),
            label=_("Epochs"),
            info=_("Passes over the images"),
            min_width=120,
            elem_id="f-epochs",
        )
        fields["seeds"] = gr.Textbox(
            "0", label=_("Seeds"), info=_("Several, as in 0, 1, 2, show how much results vary"), max_lines=1,
            min_width=120, elem_id="f-seeds",
        )  # fmt: skip
    return methods, rigour


def expert_settings(fields: dict[str, Any]) -> None:
    """Build the groups of all other settings. Every field is there from the start, only not seen: an accordion builds
    its fields when it opens, and loses what is typed meanwhile. render/train.js opens one group at a time."""
    gr.HTML(step_html(_("Expert settings"), _("The defaults are sensible. Change one if you know why.")))
    with gr.Column(elem_id="advanced", elem_classes="panel"):
        gr.HTML(search_html())
        for heading, names in form.expert_groups().items():
            gr.HTML(group_html(heading), elem_id=f"head-{slug(heading)}")
            with gr.Column(elem_id=f"group-{slug(heading)}", elem_classes="expert-group"), gr.Row():
                for name in names:
                    fields[name] = form.expert_field(name)


def as_code() -> dict[str, gr.Textbox]:
    """Build the run as code to copy. Returns its fields by kind."""
    gr.HTML(step_html(_("The same as code"), _("Start this run without the page.")))
    common: dict[str, Any] = {"interactive": False, "lines": 4, "max_lines": 14, "buttons": ["copy"]}
    with gr.Tabs(elem_id="code"):
        with gr.Tab(_("Command line")):
            command = gr.Textbox(
                label=_("In a terminal"), info=_("After make run, iekd is .venv/bin/iekd"), elem_id="command", **common
            )
        with gr.Tab("Python"):
            python = gr.Textbox(
                label=_("A Python script"), info=_("Trains in the background, into the folder runs"), elem_id="python",
                **common,
            )  # fmt: skip
        with gr.Tab("API"):
            api = gr.Textbox(
                label=_("A call of this page"), info=_("Needs the package gradio_client"), elem_id="api", **common
            )
    with gr.Accordion(_("How it works"), open=False, elem_id="how"):
        gr.HTML(how_it_works_html())
    return {"command": command, "python": python, "api": api}


def connect_choices(fields: dict[str, Any], methods: gr.Radio, rigour: gr.Radio) -> None:
    """A card fills in its fields; whoever changes one of these leaves the card."""
    for choice, sets, names, own in (
        (methods, choices.method_sets(), choices.METHOD_FIELDS, choices.PICK),
        (rigour, choices.rigours(), choices.RIGOUR_FIELDS, choices.OWN),
    ):
        targets = [fields[name] for name in names]
        js = FILL_IN.replace("VALUES", _values(sets, names))
        choice.input(None, [choice, *targets], targets, js=js, **PRIVATE)
        gr.on([field.input for field in targets], None, None, choice, js=f"() => {json.dumps(own)}", **PRIVATE)


def _values(sets: Mapping[str, choices.FormChoice], names: list[str]) -> str:
    """By key, the values of the fields in the order of `names`, as JSON."""
    return json.dumps({key: [one.values[name] for name in names] for key, one in sets.items()})
