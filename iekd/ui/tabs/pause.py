"""Fields that are typed into change at every key: what a handler does then waits until the last one."""

from __future__ import annotations

import gradio as gr

PAUSE = 300  # milliseconds
TYPED = (gr.Textbox, gr.Number)
# a hidden button is clicked, whose handler gets the values of that moment
AFTER_A_PAUSE = """() => {
  window.pauses ??= {};
  clearTimeout(window.pauses['BUTTON']);
  window.pauses['BUTTON'] = setTimeout(() => document.querySelector('#BUTTON')?.click(), PAUSE);
}""".replace("PAUSE", str(PAUSE))


def click_after_a_pause(elem_id: str) -> str:
    """JavaScript for an event: clicks that button a moment after the last call."""
    return AFTER_A_PAUSE.replace("BUTTON", elem_id)
