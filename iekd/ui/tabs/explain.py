"""A section of the Compare tab: why networks differ, computed when its button is pressed, and shown at once after that.

It is computed by a process of its own (`runs.explained`), and a timer looks how far it is: neither a reload nor
somebody else who asks for the same changes anything. Turning to another image, the kind of map and its opacity are
matters of the browser alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Optional

import gradio as gr

from iekd.errors import UserError
from iekd.language import N_, _
from iekd.results.card import student_name
from iekd.runs.explained import (
    CANCELLED,
    FAILED,
    WAITING,
    Chosen,
    ExplainJob,
    Own,
    choose,
    explainer_of,
    read,
)
from iekd.runs.store import Store
from iekd.ui.render.downloads import explained_links
from iekd.ui.render.explain import maps_html, numbers_html
from iekd.ui.render.template import problem_html, render
from iekd.ui.rights.access import Access, May
from iekd.ui.rights.visible import may_look, redact_for, run_called
from iekd.ui.shared.gradio_patches import open_dropdown
from iekd.ui.tabs.run import PRIVATE, Updates

NOTE = N_("This takes seconds for small networks and minutes for large ones. It goes on if you leave, and is stored.")
NOTE_OWN = N_("Maps only; everything else is measured on test images.")
OR_OWN = N_("For maps, you can choose images above and press 'Explain the images chosen above'.")
NO_IMAGES = N_("Choose, paste or take images above first, or click examples; then press this again.")
CANCELLED_TEXT = N_("Cancelled. Nothing was stored.")
RESTARTED = N_("The server was restarted before this was done. Press the button again.")
PAUSE = 0.7  # seconds between two looks how far it is
NOT_EXPLAINED = N_(
    "This run has not been explained yet, and its images are somebody's own: only those who may download from the run "
    "can have it explained. Choose another run."
)
MAPS_HIDDEN = N_("The maps are not shown: they are of images of somebody's own.")
# turns to an image, chooses the kind of map and its opacity, without asking the server
ON_LOAD = """
const part = (event) => event.target.closest('.explain');
const turn = (section, to) => {
  const slides = [...section.querySelectorAll('.map-slide')], at = (to + slides.length) % slides.length;
  slides.forEach((one, i) => one.classList.toggle('now', i === at));
  section.querySelectorAll('[data-turn]').forEach((one, i) => one.setAttribute('aria-pressed', String(i === at)));
};
element.addEventListener('click', (event) => {
  const section = part(event), kind = event.target.closest('[data-maps]'), image = event.target.closest('[data-turn]');
  if (kind) {
    section.dataset.method = kind.dataset.maps;
    section.querySelectorAll('[data-maps]').forEach((one) => one.setAttribute('aria-pressed', String(one === kind)));
  }
  if (image) turn(section, Number(image.dataset.turn));
});
element.addEventListener('keydown', (event) => {
  const image = event.target.closest('[data-turn]'), step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (!image || !step) return;
  event.preventDefault();
  const all = [...part(event).querySelectorAll('[data-turn]')];
  const next = all[(Number(image.dataset.turn) + step + all.length) % all.length];
  turn(part(event), Number(next.dataset.turn));
  next.focus();
});
element.addEventListener('input', (event) => {
  if (event.target.type !== 'range') return;
  part(event).style.setProperty('--opacity', event.target.value / 100);
  event.target.nextElementSibling.textContent = `${event.target.value} %`;
});
"""
TO_EXPLAIN = "() => document.querySelector('#explain-top')?.scrollIntoView({block: 'start'})"


@dataclass
class ExplainPart:
    """The components of the section, and what opens it.

    The explanation on test images and maps of the visitor's own images are waited for with a timer each, so that an
    answer about one of them, which may come late, changes nothing of the other.

    asked: SOURCE:STUDENT while it is open, for the address. own_key: of the job about the visitor's own images.
    """

    start: gr.Button
    box: gr.Column
    student: gr.Dropdown
    own: gr.Button
    cancel: gr.Button
    status: gr.HTML
    timer: gr.Timer
    own_cancel: gr.Button
    own_maps: gr.HTML
    own_key: gr.Textbox
    own_timer: gr.Timer
    maps: gr.HTML
    numbers: gr.HTML
    asked: gr.Textbox
    begin: Callable[[str, str, gr.Request], Updates]

    @property
    def outputs(self) -> list[Any]:
        """What `closed`, `begin` and the section's own events may change."""
        return [value for name, value in vars(self).items() if name != "begin"]

    def closed(self) -> Updates:
        """As before its button was pressed."""
        return {
            self.start: gr.Button(visible=True), self.box: gr.Column(visible=False), self.status: "",
            self.maps: "", self.numbers: "", self.asked: "", **self.stopped(), **self.own_closed(),
        }  # fmt: skip

    def stopped(self) -> Updates:
        """Nothing on test images is waited for."""
        return {self.timer: gr.Timer(active=False), self.cancel: gr.Button(visible=False)}

    def own_closed(self, shown: str = "") -> Updates:
        """No maps of own images are waited for. shown: HTML in their place."""
        hidden, inactive = gr.Button(visible=False), gr.Timer(active=False)
        return {self.own_maps: shown, self.own_key: "", self.own_timer: inactive, self.own_cancel: hidden}


