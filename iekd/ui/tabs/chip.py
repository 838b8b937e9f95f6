"""The chip in the header: what trains now, whichever tab is in front."""

from __future__ import annotations

import math

import gradio as gr

from iekd.errors import UserError
from iekd.runs.status import LIVE, QUEUED
from iekd.runs.store import Store
from iekd.ui.render.template import render
from iekd.ui.render.words import run_title
from iekd.ui.tabs.run import PRIVATE

EVERY = 5.0  # seconds


def chip(demo: gr.Blocks, store: Store) -> None:
    """Build the chip and keep it up to date."""
    shown = gr.HTML(elem_id="chip")
    timer = gr.Timer(EVERY)

    def look(now: str | None) -> str:
        html = chip_html(store)
        return gr.skip() if html == (now or "") else html  # type: ignore[no-any-return]

    timer.tick(look, shown, shown, **PRIVATE)
    demo.load(look, shown, shown, **PRIVATE)


def chip_html(store: Store) -> str:
    """The runs that train, and how many wait; "" where there are none."""
    training, waiting = [], 0
    for run in store.list():
        try:
            status = run.status
            if status.state == QUEUED:
                waiting += 1
            elif status.state in LIVE:
                training.append((run.id, run_title(run.config, run), math.floor(100 * status.progress)))
        except UserError:
            continue  # a damaged folder does not train
    return render("chip", training=training, waiting=waiting).strip()
