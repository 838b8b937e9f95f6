"""The Compare tab: images in, what any models predict for them out, side by side.

What is computed and how long it stays is in compare_images.py. Which filter, page and right answers are wanted is held
in the browser, and sent with every question; the server stores none of it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Optional, cast

import gradio as gr
import numpy as np

from iekd.data import available
from iekd.data.decoding import open_image
from iekd.errors import UserError
from iekd.inference.compare_uploads import Example
from iekd.inference.images import in_uploads
from iekd.language import N_, _
from iekd.models.artifact import ModelCard
from iekd.runs.choices import refs_of
from iekd.runs.explained import IMAGES, Own
from iekd.runs.models import models_called, saved_seeds
from iekd.runs.store import Store
from iekd.ui.render.comparison import View, comparison_csv, comparison_html, comparison_json, viewed
from iekd.ui.render.examples import examples
from iekd.ui.render.template import html_text, problem_html, render
from iekd.ui.render.words import run_title, when
from iekd.ui.rights.access import Access, AccessError, May
from iekd.ui.rights.visible import may_look, run_called
from iekd.ui.shared.answers_compare import Comparison
from iekd.ui.shared.gradio_patches import file_field, open_choices, open_dropdown
from iekd.ui.tabs.compare_images import (
    COMPARED,
    FILES,
    MOST_IMAGES,
    MOST_MODELS,
    MOST_OF_VISITORS,
    Wanted,
    columns_of,
    compared_for_programs,
    comparisons,
    model_options,
    wanted_models,
)
from iekd.ui.tabs.compare_scripts import ASK, ASK_IF_NONE, LOOKING, ON_LOAD, PICK, PICKED, SHOW, VIEW
from iekd.ui.tabs.explain import ExplainPart, explain_part
from iekd.ui.tabs.run import PRIVATE, Updates
from iekd.ui.tabs.test_set import TestSetPart, test_set_part

DEMO = ""
DEMO_LABEL = N_("Shipped demo models")
MODEL_FILES = [".onnx", ".zip"]


@dataclass
class CompareTab:
    """What the page's layout needs of this tab."""

    source: gr.Dropdown
    models: gr.Dropdown
    adding: gr.Accordion
    examples: gr.HTML
    chosen: gr.JSON
    results: gr.HTML
    test_set: TestSetPart
    explain: ExplainPart
    access: Access

    @property
    def outputs(self) -> list[Any]:
        """What `open` may change."""
        return [
            self.source, self.models, self.adding, self.examples, self.chosen, self.results,
            *self.test_set.outputs, *self.explain.outputs,
        ]  # fmt: skip

    def open(self, store: Store, wanted: str, asker: gr.Request, chosen: list[int] | None = None) -> Updates:
        """The tab comes to the front with a run in mind.

        chosen: the examples ticked now; None for a fresh start.
        """
        choices, options = sources(store), model_options(store)
        values = [value for _, value in choices]
        adding = {self.adding: gr.Accordion(visible=self.access.trusts(asker))}
        if not choices:
            none = gr.Dropdown([(_("None yet: finish a run first"), DEMO)], value=DEMO)
            nothing = gr.Button(visible=False)
            closed = {**self.test_set.closed(), **self.explain.closed(), self.test_set.look: nothing}
            closed[self.explain.start] = nothing
            return {
                self.source: none, self.models: gr.Dropdown([], value=[]), self.examples: "", self.chosen: [],
                self.results: render("nothing_to_compare"), **closed, **adding,
            }  # fmt: skip
        value = wanted if wanted in values else values[0]
        if chosen is not None and value == wanted:
            # back from another tab: answers stay
            return {self.source: gr.Dropdown(choices), self.models: gr.Dropdown(options), **adding}
        return {
            self.source: gr.Dropdown(choices, value=value),
            self.models: gr.Dropdown(options, value=own_models(store, value)),
            self.examples: examples_html(store, value, self.access.of(asker)), self.chosen: [],
            self.results: invite_html(), **self.test_set.closed(), **self.explain.closed(), **adding,
        }  # fmt: skip


