"""The endpoint `explain`; see methods.py, whose class it is a method of."""

from __future__ import annotations

import time
from typing import Annotated, Optional

import gradio as gr
from pydantic import Field as says  # noqa: N813 - as in answers.py
from typing_extensions import TypedDict

from iekd.errors import UserError
from iekd.explain.about import TEXT
from iekd.runs.explained import DONE, choose, explainer_of
from iekd.ui.render.downloads import EXPLAINED
from iekd.ui.rights.visible import may_look, redact_for, run_called
from iekd.ui.shared.answers import Models
from iekd.ui.shared.endpoints import Page
from iekd.ui.tabs.explain import NOT_EXPLAINED, without_options

PAUSE = 0.2  # seconds between two looks whether it is done
Student = Annotated[
    str,
    says(examples=["ie-ft"], description="a text, a method such as ie-ft; '' for the first IE student"),
]


class ExplanationFound(TypedDict):
    """An explanation of some networks."""

    student: Annotated[str, says(description="the student that is explained beside the teacher and the plain student")]
    text: Annotated[str, says(description="everything but the maps, in Markdown")]
    address: Annotated[
        str,
        says(
            description="where to GET a zip with explain.json and the maps, relative to the page's own address, while "
            "the server runs; empty if you may not see the images"
        ),
    ]


def explain(
    self: Page, run_id: Models, student: Student = "", request: Optional[gr.Request] = None
) -> ExplanationFound:  # fmt: skip
    """Why the networks of a run differ: relevance maps of teacher, plain student, another student and its halves, how
    alike their features are, active neurons, flatness, and what each half is worth. It is computed the first time,
    which takes seconds to minutes.

    Raises:
        UserError: there is no such run or student, or it has no models yet; its test images are not there; too many
            are waiting.
    """
    chosen, explainer = choose(self._store, run_id or "", student or ""), explainer_of(self._store)
    may = self._access.of(request)
    allowed, tell = may_look(run_called(self._store, chosen.source), may), redact_for(self._store, chosen.source, may)
    folder = explainer.find(chosen)
    if folder is None:
        if not allowed:
            raise UserError(NOT_EXPLAINED)
        job = explainer.ask(chosen, "a program", limited=not self._access.trusts(request))
        while job.live:
            time.sleep(PAUSE)
        if job.state != DONE:
            raise UserError(tell(without_options(job.error)) or "It was cancelled.")
        folder = job.folder
    address = f"{EXPLAINED[1:]}/{explainer.link(folder)}" if allowed else ""
    return {"student": chosen.student, "text": tell((folder / TEXT).read_text()), "address": address}
