"""The "Export" part of a run's page: choose a model and a format, press, and get a download with its certificate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from iekd.data import own_path
from iekd.errors import UserError
from iekd.export import FORMATS
from iekd.export.web import FORMAT_SUMMARY, FORMAT_TITLE, WEB
from iekd.language import N_, _
from iekd.runs.exported import certificates_in, export_folder, export_in_run
from iekd.runs.store import Run, Store
from iekd.ui.render.certificate import certificate_html, page_html
from iekd.ui.render.downloads import export_link
from iekd.ui.render.template import html_text
from iekd.ui.render.words import first_chosen, model_titles
from iekd.ui.rights.access import Access, May
from iekd.ui.tabs.waiting import click_and_wait

WAIT = N_(
    "Exporting: the file is written, checked on the test images and timed. That takes seconds to minutes, depending on "
    "the network. If you leave, it continues; press Export again later to get the file."
)
EXAMPLES = N_("The page shows a test image of each class, or of ten classes, to whoever opens it.")
NO_EXAMPLES = N_(
    "The page shows none of your own images; <code>iekd export RUN --format web</code> puts ten test images on it."
)


@dataclass
class ExportPart:
    """Its components."""

    box: gr.Accordion
    network: gr.Dropdown
    found: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        return [self.box, self.network, self.found]


def export_part(store: Store, shown: gr.Textbox, access: Access) -> ExportPart:
    """Build it with its event. `shown` holds the id of the run."""
    # a format of somebody's plugin may have none
    about = {name: f"<p>{escape(_(getattr(chosen, 'summary', '')))}</p>" for name, chosen in FORMATS.items()}
    about[WEB] = f"<p>{escape(_(FORMAT_SUMMARY))}</p>"
    with gr.Accordion(_("Export"), open=False, visible=False, elem_id="export") as box:
        with gr.Row():
            network = gr.Dropdown([], label=_("Model"), elem_id="export-network")
            choices = [*((_(chosen.title), name) for name, chosen in FORMATS.items()), (_(FORMAT_TITLE), WEB)]
            how = gr.Dropdown(choices, value=choices[0][1], label=_("Format"), elem_id="export-format")
        said = gr.HTML(about[choices[0][1]], elem_id="export-about")
        press = gr.Button(_("Export"), variant="primary", elem_id="export-now")
        found = gr.HTML(elem_id="exported")

    def export(run_id: str, learner: str, format_name: str, request: gr.Request) -> str:
        try:
            run = store.get(run_id)
            access.check_change(request, run, "download")
            certificate = export_in_run(run, str(learner or ""), str(format_name or ""))
            link = export_link(run, learner, format_name)
            if format_name == WEB:
                examples = html_text(EXAMPLES if own_path(run.config.dataset) is None else NO_EXAMPLES)
                return page_html(certificates_in(export_folder(run, learner, WEB)), examples, link)
            return certificate_html(certificate, link)
        except UserError as error:
            return f'<p class="warn">{escape(str(error))}</p>'

    how.change(None, how, said, js=f"(name) => ({json.dumps(about)})[name]", api_visibility="private")
    # one at a time: each computes on all cores
    click_and_wait(press, _(WAIT), export, [shown, network, how], found, concurrency_limit=1, concurrency_id="export")
    return ExportPart(box, network, found)


def look_at_exports(run: Run, live: bool, may: May) -> dict[str, Any]:
    """New content by the name of ExportPart's component, for whoever looks at that run."""
    folders = [] if live or not may(run, "download") else list(run.model_folders)
    choices = [(title, name) for name, title in model_titles(run).items()] if folders else []
    return {
        "box": gr.Accordion(visible=bool(folders)),
        "network": gr.Dropdown(choices, value=first_chosen(run) if folders else None),
        "found": "",
    }