def explain_part(
    store: Store, access: Access, source: gr.Dropdown, chosen_images: Sequence[Any], given: Callable[..., Own]
) -> ExplainPart:
    """Build the section and its events.

    Args:
        source: which models; see `models_called`.
        chosen_images: components with the visitor's images: uploads, a picture taken, examples picked.
        given: called with the source, their values and whoever asks.
    """
    explainer = explainer_of(store)
    start = gr.Button(_("Explain: where do they look?"), elem_id="explain-start")
    with gr.Column(visible=False, elem_id="explain-top") as box:
        with gr.Row(elem_id="explain-choice"):
            student = open_dropdown(choices=[], label=_("Student"), filterable=False, visible=False,
                                    elem_id="explain-who")  # fmt: skip
            own = gr.Button(_("Explain the images chosen above"), size="sm", elem_id="explain-mine")
        status = gr.HTML("", apply_default_css=False, elem_id="explain-status")
        cancel = gr.Button(_("Cancel"), size="sm", visible=False, elem_id="explain-cancel")
        own_maps = gr.HTML("", js_on_load=ON_LOAD, apply_default_css=False, elem_id="explain-own")
        own_cancel = gr.Button(_("Cancel"), size="sm", visible=False, elem_id="explain-own-cancel")
        maps = gr.HTML("", js_on_load=ON_LOAD, apply_default_css=False, elem_id="explain-maps")
        numbers = gr.HTML("", apply_default_css=False, elem_id="explain-numbers")
    asked = gr.Textbox(visible="hidden", elem_id="explained")
    own_key = gr.Textbox(visible=False)
    timer, own_timer = gr.Timer(PAUSE, active=False), gr.Timer(PAUSE, active=False)

    def begin(of: str, wanted: str, request: gr.Request) -> Updates:
        """Open the section: with what is stored, or have it computed."""
        updates: Updates = {**part.closed(), start: gr.Button(visible=False), box: gr.Column(visible=True)}
        updates[asked] = f"{of}:{wanted}"
        try:
            chosen, may = choose(store, of, wanted), access.of(request)
            names = [(student_name(name), name) for name in chosen.students]
            updates[student] = gr.Dropdown(choices=names, value=chosen.student or None, visible=len(names) > 1)
            updates[asked] = f"{of}:{chosen.student}"
            if (folder := explainer.find(chosen)) is not None:
                return {**updates, **shown(folder, chosen, may)}
            if not may_look(run_called(store, of), may):
                raise UserError(_(NOT_EXPLAINED))
            job = explainer.ask(chosen, _who(request), limited=not access.trusts(request))
            return {**updates, status: _status(job), timer: gr.Timer(active=True), cancel: gr.Button(visible=True)}
        except UserError as error:
            said = problem_html(redact_for(store, of, access.of(request))(str(error)))
            return {**updates, status: said, start: gr.Button(visible=True)}

    def shown(folder: Path, chosen: Chosen, may: May) -> Updates:
        """A stored explanation, for one who may do that."""
        found, tell = read(folder), redact_for(store, chosen.source, may)
        allowed = may_look(run_called(store, chosen.source), may)
        with_maps = (
            maps_html(found, explained_links(store, folder, tell), tell=tell) if allowed else _note(_(MAPS_HIDDEN))
        )
        return {maps: with_maps, numbers: numbers_html(found, tell)}

    def tick(of: str, wanted: str, request: gr.Request) -> Updates:
        """How far the explanation on test images is."""
        ended: Updates = {**part.stopped(), start: gr.Button(visible=True)}
        try:
            chosen = choose(store, of, wanted or "")
            job = explainer.job_of(chosen)
            if job is not None and job.live:
                return {status: _status(job)}
            if job is not None and job.state == FAILED:
                own_help = f" {_(OR_OWN)}" if "--images" in job.error else ""
                raise UserError(without_options(job.error) + own_help)
            folder = explainer.find(chosen)
            if folder is None:
                return {**ended, status: _note(_(CANCELLED_TEXT) if job else _(RESTARTED))}
            return {**shown(folder, chosen, access.of(request)), status: "", **part.stopped()}
        except UserError as error:
            return {**ended, status: problem_html(redact_for(store, of, access.of(request))(str(error)))}

    def leave(of: str, wanted: str, request: gr.Request) -> Updates:
        with contextlib.suppress(UserError):  # the run was deleted
            if (job := explainer.job_of(choose(store, of, wanted or ""))) is not None:
                explainer.leave(job, _who(request))
        return {**part.stopped(), status: _note(_(CANCELLED_TEXT)), start: gr.Button(visible=True)}

    def begin_own(of: str, wanted: str, files: Any, taken: Any, picked: Any, request: gr.Request) -> Updates:
        try:
            images = given(of, files, taken, picked, request)
            if not images:
                raise UserError(_(NO_IMAGES))
            chosen = choose(store, of, wanted or "")
            job = explainer.ask(chosen, _who(request), images, limited=not access.trusts(request))
        except UserError as error:
            return {own_maps: problem_html(redact_for(store, of, access.of(request))(str(error)))}
        return {
            own_maps: _status(job), own_key: job.key, own_timer: gr.Timer(active=True),
            own_cancel: gr.Button(visible=True),
        }  # fmt: skip

    def tick_own(of: str, key: str, request: gr.Request) -> Updates:
        """How far the maps of the visitor's own images are."""
        job = explainer.job(key)
        if job is not None and job.live:
            return {own_maps: _status(job)}
        tell = redact_for(store, of, access.of(request))
        return part.own_closed(_own_result(job, store, tell))

    def leave_own(key: str, request: gr.Request) -> Updates:
        if (job := explainer.job(key)) is not None:
            explainer.leave(job, _who(request))
        return part.own_closed(_note(_(CANCELLED_TEXT)))

    part = ExplainPart(
        start, box, student, own, cancel, status, timer, own_cancel, own_maps, own_key, own_timer, maps, numbers, asked,
        begin,
    )  # fmt: skip

    def begin_first(of: str, last: str, request: gr.Request) -> Updates:
        asked_of, wanted = asked_for(last)
        return begin(of, wanted if asked_of == of else "", request)  # after Cancel: the same student

    start.click(begin_first, [source, asked], part.outputs, **PRIVATE).then(
        None, None, None, js=TO_EXPLAIN, api_visibility="private"
    )
    student.input(begin, [source, student], part.outputs, **PRIVATE)
    timer.tick(tick, [source, student], part.outputs, **PRIVATE)
    cancel.click(leave, [source, student], part.outputs, **PRIVATE)
    own.click(begin_own, [source, student, *chosen_images], part.outputs, **PRIVATE)
    own_timer.tick(tick_own, [source, own_key], part.outputs, **PRIVATE)
    own_cancel.click(leave_own, own_key, part.outputs, **PRIVATE)
    return part