def compare_tab(store: Store, access: Access) -> CompareTab:
    """Build the tab and its events."""
    gr.HTML(f'<h2 class="section">{html_text("Compare models on images")}</h2>')
    with gr.Row(equal_height=False, elem_id="compare-models"):
        source = open_dropdown(  # `models_called` checks its value
            choices=[(_(DEMO_LABEL), DEMO)],
            value=DEMO,
            label=_("Run"),
            filterable=False,
            elem_id="source",
            min_width=220,
        )
        models = open_choices(label=_("Models"), elem_id="models", min_width=300, max_choices=MOST_MODELS, scale=2)
    with gr.Accordion(_("Add a model file"), open=False, visible=access.trusts(None), elem_id="add-models") as adding:
        model_files = file_field(
            label=_("ONNX files, or zips of models that were downloaded here"), file_count="multiple",
            file_types=MODEL_FILES, height=130,
            elem_id="model-files",
        )  # fmt: skip
    with gr.Row(equal_height=False, elem_id="compare-images"):
        files = file_field(
            label=_("Images or a zip"), file_count="multiple", height=150,
            elem_id="upload", min_width=150,
        )  # fmt: skip
        camera = gr.Image(
            label=_("Paste or take an image"), sources=["clipboard", "webcam"], type="filepath", height=150,
            elem_id="camera", buttons=[], min_width=150,
        )  # fmt: skip
    hint = html_text(
        "In a zip, folders that are named as the classes give the right answers. You can also set them below."
    )
    gr.HTML(f'<p class="sub">{hint}</p>', elem_classes="hint-to-zip")
    strip = gr.HTML(elem_id="examples", js_on_load=PICK, apply_default_css=False)
    chosen, view = gr.JSON(visible=False), gr.JSON(visible=False)
    results = gr.HTML(invite_html(), elem_id="comparison", js_on_load=ON_LOAD, apply_default_css=False)
    ask = gr.Button(visible="hidden", elem_id="ask")
    test_set = test_set_part(store, access, source)

    def given(
        of: str, paths: list[str] | None, taken: str | None, picked: list[int] | None, asker: gr.Request
    ) -> Own:  # fmt: skip
        return first_images(store, of, paths or [], taken, allowed(picked, of, asker))

    def allowed(picked: list[int] | None, of: str, asker: gr.Request) -> list[int]:
        """The examples picked, of those that are shown to whoever asks."""
        return (picked or []) if shows_examples(store, of, access.of(asker)) else []

    explain = explain_part(store, access, source, [files, camera, chosen], given)

    def answer(
        source_id: str, refs: Optional[list[str]], added: Optional[list[str]], paths: Optional[list[str]],
        taken: Optional[str], picked: Optional[list[int]], now: Any, request: gr.Request,
    ) -> str:  # fmt: skip
        try:
            model_paths, most = uploaded_models(access, request, added)
        except UserError as error:
            return problem_html(error)
        of = source_id or DEMO
        shown = allowed(picked, of, request)
        return results_html(store, of, paths or [], taken, shown, refs, model_paths, View.read(now), most)

    def change_source(source_id: str, request: gr.Request) -> Updates:
        of = source_id or DEMO
        return {
            chosen: [], models: own_models(store, of), strip: examples_html(store, of, access.of(request)),
            **test_set.closed(), **explain.closed(),
        }  # fmt: skip

    # predictions are queued, two at a time, so that many visitors do not overload the machine
    busy: dict[str, Any] = {
        **PRIVATE, "queue": True, "concurrency_limit": 2, "show_progress": "minimal", "show_progress_on": None,
        "trigger_mode": "always_last",
    }  # fmt: skip
    asked = ask.click(answer, [source, models, model_files, files, camera, chosen, view], results, **busy)
    asked.then(None, None, None, js=SHOW, api_visibility="private")
    here: dict[str, Any] = {"api_visibility": "private"}
    other_images = [files.change, camera.change, models.input, model_files.change]
    for changed in (
        gr.on(other_images, None, None, [results, view], js=LOOKING, **here),
        strip.click(None, None, [chosen, results, view], js=PICKED, **here),
        source.input(change_source, source, [chosen, models, strip, *test_set.outputs, *explain.outputs], **PRIVATE),
        results.input(None, None, view, js=VIEW, **here),
    ):
        changed.then(None, None, None, js=ASK, **here)
    models.change(None, models, None, js=ASK_IF_NONE, **here)
    return CompareTab(source, models, adding, strip, chosen, results, test_set, explain, access)


def invite_html() -> str:
    """What stands in the place of the predictions until images are chosen."""
    words = html_text("Choose images above, and every network’s answer appears here.")
    return f'<div class="placeholder">{words}</div>'


def sources(store: Store) -> list[tuple[str, str]]:
    """(label, run id) of everything with saved models; the demo first, if there is one."""
    found = [(_(DEMO_LABEL), DEMO)] if _models_or_none(store, DEMO) else []
    for run in store.list():
        with contextlib.suppress(UserError):  # a damaged folder has no models
            if not run.model_folders:
                continue
            title = f"{run_title(run.config, run)} · {when(run.status.created)} · {run.id}"
            first, *others = saved_seeds(run) or [0]
            found.append((_of_seed(title, first) if others else title, run.id))
            found += [(_of_seed(title, seed), f"{run.id}/{seed}") for seed in others]
    return found


def _of_seed(title: str, seed: int) -> str:
    return _("{run} · seed {seed}", run=title, seed=seed)


def own_models(store: Store, source: str) -> list[str]:
    """The models of a source, as values of the list of models."""
    try:
        return list(refs_of(store, source).values())
    except UserError:
        return []


def uploaded_models(
    access: Access, asker: gr.Request | None, files: Sequence[str] | None
) -> tuple[Sequence[str], int]:  # fmt: skip
    """(the models that somebody has uploaded, how many images they may compare).

    Raises:
        AccessError: they may not upload models: those can be made to keep the machine busy, or worse.
    """
    trusted = access.trusts(asker)
    if files and not trusted:
        raise AccessError(_("Models may be uploaded only by whoever runs this page. Choose models of the list."))
    return files or (), MOST_IMAGES if trusted else MOST_OF_VISITORS


