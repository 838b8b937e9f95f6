"""Present: a run's page in large type for a projector, entered with a button or `&present=1`, left with Escape."""

from __future__ import annotations

import gradio as gr

from iekd.ui.render.template import render

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
    const text = button.parentElement.querySelector('p'), say = () => { button.textContent = iekdWords.copied; };
    getSelection().selectAllChildren(text);
    navigator.clipboard?.writeText(text.textContent).then(say).catch(() => {});
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


def present_button() -> None:
    """The button that begins it."""
    gr.HTML(render("present"), apply_default_css=False, elem_id="present-button")


def present_part() -> None:
    """The button that ends it, and the script; also that of the buttons that copy a text."""
    gr.HTML(render("present_leave"), js_on_load=PRESENT, apply_default_css=False, elem_id="present")
