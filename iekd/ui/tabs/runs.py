"""The Runs tab: every run with its state and results, to search, name, star, compare, open, stop, resume or delete."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import gradio as gr

from iekd.errors import UserError
from iekd.language import _
from iekd.launchers.base import Launcher
from iekd.runs import trash
from iekd.runs.compare import compare_runs
from iekd.runs.index import Index
from iekd.runs.notes import write_notes
from iekd.runs.status import QUEUED
from iekd.runs.store import Run, Store
from iekd.ui.render.compare_runs import comparison_html
from iekd.ui.render.runs import CHANGE, Query, list_html, tools_html
from iekd.ui.render.sparkline import Sparklines
from iekd.ui.render.template import problem_html, render
from iekd.ui.rights.access import Access, May
from iekd.ui.shared.actions import resume_run
from iekd.ui.tabs.run import PRIVATE, Updates

log = logging.getLogger(__name__)
ASKED = ("search", "dataset", "state", "sort")  # of a Query, in the address too
# One listener for all rows. Which runs are ticked, what is being asked, and where the keyboard is, live here: the list
# is drawn again every few seconds.
ON_LOAD = """
const picked = new Set();
let asking = null, focused = '', fresh = 0;
const words = window.iekdWords, filled = (text, count) => text.replace('{count}', count);
const find = (selector) => element.querySelector(selector);
const draw = () => {
  const bar = find('.runs-bar');
  if (!bar) return;
  element.querySelectorAll('[data-pick]').forEach((box) => { box.checked = picked.has(box.value); });
  find('.undo')?.classList.toggle('fresh', Date.now() < fresh);
  if (focused && document.activeElement === document.body) find(focused)?.focus({preventScroll: true});
  const drawn = JSON.stringify([[...picked], asking]);
  if (bar.dataset.drawn === drawn) return;
  bar.dataset.drawn = drawn;
  bar.classList.toggle('picks', picked.size > 0 && !asking);
  bar.classList.toggle('asks', Boolean(asking));
  bar.querySelector('.count').textContent = filled(words.chosen, picked.size);
  const compare = bar.querySelector('[data-bar=compare]');
  compare.disabled = picked.size < 2 || picked.size > 8;
  compare.title = compare.disabled ? words.chooseRuns : '';
  bar.querySelector('.question').textContent = asking ? asking.question : '';
  bar.querySelector('[data-bar=yes]').textContent = asking ? asking.yes : '';
};
const ask = (act, runs, price) => {
  asking = act === 'stop' ? {act, runs, yes: words.stop, question: words.stopRun}
    : act === 'resume' ? {act, runs, yes: words.resume, question: price}
    : {act, runs, yes: words.delete,
       question: runs.length === 1 ? words.deleteRun : filled(words.deleteRuns, runs.length)};
  draw();
  find('[data-bar=yes]').focus();
};
const close = () => {
  const form = find('form.edit-run');
  if (form) { focused = `[data-do="edit"][data-run="${form.dataset.run}"]`; form.remove(); find(focused)?.focus(); }
};
const edit = (button) => {
  close();
  const row = button.closest('tr'), link = row.querySelector('.link');
  const form = find('template.edit').content.firstElementChild.cloneNode(true);
  form.dataset.run = button.dataset.run;
  form.elements.name.value = link.dataset.name;
  form.elements.name.placeholder = link.textContent;
  form.elements.note.value = link.dataset.note;
  row.querySelector('.named > div').append(form);
  form.elements.name.select();
};
const pressed = (name) => {
  if (name === 'compare') trigger('click', {act: 'compare', run: [...picked].join(',')});
  if (name === 'delete') ask('delete', [...picked]);
  if (name === 'clear') picked.clear();
  if (name === 'yes') {
    trigger('click', {act: asking.act, run: asking.runs.join(',')});
    asking.runs.forEach((run) => picked.delete(run));
    if (asking.act === 'delete') {  // the offer to undo it is in sight for a while, wherever one is in the list
      fresh = Date.now() + 12000;
      setTimeout(draw, 12100);
    }
  }
  if (name === 'yes' || name === 'no') asking = null;
  draw();
};
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do], [data-bar], [data-act], form, label, a');
  if (!button || button.disabled) return;
  const {act, run, bar, batch, page} = button.dataset, doing = button.dataset.do;
  if (bar) pressed(bar);
  else if (doing === 'edit') edit(button);
  else if (doing === 'cancel') close();
  else if (doing === 'star') trigger('click', {act: 'star', run, on: button.getAttribute('aria-pressed') !== 'true'});
  else if (doing) trigger('click', {act: doing, run: '', batch, page: Number(page)});
  else if (act === 'delete' || act === 'stop' || button.dataset.price) ask(act, [run], button.dataset.price);
  else if (act) trigger('click', {run, act});
});
element.addEventListener('change', (event) => {
  if (!event.target.matches('[data-pick]')) return;
  if (event.target.checked) picked.add(event.target.value); else picked.delete(event.target.value);
  draw();
});
element.addEventListener('submit', (event) => {
  event.preventDefault();
  const form = event.target, run = form.dataset.run;
  trigger('click', {act: 'edit', run, name: form.elements.name.value, note: form.elements.note.value});
  close();
});
element.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape') return;
  close();
  asking = null;
  draw();
});
element.addEventListener('focusin', (event) => {
  const kinds = ['data-act', 'data-do', 'data-bar', 'data-run', 'data-page', 'value'];
  const own = kinds.filter((kind) => event.target.hasAttribute(kind));
  focused = own.map((kind) => `[${kind}="${CSS.escape(event.target.getAttribute(kind))}"]`).join('');
});
document.addEventListener('pointerdown', (event) => { if (!element.contains(event.target)) focused = ''; });
new MutationObserver(draw).observe(element, {childList: true, subtree: true});
"""
SEARCH = """
let waits;
element.addEventListener('input', (event) => {
  clearTimeout(waits);
  const send = () => trigger('input', Object.fromEntries(new FormData(element.querySelector('form'))));
  waits = setTimeout(send, event.target.type === 'search' ? 250 : 0);
});
"""
CLOSE = """
let seen = element.querySelectorAll('.compared').length;
element.addEventListener('click', (event) => { if (event.target.closest('[data-close]')) trigger('click', {}); });
new MutationObserver(() => {
  const now = element.querySelectorAll('.compared').length;
  if (now && !seen) element.scrollIntoView({block: 'start'});
  seen = now;
}).observe(element, {childList: true, subtree: true});
"""
# what the list is searched for is in the address while the tab is in front, and no step for the browser's Back
KEEP_QUERY = """(query) => {
  if (!('opened' in document.documentElement.dataset)) return;
  const address = new URL(window.location), its = address.searchParams, here = its.get('tab') === 'runs';
  for (const [name, usual] of Object.entries({search: '', dataset: '', state: '', sort: 'newest'})) {
    const value = here && query ? query[name] : usual;
    if (value && value !== usual) its.set(name, value); else its.delete(name);
  }
  if (address.href !== window.location.href) history.replaceState(null, '', address);
}"""
# nothing is drawn again while somebody writes into the list or is asked something in it
BUSY = """(...values) => [...values.slice(0, -1),
  document.querySelector('#runs-table form, #runs-table .runs-bar.asks') ? 'busy' : '']"""


@dataclass
class RunsTab:
    """The components of the tab, and what the page's layout needs of it."""

    launcher: Launcher
    access: Access
    index: Index
    sparks: Sparklines
    tools: gr.HTML
    comparison: gr.HTML
    table: gr.HTML
    timer: gr.Timer
    query: gr.JSON
    compared: gr.Textbox

    @property
    def outputs(self) -> list[Any]:
        """What `open` and `press` may change."""
        return [self.tools, self.comparison, self.table, self.timer, self.query, self.compared]

    def list(self, query: Any, request: gr.Request | None) -> str:
        """The list; query: what the page holds of it."""
        return list_html(self.index, self.sparks, Query.read(query), self.access.of(request), render("no_runs"))

    def open(self, query: Any, request: gr.Request) -> Updates:
        """Everything in the list's part of the tab, as it is now."""
        tools = tools_html(self.index, Query.read(query), self.access.of(request))
        return {self.tools: tools, self.table: self.list(query, request)}

    def compare(self, run_ids: str, request: gr.Request) -> str:
        """The comparison of runs whose ids are given with commas; empty for none."""
        ids = [run_id for run_id in run_ids.split(",") if run_id]
        if not ids:
            return ""
        try:
            return comparison_html(compare_runs(self.launcher.store, ids), self.access.of(request))
        except UserError as error:
            return problem_html(error)

    def press(self, query: Any, event: gr.EventData, request: gr.Request) -> tuple[str, Updates]:
        """Do what a button of the list says; returns (id of a run to open or "", what changes)."""
        what, run_ids = str(getattr(event, "act", "")), str(getattr(event, "run", ""))
        updates: Updates = {}
        if what == "compare":
            updates |= {self.compared: run_ids, self.comparison: self.compare(run_ids, request)}
        elif what == "page":
            query = asdict(replace(Query.read(query), page=int(getattr(event, "page", 0) or 0)))
            updates[self.query] = query
        opened = act(self.launcher, self.access, request, event)
        return opened, {**updates, self.table: self.list(query, request)}


