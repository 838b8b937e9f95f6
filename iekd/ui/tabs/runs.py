"""The Runs tab: every run with its state and results; open, stop, resume or delete one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from iekd.config.methods import method_name
from iekd.data import title_of
from iekd.errors import UserError
from iekd.launchers.base import Launcher
from iekd.models.catalog import model_name
from iekd.plural import counted
from iekd.results.report import summaries
from iekd.runs.queue import ahead_of
from iekd.runs.store import QUEUED, RUNNING, STOPPING, Run, Store
from iekd.ui.render.run import badge
from iekd.ui.render.words import duration, method_style, run_title, when
from iekd.ui.server.access import Access, May
from iekd.ui.tabs.run import PRIVATE, Updates

EMPTY = (
    '<div class="empty"><h2>No runs yet</h2><p>Go to <b>Train</b> and press <b>Start</b>: the first run is set up. '
    "It will be listed here with its results, and stays when you close the page.</p></div>"
)
# One listener for all rows: a button says which run and what to do with it. What cannot be undone is asked first.
ON_LOAD = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (!button) return;
  const {run, act, ask} = button.dataset;
  if (ask && !window.confirm(ask)) return;
  trigger('click', {run, act});
});
"""


@dataclass
class RunsTab:
    """What the page's layout needs of this tab."""

    table: gr.HTML
    timer: gr.Timer
    refresh: Callable[[gr.Request], str]


def runs_tab(launcher: Launcher, access: Access) -> RunsTab:
    """Build the tab; its timer is to be active only while the tab is in front."""
    store = launcher.store
    table = gr.HTML(EMPTY, js_on_load=ON_LOAD, apply_default_css=False, elem_id="runs-table")
    timer = gr.Timer(4.0, active=False)
    fingerprint = gr.Textbox(visible=False)  # of what is shown: the table itself may be long

    def refresh(request: gr.Request) -> str:
        return table_html(store, access.of(request))

    def tick(shown: str, request: gr.Request) -> Updates:
        new = refresh(request)
        now = hashlib.sha256(new.encode()).hexdigest()
        return {fingerprint: gr.skip()} if now == shown else {table: new, fingerprint: now}

    timer.tick(tick, fingerprint, [table, fingerprint], **PRIVATE)
    # after another event has drawn the table, the fingerprint is no longer its own
    table.change(lambda: "", None, fingerprint, **PRIVATE)
    return RunsTab(table, timer, refresh)


def act(launcher: Launcher, access: Access, asker: gr.Request, event: gr.EventData) -> tuple[str, str]:
    """Do what a row's button says; returns (id of a run to open or "", the table)."""
    store = launcher.store
    run_id, what = str(getattr(event, "run", "")), str(getattr(event, "act", ""))
    try:
        run = store.get(run_id)
        if what == "open":
            return run_id, table_html(store, access.of(asker))
        access.check_change(asker, run, {"first": "move"}.get(what, what))
        if what == "stop":
            waits = run.status.state == QUEUED
            launcher.request_stop(run_id)
            gr.Info("It leaves the queue." if waits else "It stops after the current step.")
        elif what == "resume":
            launcher.resume(run_id)
            return run_id, table_html(store, access.of(asker))
        elif what == "first":
            launcher.move_to_front(run_id)
            gr.Info("It is the next.")
        elif what == "delete":
            _let_go(run)
            store.delete(run_id)
    except UserError as error:
        gr.Warning(str(error))
    return "", table_html(store, access.of(asker))


def _let_go(run: Run) -> None:
    """A worker that has just ended holds its folder for a moment longer."""
    for _ in range(25):
        if run.status.live or not run.alive():
            return
        time.sleep(0.2)


