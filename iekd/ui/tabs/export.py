"""The "Export" part of a run's page: choose a network and a format, press, and get a download with its certificate."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from iekd.config.methods import method_name
from iekd.errors import UserError
from iekd.export import FORMATS
from iekd.runs.exported import export_in_run
from iekd.runs.store import Run, Store
from iekd.ui.render.certificate import certificate_html
from iekd.ui.server.access import Access, May
from iekd.ui.server.downloads import export_link


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
    with gr.Accordion("Export", open=False, visible=False, elem_id="export") as box:
        with gr.Row():
            network = gr.Dropdown([], label="Network", elem_id="export-network")
            choices = [(chosen.title, name) for name, chosen in FORMATS.items()]
            how = gr.Dropdown(choices, value=choices[0][1], label="Format", elem_id="export-format")
        press = gr.Button("Export", variant="primary", elem_id="export-now")
        found = gr.HTML(elem_id="exported")

    def export(run_id: str, learner: str, format_name: str, request: gr.Request) -> str:
        try:
            run = store.get(run_id)
            access.check_change(request, run, "download")
            certificate = export_in_run(run, str(learner or ""), str(format_name or ""))
            return certificate_html(certificate, export_link(run, learner, format_name))
        except UserError as error:
            return f'<p class="warn">{escape(str(error))}</p>'

    # one at a time: each computes on all cores
    press.click(
        export, [shown, network, how], found, api_visibility="private", concurrency_limit=1, concurrency_id="export"
    )
    return ExportPart(box, network, found)


def look_at_exports(run: Run, live: bool, may: May) -> dict[str, Any]:
    """New content by the name of ExportPart's component, for whoever looks at that run."""
    folders = [] if live or not may(run, "download") else list(run.model_folders)
    several = len(run.config.seeds) > 1
    names = []
    for name in folders:
        method, _, seed = name.rpartition("-seed")
        label = f"{method_name(method)}{f', seed {seed}' if several else ''}" if method else "Teacher"
        names.append((label, name))
    students = [name for name in folders if name != "teacher"] or folders
    return {
        "box": gr.Accordion(visible=bool(folders)),
        "network": gr.Dropdown(names, value=students[-1] if students else None),
        "found": "",
    }