def runs_tab(launcher: Launcher, access: Access) -> RunsTab:
    """Build the tab; its timer is to be active only while the tab is in front."""
    store = launcher.store
    tools = gr.HTML(js_on_load=SEARCH, apply_default_css=False, elem_id="runs-tools")
    comparison = gr.HTML(js_on_load=CLOSE, apply_default_css=False, elem_id="runs-comparison")
    table = gr.HTML(render("no_runs"), js_on_load=ON_LOAD, apply_default_css=False, elem_id="runs-table")
    timer = gr.Timer(4.0, active=False)
    query = gr.JSON(visible=False)
    compared = gr.Textbox(visible="hidden", elem_id="compared-runs")
    busy = gr.Textbox(visible=False)
    fingerprint = gr.Textbox(visible=False)  # of what is shown: the table itself may be long
    tab = RunsTab(
        launcher, access, Index(store), Sparklines(), tools, comparison, table, timer, query, compared
    )  # fmt: skip

    def tick(shown: str, wanted: Any, ids: str, writing: str, request: gr.Request) -> Updates:
        if writing:
            return {fingerprint: gr.skip()}
        new, side = tab.list(wanted, request), tab.compare(ids or "", request)
        now = hashlib.sha256(f"{new}\0{side}".encode()).hexdigest()
        return {fingerprint: gr.skip()} if now == shown else {table: new, comparison: side, fingerprint: now}

    def search(event: gr.EventData, request: gr.Request) -> Updates:
        wanted = asdict(Query.read({name: getattr(event, name, "") for name in ASKED}))
        return {query: wanted, table: tab.list(wanted, request)}

    timer.tick(tick, [fingerprint, query, compared, busy], [table, comparison, fingerprint], js=BUSY, **PRIVATE)
    tools.input(search, None, [query, table], **PRIVATE).then(
        None, query, None, js=KEEP_QUERY, api_visibility="private"
    )
    comparison.click(lambda: ("", ""), None, [compared, comparison], **PRIVATE)
    # after another event has drawn the table, the fingerprint is no longer its own
    table.change(lambda: "", None, fingerprint, **PRIVATE)
    return tab