def table_html(store: Store, may: May) -> str:
    """All runs, newest first, with buttons for what whoever looks may do; on a phone each becomes a card."""
    rows = []
    for run in store.list():
        try:
            rows.append(_row(run, store, may))
        except (UserError, KeyError, TypeError, AttributeError):
            rows.append(_broken(run, may))
    if not rows:
        return EMPTY
    names = ("Run", "State", "Pictures", "Networks", "Accuracy", "Time", "")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _row(run: Run, store: Store, may: May) -> str:
    config, status, report = run.config, run.status, run.report
    title = escape(run_title(config) if config.name else ", ".join(map(method_name, config.methods)))
    seeds = f", {len(config.seeds)} seeds" if len(config.seeds) > 1 else f", seed {config.seeds[0]}"
    seeds = "" if config.seeds == (0,) else seeds  # the usual one goes without saying
    name = (
        f'<button class="link" data-act="open" data-run="{escape(run.id)}" '
        f'title="Open {escape(run.id)}">{title}</button>'
        f"<small>{when(status.created)}</small>"
    )
    networks = (
        escape(f"{model_name(config.teacher)} → {model_name(config.student)}")
        if config.needs_teacher
        else escape(model_name(config.student))
    )
    epochs = f"{counted(config.epochs, 'epoch')}{seeds}"
    stopping = status.live and run.stop_requested
    state = badge(STOPPING if stopping else status.state)
    if status.state == RUNNING:
        state += f"<small>{status.progress:.0%}</small>"
    took = duration(status.seconds)
    cells = (
        ("State", state), ("Pictures", escape(title_of(config.dataset))),
        ("Networks", f"{networks}<small>{epochs}</small>"),
        ("Accuracy", _accuracies(report)), ("Time", took),
    )  # fmt: skip
    body = "".join(
        f'<td data-label="{label}" class="{label.lower()}"><div>{text or "–"}</div></td>' for label, text in cells
    )
    row = f'<tr data-act="open" data-run="{escape(run.id)}"><th scope="row">{name}</th>{body}'
    more = ""
    if status.resumable and may(run, "resume"):
        more = _act(run, "resume", "Resume")
    elif status.state == QUEUED and may(run, "move") and ahead_of(run, store):
        more = _act(run, "first", "Do next")
    return f'{row}<td class="acts"><div>{more}{"" if stopping else _button(run, status.live, may)}</div></td></tr>'


def _accuracies(report: dict[str, Any] | None) -> str:
    if not report:
        return ""
    means = {found.method: found.mean for found in summaries(report)}
    best = max(means.values())
    parts = (
        [f'<span class="acc"><i class="key teacher"></i>Teacher {report["teacher"]["accuracy"]:.1f}</span>']
        if report["teacher"]
        else []
    )
    for method, value in means.items():
        text = f"<b>{value:.1f}</b>" if value == best and len(means) > 1 else f"{value:.1f}"
        parts.append(
            f'<span class="acc"><i class="key {escape(method_style(method))}"></i>'
            f"{escape(method_name(method))} {text}</span>"
        )
    if gone := report.get("diverged"):
        parts.append(f'<span class="acc lost" title="{escape(", ".join(gone))}">{len(gone)} diverged</span>')
    return "".join(parts)


def _button(run: Run, live: bool, may: May) -> str:
    if not may(run, "stop" if live else "delete"):
        return ""
    if live:
        return _act(run, "stop", "Stop", "Stop this run? Its students are kept, and you can resume the training later.")
    return _act(run, "delete", "Delete", "Delete this run with its models, curves and log? This cannot be undone.")


def _act(run: Run, what: str, label: str, ask: str = "") -> str:
    """A button of a row; `ask` is asked first."""
    return (
        f'<button class="small {what}" data-act="{what}" data-run="{escape(run.id)}" data-ask="{ask}" '
        f'aria-label="{label}: run {escape(run.id)}">{label}</button>'
    )


def _broken(run: Run, may: May) -> str:
    """A folder that cannot be read as a run can still be deleted."""
    return (
        f'<tr><th scope="row">{escape(run.id)}</th><td colspan="5">This run’s files cannot be read.</td>'
        f'<td class="acts">{_button(run, False, may)}</td></tr>'
    )
