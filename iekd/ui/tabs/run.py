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
from iekd.language import _, ngettext
from iekd.launchers.base import Launcher
from iekd.launchers.flavors import resumed_price
from iekd.runs.owner import record
from iekd.runs.siblings import USUAL, family_of
from iekd.runs.status import FINISHED, Status
from iekd.runs.store import Run, Store
from iekd.runs.watched import class_names
from iekd.ui.render.chart import chart_html
from iekd.ui.render.curves import curves_html
from iekd.ui.render.headline import headline_html
from iekd.ui.render.result import result_html, why_html
from iekd.ui.render.run import early_html, head_html, log_html, signature
from iekd.ui.render.run_parts import certainty_html, classes_html, classes_to_come_html, take_home_html, watched_html
from iekd.ui.render.template import html_text, render
from iekd.ui.rights.access import PUBLISH, Access, May
from iekd.ui.rights.hidden_paths import teller
from iekd.ui.rights.visible import may_look
from iekd.ui.shared.actions import add_seeds, resume_run
from iekd.ui.tabs.export import ExportPart, export_part, look_at_exports
from iekd.ui.tabs.present import present_button, present_part
from iekd.ui.tabs.publish import publish_part, reset

PRIVATE: dict[str, Any] = {
    "api_visibility": "private",
    "queue": False,
    "concurrency_limit": None,
    "show_progress": "hidden",
    "show_progress_on": [],  # else the page keeps a loading state for every output and copies all of them at each event
}
Updates = dict[Any, Any]  # what a handler returns: new content by component; what is not named stays as it is
DRAW_CHART = "window.iekdChart(element);"
SPEAKING = {**PRIVATE, "queue": True}  # only events of the queue can show a message in the corner


@dataclass
class RunView:
    """The components of the view, in the order of the page."""

    box: gr.Column
    back: gr.Button
    stop_now: gr.Button
    keep: gr.Button
    export: ExportPart
    seen: gr.JSON
    timer: gr.Timer
    head: gr.HTML
    headline: gr.HTML
    actions: gr.Row
    stop: gr.Button
    resume: gr.Button
    compare: gr.Button
    explain: gr.Button
    again: gr.Button
    more: gr.Button
    confirm: gr.Row
    early: gr.HTML
    chart: gr.HTML
    watched: gr.HTML
    classes: gr.HTML
    result: gr.HTML
    take_home: gr.HTML
    publish: gr.Accordion
    chosen: gr.Dropdown
    published: gr.HTML
    curves: gr.HTML
    certainty: gr.HTML
    log: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        """What `updates` may change."""
        return [
            self.seen, self.timer, self.head, self.headline, self.actions, self.stop, self.resume, self.compare,
            self.explain, self.again, self.more, self.confirm, self.early, self.chart, self.watched, self.classes,
            self.result, self.take_home, self.publish, self.chosen, self.published, self.curves, self.certainty,
            self.log, *self.export.outputs,
        ]  # fmt: skip

    def updates(self, looked: dict[str, Any]) -> Updates:
        """For a handler: what `look` returned, by component."""
        found = {getattr(self, name): value for name, value in looked.items() if name != "export"}
        found |= {getattr(self.export, name): value for name, value in looked.get("export", {}).items()}
        return found or {self.seen: gr.skip()}  # Gradio takes an empty dictionary for a value