def act(launcher: Launcher, access: Access, asker: gr.Request, event: gr.EventData) -> str:
    """Do what a button says to runs; returns the id of a run to open, or "". What goes wrong is shown in the corner."""
    store = launcher.store
    run_id, what = str(getattr(event, "run", "")), str(getattr(event, "act", ""))
    try:
        if what == "delete":
            _delete(store, access, asker, run_id.split(","))
        elif what == "undo":
            _undo(store, access, asker, str(getattr(event, "batch", "")))
        elif what not in ("compare", "page"):
            return _act_on(store.get(run_id), launcher, access, asker, event, what)
    except UserError as error:
        gr.Warning(str(error))
    return ""


def _act_on(
    run: Run, launcher: Launcher, access: Access, asker: gr.Request, event: gr.EventData, what: str
) -> str:  # fmt: skip
    """`act` for what is done to one run."""
    if what == "open":
        return run.id
    access.check_change(asker, run, {"first": "move", "star": CHANGE, "edit": CHANGE}.get(what, what))
    if what == "stop":
        waits = run.status.state == QUEUED
        launcher.request_stop(run.id)
        gr.Info(_("It leaves the queue.") if waits else _("It stops after the current step."))
    elif what == "resume":
        resume_run(launcher, access, asker, run)
        return run.id
    elif what == "first":
        launcher.move_to_front(run.id)
        gr.Info(_("Moved to the front of the queue."))
    elif what == "star":
        write_notes(run, starred=bool(getattr(event, "on", True)))
    elif what == "edit":
        write_notes(run, name=str(getattr(event, "name", "") or ""), note=str(getattr(event, "note", "") or ""))
    return ""


def _delete(store: Store, access: Access, asker: gr.Request, run_ids: list[str]) -> None:
    """Move runs to the trash; those that cannot be are named in the corner.

    Raises:
        UserError: not one of them is there, or whoever asks may not delete one of them.
    """
    for run_id in run_ids:
        access.check_change(asker, store.get(run_id), "delete")
    moved, refused = trash.delete(store, run_ids)
    for sentence in refused:
        gr.Warning(sentence)
    if moved:
        log.info("action=trash runs=%s", ",".join(moved))


def _undo(store: Store, access: Access, asker: gr.Request, batch: str) -> None:
    for deletion in trash.deletions(store):
        if deletion.name == batch:
            for run in deletion.runs:
                access.check_change(asker, run, "delete")
    trash.undo(store, batch)


def table_html(store: Store, may: May, query: Query | None = None) -> str:
    """All runs, newest first, with buttons for what whoever looks may do; on a phone each becomes a card."""
    return list_html(Index(store), Sparklines(), query or Query(), may, render("no_runs"))