def compare_files(
    store: Store, source: str, paths: list[str], refs: Sequence[str] = (), files: Sequence[str] = (),
    right: Sequence[str] = (), show: str = "", most: int = MOST_IMAGES,
) -> Comparison:  # fmt: skip
    """What the page shows, for the public endpoint.

    An image's place is its `name`: gradio_client takes any object with a `path` for a file and tries to fetch it.
    """
    compared, view = compared_for_programs(store, source, paths, refs, files, right, show, most)
    return cast(Comparison, comparison_json(viewed(compared, view)))


def compare_files_csv(
    store: Store, source: str, paths: list[str], refs: Sequence[str] = (), files: Sequence[str] = (),
    most: int = MOST_IMAGES,
) -> str:  # fmt: skip
    """`compare_files` as CSV, for the public endpoint: a row for each image, a group of columns for each model."""
    compared, view = compared_for_programs(store, source, paths, refs, files, most=most)
    found = viewed(compared, view)
    results = [image.result for image in found.images]
    return comparison_csv(list(compared.models), results, [one.right for one in found.answers])


def results_html(
    store: Store, source: str, paths: Sequence[str], taken: str | None, picked: Sequence[int],
    refs: Sequence[str] | None = None, files: Sequence[str] = (), view: View | None = None, most: int = MOST_IMAGES,
) -> str:  # fmt: skip
    """What models predict for images: the uploads, the picture taken and the examples picked.

    Args:
        refs, files: see `wanted_models`. view: None for rows that are open, without filters.
    """
    try:
        given = examples_given(store, source, taken, picked)
        if not paths and not given:
            return invite_html()
        models, choices = wanted_models(store, source, refs, files)
        wanted = Wanted(models, tuple(map(Path, paths)), tuple(given), most)
        compared = comparisons.get(wanted)
    except UserError as error:
        return problem_html(error)
    columns, legend = columns_of(compared, choices)
    shown = view or View()
    word = comparisons.link(wanted, columns, shown)
    links = [(f".{COMPARED}/{word}/{name}", _(words)) for name, (_kind, words) in FILES.items()]
    return comparison_html(compared, columns, shown, legend, links, most, view is not None)


def examples_given(store: Store, source: str, taken: str | None, picked: Sequence[int]) -> list[Example]:
    """The picture taken and the examples picked."""
    found = [Example(_("your image"), Path(taken))] if taken else []
    known = _examples_of(store, source) if picked else []
    return found + [
        Example(_("example: {label}", label=known[i][2]), known[i][1], known[i][2])
        for i in picked if isinstance(i, int) and 0 <= i < len(known)
    ]  # fmt: skip


def first_images(
    store: Store, source: str, paths: Sequence[str], taken: str | None, picked: Sequence[int]
) -> Own:  # fmt: skip
    """(name, file or pixels) of as many images as are explained, and one more if there are more; those of zips too."""
    found: list[tuple[str, Path | np.ndarray]] = []
    problem: UserError | None = None
    for _place, one in in_uploads(map(Path, paths), Counter(), []):
        try:
            if one.error:
                raise UserError(one.error)
            pixels = one.source if isinstance(one.source, Path) else np.asarray(open_image(one.source(), one.name))
        except UserError as error:  # one that cannot be read harms no other
            problem = error
            continue
        found.append((Path(one.name).name, pixels))
        if len(found) > IMAGES:
            return found
    found += [(example.name, example.image) for example in examples_given(store, source, taken, picked)]
    if problem and not found:
        raise problem
    return found


def shows_examples(store: Store, source: str, may: May) -> bool:
    """Whether examples of the data of these models are shown to somebody."""
    try:
        return may_look(run_called(store, source), may)
    except UserError:  # there is no such run
        return False


def examples_html(store: Store, source: str, may: May) -> str:
    """Test images to click, none of them chosen yet."""
    shown = _examples_of(store, source) if shows_examples(store, source, may) else []
    if not shown:
        return ""
    buttons = "".join(
        f'<button type="button" data-example="{i}" aria-pressed="false" title="{escape(label)}">'
        f'<img src="{url}" alt=""><span>{escape(label)}</span></button>'
        for i, (url, _, label) in enumerate(shown)
    )
    # the attribute differs each time, so that a redrawn strip has nothing pressed even if its pictures are the same
    drawn = f'data-drawn="{secrets.token_hex(4)}"'
    title = html_text("Or click example images:")
    return f'<p class="strip-title">{title}</p><div class="pick" {drawn}>{buttons}</div>'


def _examples_of(store: Store, source: str) -> list[tuple[str, Any, str]]:
    """Example images of the data that the source's networks know."""
    models = _models_or_none(store, source)
    if not models:
        return []
    for dataset in ModelCard.read(next(iter(models.values()))).datasets:
        parts = [info.name for info in available() if info.part_of == dataset]  # these may need no download
        for name in (*parts, dataset):
            with contextlib.suppress(UserError):  # the folder was removed since
                if found := examples(name, 2):
                    return found
    return []


def _models_or_none(store: Store, source: str) -> dict[str, Path] | None:
    try:
        return models_called(store, source)
    except UserError:
        return None
