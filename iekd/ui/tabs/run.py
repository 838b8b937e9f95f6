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
from iekd.launchers.local import LocalLauncher
from iekd.runs.store import Store
from iekd.ui.render.curves import curves_html
from iekd.ui.render.result import result_html
from iekd.ui.render.run import early_html, head_html, log_html, signature
from iekd.ui.server.access import Access, May
from iekd.ui.server.places import teller

PRIVATE: dict[str, Any] = {
    "api_visibility": "private",
    "queue": False,
    "concurrency_limit": None,
    "show_progress": "hidden",
    "show_progress_on": [],  # else the page keeps a loading state for every output and copies all of them at each event
}
SPEAKING = {**PRIVATE, "queue": True}  # only events of the queue can show a message in the corner


@dataclass
class RunView:
    """The components of the view; `parts` is what `look` fills, in its order."""

    box: gr.Column
    back: gr.Button
    head: gr.HTML
    stop: gr.Button
    confirm: gr.Row
    stop_now: gr.Button
    keep: gr.Button
    result: gr.HTML
    over: gr.Row
    resume: gr.Button
    compare: gr.Button
    again: gr.Button
    curves: gr.HTML
    log: gr.HTML
    timer: gr.Timer
    seen: gr.JSON

    @property
    def parts(self) -> list[Any]:
        return [
            self.head,
            self.result,
            self.curves,
            self.log,
            self.stop,
            self.confirm,
            self.over,
            self.resume,
            self.compare,
            self.again,
            self.timer,
            self.seen,
        ]


def run_view(store: Store, shown: gr.Textbox, access: Access) -> RunView:
    """Build the view and its own events. `shown` holds the id of the run to show."""
    with gr.Column(visible=False, elem_id="run-view") as box:
        back = gr.Button("← New run", size="sm", elem_id="back")
        head = gr.HTML(elem_id="run-head")
        stop = gr.Button("■ Stop", size="sm", visible=False, elem_id="stop", elem_classes="narrow")
        with gr.Row(visible=False, elem_id="confirm-stop", elem_classes="confirm") as confirm:
            gr.HTML(
                "<p><b>Stop this run?</b> What the students have learned is kept, "
                "and you can resume the training later.</p>"
            )
            stop_now = gr.Button("Yes, stop it", variant="stop", size="sm", elem_id="stop-now")
            keep = gr.Button("Keep training", size="sm")
        result = gr.HTML(elem_id="result")
        with gr.Row(visible=False, elem_id="over") as over:
            resume = gr.Button("▶ Resume", variant="primary", elem_id="resume")
            compare = gr.Button("Compare on images", variant="primary", elem_id="to-compare")
            again = gr.Button("New run with these settings", elem_id="again")
        curves = gr.HTML(elem_id="curves")
        with gr.Accordion("Log", open=False, elem_id="log"):
            log = gr.HTML()
    timer = gr.Timer(1.5, active=False)
    seen = gr.JSON(visible=False)  # held by the page, not the server: it survives a restart
    view = RunView(
        box, back, head, stop, confirm, stop_now, keep, result, over, resume, compare, again, curves, log, timer, seen
    )

    def tick(run_id: str, before: dict[str, Any] | None, request: gr.Request) -> list[Any]:
        return look(store, run_id, before or {}, access.of(request))

    def ask_to_stop(run_id: str, request: gr.Request) -> list[Any]:
        try:
            access.check_change(request, store.get(run_id), "stop")
            LocalLauncher(store).cancel(run_id)
        except UserError as error:
            gr.Info(str(error))
        return look(store, run_id, {}, access.of(request))

    def go_on(run_id: str, request: gr.Request) -> list[Any]:
        try:
            access.check_change(request, store.get(run_id), "resume")
            LocalLauncher(store).resume(run_id)
        except UserError as error:
            gr.Info(str(error))
        return look(store, run_id, {}, access.of(request))

    timer.tick(tick, [shown, seen], view.parts, **PRIVATE)
    stop.click(lambda: (gr.Button(visible=False), gr.Row(visible=True)), None, [stop, confirm], **PRIVATE)
    keep.click(lambda: (gr.Button(visible=True), gr.Row(visible=False)), None, [stop, confirm], **PRIVATE)
    stop_now.click(ask_to_stop, shown, view.parts, **SPEAKING)
    resume.click(go_on, shown, view.parts, **SPEAKING)
    return view


def look(store: Store, run_id: str, before: dict[str, Any], may: May) -> list[Any]:
    """Updates for `RunView.parts`.

    before: the signature of what the page shows now, {} to draw everything. may: what whoever looks may do.
    """
    same = gr.skip()
    if not run_id:
        return [same] * 10 + [gr.Timer(active=False), same]
    try:
        run = store.get(run_id)
        config, status = run.config, run.status
    except UserError as error:  # deleted in another tab
        gone = f'<div class="card failed"><h3>{escape(str(error))}</h3><p>Press <b>← New run</b> to go on.</p></div>'
        hidden = [gr.Button(visible=False), gr.Row(visible=False), gr.Row(visible=False)]
        return [gone, "", "", "", *hidden, same, same, same, gr.Timer(active=False), {}]
    now = signature(run, status)
    if now == before:
        return [same] * 12

    def changed(*keys: str) -> bool:
        return before.get("id") != run_id or any(before.get(k) != now[k] for k in keys)

    head = head_html(run, config, status, store) if changed("second", "state", "stage", "metrics") else same
    curves = same
    if changed("metrics", "state"):
        curves = early_html(status, run) or curves_html(run, config)
    tell = teller(run, may)
    log = log_html(run, tell) if changed("log") else same
    if not changed("state"):
        return [head, same, curves, log, *[same] * 7, now]
    stoppable = status.live and not run.stop_requested and may(run, "stop")
    comparable = any(name != "teacher" for name in run.model_folders)
    return [
        head, result_html(run, config, status, may(run, "download"), tell), curves, log,
        gr.Button(visible=stoppable), gr.Row(visible=False), gr.Row(visible=not status.live),
        gr.Button(visible=status.resumable and may(run, "resume")), gr.Button(visible=comparable),
        gr.Button(visible=may(run, "start")), gr.Timer(active=status.live), now,
    ]  # fmt: skip
