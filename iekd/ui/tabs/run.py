"""The view of one run, live or over. Start, the Runs tab and a bookmarked `?run=ID` all show this one.

Everything shown is read from the run folder every 1.5 seconds, so a reload, a second tab or a restarted server changes
nothing. Parts that have not changed are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from iekd.errors import UserError
from iekd.launchers.base import Launcher
from iekd.runs.siblings import USUAL, family_of
from iekd.runs.store import FINISHED, Store
from iekd.ui.render.chart import chart_html
from iekd.ui.render.curves import curves_html
from iekd.ui.render.headline import headline_html
from iekd.ui.render.result import result_html
from iekd.ui.render.run import head_html, log_html, signature
from iekd.ui.render.template import render
from iekd.ui.server.access import PUBLISH, Access, May
from iekd.ui.server.actions import add_seeds
from iekd.ui.server.hidden_paths import teller
from iekd.ui.tabs.export import ExportPart, export_part, look_at_exports
from iekd.ui.tabs.publish import publish_part, reset
from iekd.ui.tabs.run_parts import RunParts, look_at_parts, nothing, run_parts, tools_part

PRIVATE: dict[str, Any] = {
    "api_visibility": "private",
    "queue": False,
    "concurrency_limit": None,
    "show_progress": "hidden",
    "show_progress_on": [],  # else the page keeps a loading state for every output and copies all of them at each event
}
Updates = dict[Any, Any]  # what a handler returns: new content by component; what is not named stays as it is
CHART = render("chart")
DRAW_CHART = "window.iekdChart(element);"
SPEAKING = {**PRIVATE, "queue": True}  # only events of the queue can show a message in the corner


@dataclass
class RunView:
    """The components of the view."""

    box: gr.Column
    back: gr.Button
    head: gr.HTML
    headline: gr.HTML
    more: gr.Button
    stop: gr.Button
    confirm: gr.Row
    stop_now: gr.Button
    keep: gr.Button
    result: gr.HTML
    over: gr.Row
    resume: gr.Button
    compare: gr.Button
    explain: gr.Button
    again: gr.Button
    export: ExportPart
    publish: gr.Accordion
    chosen: gr.Dropdown
    published: gr.HTML
    chart: gr.HTML
    parts: RunParts
    timer: gr.Timer
    seen: gr.JSON

    @property
    def outputs(self) -> list[Any]:
        """What `updates` may change."""
        return [
            self.head, self.headline, self.more, self.result, self.chart, self.stop, self.confirm, self.over, self.resume,
            self.compare, self.explain, self.again, self.publish, self.chosen, self.published, self.timer, self.seen,
            *self.export.outputs, *self.parts.outputs,
        ]  # fmt: skip

    def updates(self, looked: dict[str, Any]) -> Updates:
        """For a handler: what `look` returned, by component."""
        found = {getattr(self, name): value for name, value in looked.items() if name not in ("export", "parts")}
        for part in ("export", "parts"):
            found |= {getattr(getattr(self, part), name): value for name, value in looked.get(part, {}).items()}
        return found or {self.seen: gr.skip()}  # Gradio takes an empty dictionary for a value


def run_view(launcher: Launcher, shown: gr.Textbox, access: Access) -> RunView:
    """Build the view and its own events. `shown` holds the id of the run to show."""
    store = launcher.store
    with gr.Column(visible=False, elem_id="run-view") as box:
        back = gr.Button("← New run", size="sm", elem_id="back")
        head = gr.HTML(elem_id="run-head")
        headline = gr.HTML(elem_id="headline")
        more = gr.Button(f"Add {USUAL} seeds", size="sm", visible=False, elem_id="add-seeds", elem_classes="narrow")
        stop = gr.Button("■ Stop", size="sm", visible=False, elem_id="stop", elem_classes="narrow")
        with gr.Row(visible=False, elem_id="confirm-stop", elem_classes="confirm") as confirm:
            gr.HTML(
                "<p><b>Stop this run?</b> What the students have learned is kept, "
                "and you can resume the training later.</p>"
            )
            stop_now = gr.Button("Yes, stop it", variant="stop", size="sm", elem_id="stop-now")
            keep = gr.Button("Keep training", size="sm")
        tools = tools_part()
        result = gr.HTML(elem_id="result")
        with gr.Row(visible=False, elem_id="over") as over:
            resume = gr.Button("▶ Resume", variant="primary", elem_id="resume")
            compare = gr.Button("Compare on images", variant="primary", elem_id="to-compare")
            explain = gr.Button("Explain", elem_id="to-explain")
            again = gr.Button("New run with these settings", elem_id="again")
        export = export_part(store, shown, access)
        publish, chosen, published = publish_part(store, shown, access)
        early = gr.HTML(elem_id="early")
        gr.HTML(CHART, js_on_load=DRAW_CHART, apply_default_css=False, elem_id="chart")
        chart = gr.HTML(elem_id="chart-data")
        parts = run_parts(tools, early)
    timer = gr.Timer(1.5, active=False)
    seen = gr.JSON(visible=False)  # held by the page, not the server: it survives a restart
    view = RunView(
        box, back, head, headline, more,
        stop, confirm, stop_now, keep, result, over, resume, compare, explain, again, export, publish, chosen,
        published, chart, parts, timer, seen,
    )  # fmt: skip

    def tick(run_id: str, before: dict[str, Any] | None, request: gr.Request) -> Updates:
        return view.updates(look(store, run_id, before or {}, access.of(request)))

    def ask_to_stop(run_id: str, request: gr.Request) -> Updates:
        try:
            access.check_change(request, store.get(run_id), "stop")
            launcher.request_stop(run_id)
        except UserError as error:
            gr.Info(str(error))
        return tick(run_id, None, request)

    def go_on(run_id: str, request: gr.Request) -> Updates:
        try:
            access.check_change(request, store.get(run_id), "resume")
            launcher.resume(run_id)
        except UserError as error:
            gr.Info(str(error))
        return tick(run_id, None, request)

    def extend(run_id: str, request: gr.Request) -> Updates:
        try:
            add_seeds(launcher, access, request, run_id, USUAL)
        except UserError as error:
            gr.Info(str(error))
        return tick(run_id, None, request)

    def confirming(asked: bool) -> Updates:
        return {stop: gr.Button(visible=not asked), confirm: gr.Row(visible=asked)}

    timer.tick(tick, [shown, seen], view.outputs, **PRIVATE)
    stop.click(lambda: confirming(True), None, [stop, confirm], **PRIVATE)
    keep.click(lambda: confirming(False), None, [stop, confirm], **PRIVATE)
    stop_now.click(ask_to_stop, shown, view.outputs, **SPEAKING)
    more.click(extend, shown, view.outputs, **SPEAKING)
    resume.click(go_on, shown, view.outputs, **SPEAKING)
    return view


def look(store: Store, run_id: str, before: dict[str, Any], may: May) -> dict[str, Any]:
    """New content for the view, by the name of RunView's component; what has not changed is left out.

    before: the signature of what the page shows now, {} to draw everything. may: what whoever looks may do.
    """
    if not run_id:
        return {"timer": gr.Timer(active=False)}
    try:
        run = store.get(run_id)
        config, status = run.config, run.status
    except UserError as error:  # deleted in another tab
        gone = f'<div class="card failed"><h3>{escape(str(error))}</h3><p>Press <b>← New run</b> to go on.</p></div>'
        return {
            "head": gone, "headline": "", "more": gr.Button(visible=False),
            "result": "", "chart": "", "parts": nothing(), "stop": gr.Button(visible=False),
            "confirm": gr.Row(visible=False), "over": gr.Row(visible=False), "publish": gr.Accordion(visible=False),
            "timer": gr.Timer(active=False), "seen": {}, "export": {"box": gr.Accordion(visible=False)},
        }  # fmt: skip
    family = family_of(store, run)
    now = {**signature(run, status), "family": [[s.run.id, s.status.state, s.pooled] for s in family.siblings]}
    if now == before:
        return {}

    def changed(*keys: str) -> bool:
        return before.get("id") != run_id or any(before.get(k) != now[k] for k in keys)

    parts = look_at_parts(run, config, status, may, run.report, changed)
    looked: dict[str, Any] = {"seen": now, "parts": parts}
    tell = teller(run, may)
    if changed("second", "state", "stage", "metrics"):
        looked["head"] = head_html(run, config, status, store)
    if changed("metrics", "state", "family"):
        offered = status.state == FINISHED and family.report is not None and not family.growing
        looked |= {
            "headline": headline_html(run, config, status, family),
            "more": gr.Button(visible=offered and may(run, "start")),
            "timer": gr.Timer(active=status.live or family.growing),
        }
    if changed("metrics", "state"):
        looked["chart"] = chart_html(run, config)
        parts["curves"] = curves_html(run, config)
    if changed("log"):
        parts["log"] = log_html(run, tell)
    if changed("state", "family"):
        looked["result"] = result_html(run, config, status, may(run, "download"), tell, family.report)
    if changed("state"):
        comparable = any(name != "teacher" for name in run.model_folders)
        looked |= {
            "stop": gr.Button(visible=status.live and not run.stop_requested and may(run, "stop")),
            "confirm": gr.Row(visible=False),
            "over": gr.Row(visible=not status.live),
            "publish": gr.Accordion(visible=not status.live and may(run, PUBLISH)),
            **reset(run),
            "resume": gr.Button(visible=status.resumable and may(run, "resume")),
            "compare": gr.Button(visible=comparable),
            "explain": gr.Button(visible=comparable),
            "again": gr.Button(visible=may(run, "start")),
            "export": look_at_exports(run, status.live, may),
        }
    return looked
