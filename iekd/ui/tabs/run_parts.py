"""The parts of a run's page below its headline: tools with Present, watched images, classes, and three folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from iekd.config.run import RunConfig
from iekd.data import own_path
from iekd.runs.store import Run, Status
from iekd.ui.render.run import early_html
from iekd.ui.render.run_parts import certainty_html, classes_html, tools_html, watched_html
from iekd.ui.server.access import May

LEAVE = '<button type="button" data-leave aria-label="Leave the presentation">Leave <kbd>Esc</kbd></button>'
# Present is a state of the page alone: what is shown keeps streaming, and the style sheet says what is large or hidden.
# The address carries it. In full screen the browser takes Esc for itself, so to leave that is to leave both.
PRESENT = """
const root = document.documentElement, leave = element.querySelector('[data-leave]');
const view = () => document.querySelector('#run-view');
const note = (on) => {
  const address = new URL(location);
  if (on) address.searchParams.set('present', '1'); else address.searchParams.delete('present');
  if (address.href !== location.href) history.replaceState(history.state, '', address);
};
const begin = (full) => {
  root.dataset.present = '';
  note(true);
  window.scrollTo(0, 0);
  leave.focus();
  if (full) root.requestFullscreen?.().catch(() => {});
};
const end = () => {
  if (!('present' in root.dataset)) return;
  delete root.dataset.present;
  note(false);
  if (document.fullscreenElement) document.exitFullscreen().catch(() => {});
  document.querySelector('button[data-present]')?.focus();
};
document.addEventListener('click', (event) => {
  const button = event.target.closest?.('button[data-present], button[data-leave], button[data-copy]');
  if (!button) return;
  if ('present' in button.dataset) begin(true);
  else if ('leave' in button.dataset) end();
  else {
    const words = button.parentElement.querySelector('p');
    getSelection().selectAllChildren(words);
    navigator.clipboard?.writeText(words.textContent).then(() => { button.textContent = 'Copied'; }).catch(() => {});
  }
});
document.addEventListener('keydown', (event) => { if (event.key === 'Escape') end(); });
document.addEventListener('fullscreenchange', () => { if (!document.fullscreenElement) end(); });
if (new URL(location).searchParams.get('present') === '1') {
  let looks = 0;  // the run comes a moment after the page
  const wait = setInterval(() => {
    const there = 'opened' in root.dataset && view()?.offsetParent;
    if (!there && (looks += 1) < 600) return;
    clearInterval(wait);
    if (there) begin(false); else note(false);
  }, 50);
}
"""


@dataclass
class RunParts:
    """The components that change with the run."""

    tools: gr.HTML
    early: gr.HTML
    watched: gr.HTML
    classes: gr.HTML
    curves: gr.HTML
    certainty: gr.HTML
    log: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]


def tools_part() -> gr.HTML:
    """The buttons, and the one that leaves the presentation."""
    gr.HTML(LEAVE, js_on_load=PRESENT, apply_default_css=False, elem_id="present")
    return gr.HTML(elem_id="run-tools")


def run_parts(tools: gr.HTML, early: gr.HTML) -> RunParts:
    """Build them, below the chart. Gradio keeps which of the folds are open while their contents change."""
    watched = gr.HTML(elem_id="watched")
    classes = gr.HTML(elem_id="classes")
    with gr.Accordion("Losses", open=False, elem_id="losses"):
        curves = gr.HTML(elem_id="curves")
    with gr.Accordion("How sure is this?", open=False, elem_id="certainty"):
        certainty = gr.HTML()
    with gr.Accordion("Log", open=False, elem_id="log"):
        log = gr.HTML()
    return RunParts(tools, early, watched, classes, curves, certainty, log)


def look_at_parts(
    run: Run, config: RunConfig, status: Status, may: May, report: dict[str, Any] | None, changed: Callable[..., bool]
) -> dict[str, Any]:
    """New content by the name of RunParts' component, for whoever looks at that run; curves and log are not in it.

    report: what is known of the result, None before it is finished. changed: whether one of these has changed.
    """
    looked: dict[str, Any] = {}
    if changed("metrics", "state"):
        looked["early"] = early_html(status, run)
    if changed("watched", "state", "stage"):
        allowed = own_path(config.dataset) is None or may(run, "download")
        looked["watched"] = watched_html(run, config, status.live, allowed)
    if changed("state"):
        found = None if status.live else report
        looked |= {
            "tools": tools_html(run, found is not None), "classes": classes_html(found),
            "certainty": certainty_html(found),
        }  # fmt: skip
    return looked


def nothing() -> dict[str, Any]:
    """For a run that is gone."""
    return {field.name: "" for field in fields(RunParts)}