def run_view(launcher: Launcher, shown: gr.Textbox, access: Access) -> RunView:
    """Build the view and its own events. `shown` holds the id of the run to show."""
    store = launcher.store
    with gr.Column(visible=False, elem_id="run-view") as box:
        present_part()
        back = gr.Button(_("← New run"), size="sm", elem_id="back")
        head = gr.HTML(elem_id="run-head")
        headline = gr.HTML(elem_id="headline")
        with gr.Row(elem_id="actions") as actions:
            stop = gr.Button(_("■ Stop"), size="md", visible=False, elem_id="stop")
            resume = gr.Button(_("▶ Resume"), variant="primary", size="md", visible=False, elem_id="resume")
            compare = gr.Button(
                _("Compare on images"), variant="primary", size="md", visible=False, elem_id="to-compare"
            )
            explain = gr.Button(_("Explain"), size="md", visible=False, elem_id="to-explain")
            present_button()
            again = gr.Button(_("New run with these settings"), size="md", visible=False, elem_id="again")
            more = gr.Button(
                ngettext("Add {number} seed", "Add {number} seeds", USUAL),
                size="md",
                visible=False,
                elem_id="add-seeds",
            )
        with gr.Row(visible=False, elem_id="confirm-stop", elem_classes="confirm") as confirm:
            words = html_text(
                "<b>Stop this run?</b> What the students have learned is kept, and you can resume the training later."
            )
            gr.HTML(f"<p>{words}</p>")
            stop_now = gr.Button(_("Yes, stop it"), variant="stop", size="sm", elem_id="stop-now")
            keep = gr.Button(_("Keep training"), size="sm")
        early = gr.HTML(elem_id="early")
        gr.HTML(render("chart"), js_on_load=DRAW_CHART, apply_default_css=False, elem_id="chart")
        chart = gr.HTML(elem_id="chart-data")
        watched = gr.HTML(elem_id="watched")
        classes = gr.HTML(elem_id="classes")
        result = gr.HTML(elem_id="result")
        with gr.Column(elem_id="take-home"):
            take_home = gr.HTML()
            export = export_part(store, shown, access)
            publish, chosen, published = publish_part(store, shown, access)
        # Gradio keeps which of them are open while their contents change
        with gr.Accordion(_("Losses"), open=False, elem_id="losses"):
            curves = gr.HTML(elem_id="curves")
        with gr.Accordion(_("How sure is this?"), open=False, elem_id="certainty"):
            certainty = gr.HTML()
        with gr.Accordion(_("Log"), open=False, elem_id="log"):
            log = gr.HTML()
    view = RunView(
        box=box, back=back, stop_now=stop_now, keep=keep, export=export,
        seen=gr.JSON(visible=False),  # held by the page, not the server: it survives a restart
        timer=gr.Timer(1.5, active=False),
        head=head, headline=headline, actions=actions, stop=stop, resume=resume, compare=compare, explain=explain,
        again=again, more=more, confirm=confirm, early=early, chart=chart, watched=watched, classes=classes,
        result=result, take_home=take_home, publish=publish, chosen=chosen, published=published, curves=curves,
        certainty=certainty, log=log,
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
            resume_run(launcher, access, request, store.get(run_id))
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

    view.timer.tick(tick, [shown, view.seen], view.outputs, **PRIVATE)
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
        return _gone(str(error))
    family = family_of(store, run)
    now = {**signature(run, status), "family": [[s.run.id, s.status.state, s.pooled] for s in family.siblings]}
    if now == before:
        return {}

    def changed(*keys: str) -> bool:
        return before.get("id") != run_id or any(before.get(k) != now[k] for k in keys)

    looked: dict[str, Any] = {"seen": now}
    tell, report = teller(run, may), family.report if status.state == FINISHED else None
    if changed("second", "state", "stage", "metrics"):
        looked["head"] = head_html(run, config, status, store)
    if changed("metrics", "state", "family"):
        looked |= {
            "headline": headline_html(run, config, status, family)
            + why_html(run, status, tell, resumed_price(record(run.path))),
            "result": result_html(run, config, status, report),
            "timer": gr.Timer(active=status.live or family.growing),
        }
    if changed("metrics", "state"):
        looked |= {
            "early": early_html(status, run), "chart": chart_html(run, config), "curves": curves_html(run, config),
        }  # fmt: skip
    if changed("watched", "state", "stage"):
        looked["watched"] = watched_html(run, config, status, may_look(run, may))
    if changed("log"):
        looked["log"] = log_html(run, tell)
    if changed("state", "family", "stage"):
        to_come = classes_to_come_html(config, class_names(run)) if status.live else ""
        looked |= {
            "classes": classes_html(report) if report else to_come,
            "certainty": certainty_html(report),
            "take_home": take_home_html(run, status, report, may(run, "download"), tell),
            "more": gr.Button(visible=report is not None and not family.growing and may(run, "start")),
        }
    if changed("state"):
        looked |= _actions(run, status, may)
    return looked


def _actions(run: Run, status: Status, may: May) -> dict[str, Any]:
    """What can be done with a run: to stop it while it is live, the rest afterwards."""
    over = not status.live
    resumes = status.resumable and may(run, "resume")
    comparable = over and any(name != "teacher" for name in run.model_folders)
    return {
        "actions": gr.Row(visible=True),
        "stop": gr.Button(visible=status.live and not run.stop_requested and may(run, "stop")),
        "confirm": gr.Row(visible=False),
        "resume": gr.Button(visible=resumes),
        "compare": gr.Button(visible=comparable, variant="secondary" if resumes else "primary"),  # one of them is
        "explain": gr.Button(visible=comparable),
        "again": gr.Button(visible=over and may(run, "start")),
        "publish": gr.Accordion(visible=over and may(run, PUBLISH)),
        **reset(run),
        "export": look_at_exports(run, status.live, may),
    }


def _gone(why: str) -> dict[str, Any]:
    """For a run that is no longer there."""
    nothing = ("headline", "early", "chart", "watched", "classes", "result", "take_home", "curves", "certainty", "log")
    words = html_text("Press <b>← New run</b> to go on.")
    return {
        "head": f'<div class="card failed"><h3>{escape(why)}</h3><p>{words}</p></div>',
        **dict.fromkeys(nothing, ""), "actions": gr.Row(visible=False), "confirm": gr.Row(visible=False),
        "publish": gr.Accordion(visible=False), "timer": gr.Timer(active=False), "seen": {},
        "export": {"box": gr.Accordion(visible=False)},
    }  # fmt: skip
