"""A section of the Compare tab: two models on the whole test set, loaded when its button is pressed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Optional, cast

import gradio as gr
import numpy as np

from iekd.errors import UserError
from iekd.language import N_, _
from iekd.results.test_set import TestSetPredictions, analyse
from iekd.runs.store import Store
from iekd.runs.test_set import predicted_set, read_images
from iekd.ui.render.template import html_text, problem_html
from iekd.ui.render.test_set import GONE, cell_html, details_html, overview_html, title_of
from iekd.ui.rights.access import Access, May
from iekd.ui.rights.visible import may_look, redact_for, run_called
from iekd.ui.shared.answers import TestSetFound
from iekd.ui.tabs.run import PRIVATE, Updates

NOT_LOOKED_AT = N_(
    "This run has no stored predictions, and only its owner may compute them, by opening this section. "
    "Choose another run."
)
HIDDEN = N_("not shown")  # instead of images that are somebody's own
# chooses a matrix, opens the images of a cell, and moves among the cells with the arrow keys
ON_LOAD = """
element.addEventListener('click', (event) => {
  const view = event.target.closest('[data-view]'), cell = event.target.closest('[data-cell]');
  if (view) {
    element.querySelector('.matrix').dataset.show = view.dataset.view;
    element.querySelectorAll('[data-view]').forEach((one) => one.setAttribute('aria-pressed', String(one === view)));
  }
  if (!cell) return;
  element.querySelectorAll('.picked').forEach((one) => one.classList.remove('picked'));
  element.querySelectorAll(`[data-cell="${cell.dataset.cell}"]`).forEach((one) => one.classList.add('picked'));
  trigger('click', {cell: cell.dataset.cell});
});
element.addEventListener('keydown', (event) => {
  const cell = event.target.closest('.matrix [data-cell]');
  if (!cell || !event.key.startsWith('Arrow')) return;
  event.preventDefault();
  const cells = [...element.querySelectorAll('.matrix [data-cell]')];
  const place = (one) => one.dataset.cell.split(',').map(Number);
  const at = cells.indexOf(cell), [row, column] = place(cell), down = event.key === 'ArrowDown' ? 1 : -1;
  let next = cells[at + (event.key === 'ArrowRight' ? 1 : -1)];  // in reading order
  if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {  // in the nearest row, the nearest column
    const far = (one) => (place(one)[0] - row) * down * 1000 + Math.abs(place(one)[1] - column);
    next = cells.filter((one) => (place(one)[0] - row) * down > 0).sort((a, b) => far(a) - far(b))[0];
  }
  if (!next) return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
"""
TO_CELL = "() => document.querySelector('#test-set-cell').scrollIntoView({block: 'nearest'})"


@dataclass
class TestSetPart:
    """The components of the section."""

    look: gr.Button
    choice: gr.Row
    first: gr.Dropdown
    second: gr.Dropdown
    overview: gr.HTML
    cell: gr.HTML
    details: gr.HTML
    waiting: gr.Checkbox

    @property
    def outputs(self) -> list[Any]:
        """What `closed` and the section's own events may change."""
        return list(vars(self).values())

    def closed(self) -> Updates:
        """As before its button was pressed: other models are to be compared."""
        return {
            self.look: gr.Button(visible=True), self.choice: gr.Row(visible=False),
            self.first: gr.Dropdown(choices=[], value=None), self.second: gr.Dropdown(choices=[], value=None),
            self.overview: "", self.cell: "", self.details: "", self.waiting: False,
        }  # fmt: skip


def test_set_part(store: Store, access: Access, source: gr.Dropdown) -> TestSetPart:
    """Build the section and its events. source: which models; see `runs.test_set.predicted_set`."""
    look = gr.Button(_("Look at the whole test set"), elem_id="look-at-test-set")
    with gr.Row(visible=False) as choice:
        first = gr.Dropdown([], label=_("Compare"), filterable=False, elem_id="test-set-first")
        second = gr.Dropdown([], label=_("with"), filterable=False, elem_id="test-set-second")
    overview = gr.HTML("", js_on_load=ON_LOAD, apply_default_css=False, elem_id="test-set")
    cell = gr.HTML("", apply_default_css=False, elem_id="test-set-cell")
    details = gr.HTML("", apply_default_css=False, elem_id="test-set-details")
    waiting = gr.Checkbox(False, visible=False)  # whether something is left to compute
    part = TestSetPart(look, choice, first, second, overview, cell, details, waiting)

    def show(compute: bool, of: str, one: Optional[str], other: Optional[str], request: gr.Request) -> Updates:
        found = section(store, of, one or "", other or "", access.of(request), compute)
        updates: Updates = {
            look: gr.Button(visible=False), overview: found.overview, cell: "", details: found.details,
            waiting: found.waiting,
        }  # fmt: skip
        if found.models:
            choices = [(title_of(name), name) for name in found.models]
            updates[choice] = gr.Row(visible=True)
            updates[first] = gr.Dropdown(choices, value=found.first)
            updates[second] = gr.Dropdown(choices, value=found.second)
        return updates

    def at_once(of: str, one: Optional[str], other: Optional[str], request: gr.Request) -> Updates:
        return show(False, of, one, other, request)

    def compute(wanted: bool, of: str, request: gr.Request) -> None:
        with contextlib.suppress(UserError):  # the next step says it
            if wanted and may_look(run_called(store, of), access.of(request)):
                predicted_set(store, of)

    def complete(wanted: bool, of: str, one: Optional[str], other: Optional[str], request: gr.Request) -> Updates:
        return show(True, of, one, other, request) if wanted else {waiting: False}

    def open_cell(of: str, one: Optional[str], other: Optional[str], event: gr.EventData, request: gr.Request) -> str:
        try:
            allowed = may_look(run_called(store, of), access.of(request))
            found = predicted_set(store, of, False)
            if found is None:
                return ""
            label, predicted = _cell_of(str(getattr(event, "cell", "")), found)
            what = analyse(found, one or "", other or "")
            return cell_html(what, label, predicted, _Reader(store, of, found, allowed), _missing(allowed))
        except UserError as error:
            text = redact_for(store, of, access.of(request))(str(error))
            return problem_html(text)

    models, changed = [source, first, second], part.outputs
    busy: dict[str, Any] = {**PRIVATE, "queue": True, "concurrency_limit": 1}
    for asked in (look.click, first.input, second.input):
        shown = asked(at_once, models, changed, **PRIVATE)
        # two steps, because other models may be chosen while these are computing; then `waiting` is off again
        shown.then(compute, [waiting, source], None, **busy).then(complete, [waiting, *models], changed, **busy)
    overview.click(open_cell, models, cell, **PRIVATE).then(None, None, None, js=TO_CELL, api_visibility="private")
    return part


@dataclass(frozen=True)
class Section:
    """What the section shows.

    models: to choose from; empty if there is nothing to show yet. waiting: whether something has to be computed first.
    """

    overview: str
    details: str = ""
    models: tuple[str, ...] = ()
    first: str = ""
    second: str = ""
    waiting: bool = False


def section(store: Store, source: str, first: str, second: str, may: May, compute: bool) -> Section:
    """The section about some models, for one who may do that; see `runs.test_set.predicted_set`."""
    try:
        allowed = may_look(run_called(store, source), may)
        found = predicted_set(store, source, compute and allowed)
        if found is None and allowed and not compute:
            words = html_text("The networks look at the test images…")
            return Section(f'<div class="placeholder">{words}</div>', waiting=True)
        if found is None:
            raise UserError(_(NOT_LOOKED_AT))
        what = analyse(found, first, second)
    except UserError as error:
        return Section(problem_html(redact_for(store, source, may)(str(error))))
    waiting = allowed and not compute and not found.confidences
    read, tell = _Reader(store, source, found, allowed), redact_for(store, source, may)
    details = details_html(what, read, waiting, tell, _missing(allowed))
    return Section(overview_html(what), details, tuple(found.predictions), what.first, what.second, waiting)


class _Reader:
    """Reads images of a test set; none where they are somebody's own and whoever looks may not see them."""

    def __init__(self, store: Store, source: str, of: TestSetPredictions, allowed: bool) -> None:
        self.store, self.source, self.of, self.allowed = store, source, of, allowed

    def __call__(self, rows: Sequence[int]) -> Sequence[np.ndarray | None]:
        return read_images(self.store, self.source, self.of, rows) if self.allowed and rows else [None] * len(rows)


def _missing(allowed: bool) -> str:
    return GONE if allowed else HIDDEN


def _cell_of(text: str, found: TestSetPredictions) -> tuple[int, int]:
    """ "3,5" -> (3, 5).

    Raises:
        UserError: there is no such cell.
    """
    numbers = text.split(",")
    if len(numbers) == 2 and all(n.isdecimal() and int(n) < len(found.class_names) for n in numbers):
        return int(numbers[0]), int(numbers[1])
    raise UserError(_("There is no cell '{text}'. Click a number of the matrix or a pair.", text=text))


def test_set_found(store: Store, source: str, first: str, second: str, may: May) -> TestSetFound:
    """The analysis for the public endpoint; images are named without their folders.

    Raises:
        UserError: there is no such run or model, or nothing is known of its test set.
    """
    found = predicted_set(store, source, may_look(run_called(store, source), may))
    if found is None:
        raise UserError(_(NOT_LOOKED_AT))
    names = tuple(PurePath(name).name for name in found.images)
    shown = replace(found, images=names, without=redact_for(store, source, may)(found.without))
    return cast(TestSetFound, analyse(shown, first, second).to_json())
