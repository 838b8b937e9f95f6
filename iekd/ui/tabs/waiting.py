"""Buttons whose work takes long: what happens is said at the click, in the browser, before the server has answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import gradio as gr

from iekd.language import _
from iekd.ui.render.template import problem_html


def click_and_wait(
    button: gr.Button, words: str, work: Callable[..., str], inputs: Sequence[Any], found: gr.HTML, **event: Any
) -> None:
    """Do `work` on a click.

    Args:
        words: shown in `found` from the click until `work` is done.
        work: called with the values of `inputs`; returns HTML for `found`.
        event: more of what Gradio's `click` takes.
    """
    waiting = f'<p class="waiting" role="status">{escape(words)}</p>'
    failed = problem_html(_("Something went wrong on the server; its log says what. Try again."))
    button.click(None, None, found, js=f"() => {json.dumps(waiting)}", api_visibility="private")
    done = button.click(work, inputs, found, api_visibility="private", show_progress="hidden", **event)
    done.failure(None, None, found, js=f"() => {json.dumps(failed)}", api_visibility="private")