def asked_for(text: str | None) -> tuple[str, str]:
    """ "SOURCE:STUDENT" of an address -> (source, student)."""
    source, _colon, student = (text or "").rpartition(":")
    return source, student


def _own_result(job: Optional[ExplainJob], store: Store, tell: Callable[[str], str]) -> str:
    if job is None:
        return _note(_(RESTARTED))
    if job.state == CANCELLED:
        return _note(_(CANCELLED_TEXT))
    if job.state == FAILED:
        return problem_html(tell(job.error))
    try:
        return maps_html(
            read(job.folder), explained_links(store, job.folder, tell), own=True, given=job.given, tell=tell
        )
    except UserError as error:
        return problem_html(tell(str(error)))


def _status(job: ExplainJob) -> str:
    """How far a job is."""
    share = round(100 * max(0, job.step - 1) / job.steps) if job.step else 0
    if job.state == WAITING and job.behind:
        doing = _("Waiting until another explanation is done…")
    elif job.step:
        doing = _("{doing} ({step} of {steps})", doing=job.doing, step=min(job.step, job.steps), steps=job.steps)
    else:
        doing = _("Loading the networks…")
    return render("explain_status", doing=doing, share=share, note=_(NOTE_OWN) if job.own else _(NOTE))


def without_options(text: str) -> str:
    """Without the sentences that name an option of the command line."""
    return " ".join(sentence for sentence in re.split(r"(?<=\.) ", text) if "--" not in sentence)


def _note(text: str) -> str:
    return f'<p class="note" role="status">{escape(text)}</p>'


def _who(request: gr.Request) -> str:
    """Who waits: one open page."""
    return str(request.session_hash or "")
