"""The Compare tab: pictures in, what teacher and students say of them out, side by side."""

from __future__ import annotations

import contextlib
import json
import secrets
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, cast

import gradio as gr

from iekd.data import available
from iekd.errors import UserError
from iekd.inference.compare import ImageResult, classes_known, compare
from iekd.models.artifact import ModelCard
from iekd.plural import counted
from iekd.runs.models import models_called, saved_seeds
from iekd.runs.store import Store
from iekd.ui.render.comparison import card_html, comparison_csv, models_table
from iekd.ui.render.examples import examples
from iekd.ui.render.words import run_title, when
from iekd.ui.server.access import Access
from iekd.ui.server.answers import Comparison, ImagePredictions
from iekd.ui.server.downloads import download_link
from iekd.ui.server.gradio_patches import file_field, open_dropdown
from iekd.ui.server.space import with_gpu
from iekd.ui.tabs.explain import ExplainPart, Given, explain_part
from iekd.ui.tabs.run import PRIVATE, Updates
from iekd.ui.tabs.test_set import TestSetPart, test_set_part

DEMO = ""
DEMO_LABEL = "Shipped demo models"
MOST_IMAGES = 32
PICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-example]');
  if (!button) return;
  button.setAttribute('aria-pressed', String(button.getAttribute('aria-pressed') !== 'true'));
  button.dataset.when = performance.now();
  trigger('click', {});
});
"""
# the pressed examples, in order; read in the browser, so that no click waits for the server
PICKED = """() => {
  const pressed = [...document.querySelectorAll('#examples [aria-pressed=true]')];
  return [pressed.sort((a, b) => a.dataset.when - b.dataset.when).map((b) => Number(b.dataset.example)), WAIT];
}"""
# one event asks the networks, whatever was changed: only calls of the same event wait for each other in Gradio, and an
# older answer that arrives late would replace the newest
ASK = "() => { document.querySelector('#ask')?.click(); }"
# the tab may show other networks now, without predictions for the chosen pictures
ASK_AFRESH = (
    "() => setTimeout(() => { if (document.querySelector('#comparison .placeholder')) (ASK)(); }, 100)".replace(
        "ASK", ASK
    )
)
# answers are below the uploads and the examples, out of sight on a phone: scroll to where they begin, if there are any
SHOW = """() => {
  if (document.querySelector('#comparison .answer')) {
    document.querySelector('#comparison').scrollIntoView({block: 'nearest'});
  }
}"""
INVITE = '<div class="placeholder">Choose pictures above, and every network’s answer appears here.</div>'
WAIT = '<div class="placeholder">The networks look at the pictures…</div>'
NOTHING_YET = (
    '<div class="empty"><h2>Nothing to compare yet</h2><p>Press <b>Start</b> in <b>Train</b>. When students '
    "have learned, compare them here.</p></div>"
)
LOOKING = json.dumps(WAIT)  # as JavaScript
ask_models = with_gpu(compare)  # here, because ZeroGPU wants to know of it before the page opens


@dataclass
class CompareTab:
    """What the page's layout needs of this tab."""

    source: gr.Dropdown
    examples: gr.HTML
    chosen: gr.JSON
    results: gr.HTML
    test_set: TestSetPart
    explain: ExplainPart

    @property
    def outputs(self) -> list[Any]:
        """What `open` may change."""
        return [self.source, self.examples, self.chosen, self.results, *self.test_set.outputs, *self.explain.outputs]

    def open(self, store: Store, wanted: str, chosen: list[int] | None = None) -> Updates:
        """The tab comes to the front with a run in mind.

        chosen: the examples ticked now; None for a fresh start.
        """
        choices = sources(store)
        values = [value for _, value in choices]
        if not choices:
            none = gr.Dropdown([("None yet: finish a run first", DEMO)], value=DEMO)
            nothing = gr.Button(visible=False)
            closed = {**self.test_set.closed(), **self.explain.closed(), self.test_set.look: nothing}
            closed[self.explain.start] = nothing
            return {self.source: none, self.examples: "", self.chosen: [], self.results: NOTHING_YET, **closed}
        value = wanted if wanted in values else values[0]
        if chosen is not None and value == wanted:
            return {self.source: gr.Dropdown(choices)}  # back from another tab: answers stay
        return {
            self.source: gr.Dropdown(choices, value=value), self.examples: examples_html(store, value),
            self.chosen: [], self.results: INVITE, **self.test_set.closed(), **self.explain.closed(),
        }  # fmt: skip


def compare_tab(store: Store, access: Access) -> CompareTab:
    """Build the tab and its events."""
    source = open_dropdown(  # `models_called` checks its value
        choices=[(DEMO_LABEL, DEMO)], value=DEMO, label="Models", filterable=False, elem_id="source"
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            files = file_field(label="Upload pictures", file_count="multiple", height=220, elem_id="upload")
        with gr.Column(scale=1, min_width=300):
            camera = gr.Image(
                label="Paste or take a picture",
                sources=["clipboard", "webcam"],
                type="filepath",
                height=220,
                elem_id="camera",
                buttons=[],
            )
    strip = gr.HTML(elem_id="examples", js_on_load=PICK, apply_default_css=False)
    chosen = gr.JSON(visible=False)
    results = gr.HTML(INVITE, elem_id="comparison")
    ask = gr.Button(visible="hidden", elem_id="ask")
    test_set = test_set_part(store, access, source)

    def given(of: str, *chosen_images: Any) -> Given:
        return [(title, image) for title, image, _ in images_of(store, of, *chosen_images)]

    explain = explain_part(store, access, source, [files, camera, chosen], given)

    def answer(source_id: str, paths: list[str] | None, taken: str | None, picked: list[int] | None) -> str:
        return results_html(store, source_id or DEMO, paths or [], taken, picked or [])

    def change_source(source_id: str) -> Updates:
        return {chosen: [], strip: examples_html(store, source_id or DEMO), **test_set.closed(), **explain.closed()}

    # predictions are queued, two at a time, so that many visitors do not overload the machine
    busy: dict[str, Any] = {
        **PRIVATE, "queue": True, "concurrency_limit": 2, "show_progress": "minimal", "show_progress_on": None,
        "trigger_mode": "always_last",
    }  # fmt: skip
    asked = ask.click(answer, [source, files, camera, chosen], results, **busy)
    asked.then(None, None, None, js=SHOW, api_visibility="private")
    here: dict[str, Any] = {"api_visibility": "private"}
    for changed in (
        gr.on([files.change, camera.change], None, None, results, js=f"() => {LOOKING}", **here),
        strip.click(None, None, [chosen, results], js=PICKED.replace("WAIT", LOOKING), **here),
        source.input(change_source, source, [chosen, strip, *test_set.outputs, *explain.outputs], **PRIVATE),
    ):
        changed.then(None, None, None, js=ASK, **here)
    return CompareTab(source, strip, chosen, results, test_set, explain)


def sources(store: Store) -> list[tuple[str, str]]:
    """(label, run id) of everything with saved models; the demo first, if there is one."""
    found = [(DEMO_LABEL, DEMO)] if _models_or_none(store, DEMO) else []
    for run in store.list():
        with contextlib.suppress(UserError):  # a damaged folder has no models
            if not run.model_folders:
                continue
            title = f"{run_title(run.config, run)} · {when(run.status.created)} · {run.id}"
            first, *others = saved_seeds(run) or [0]
            found.append((f"{title} · seed {first}" if others else title, run.id))
            found += [(f"{title} · seed {seed}", f"{run.id}/{seed}") for seed in others]
    return found


def _answers(store: Store, source: str, paths: list[str]) -> tuple[dict[str, Path], list[ImageResult]]:
    """(the models of a source, what they predict for some files)."""
    if not paths:
        raise UserError("No image was given. Send at least one.")
    if len(paths) > MOST_IMAGES:
        raise UserError(
            f"{len(paths):,} images are more than the {MOST_IMAGES} of one comparison. Send fewer at a time."
        )
    models = models_called(store, source)
    return models, ask_models(models, [(Path(p).name, Path(p)) for p in paths])


def compare_files(store: Store, source: str, paths: list[str]) -> Comparison:
    """What `iekd compare --json` prints, for the public endpoint, with `name` for `path`.

    gradio_client takes any object with a `path` for a file and tries to fetch it.
    """
    rows = [{"name": r.name, **r.to_json()} for r in _answers(store, source, paths)[1]]
    return {"images": cast(list[ImagePredictions], rows)}


def compare_files_csv(store: Store, source: str, paths: list[str]) -> str:
    """`compare_files` as CSV, for the public endpoint: a row for each image, a group of columns for each model."""
    return comparison_csv(*_answers(store, source, paths))


def results_html(store: Store, source: str, paths: list[str], taken: str | None, picked: list[int]) -> str:
    """Every picture's card, then the table of the models."""
    try:
        models, images = models_called(store, source), images_of(store, source, paths, taken, picked)
        if not images:
            return INVITE
        more = len(images) - MOST_IMAGES
        results = ask_models(models, [(title, image) for title, image, _ in images[:MOST_IMAGES]])
    except UserError as error:
        return f'<p class="problem" role="alert">{escape(str(error))}</p>'
    cards = [card_html(result, images[i][2] or None) for i, result in enumerate(results)]
    note = (
        f'<p class="problem">Only the first {MOST_IMAGES} pictures are shown; '
        f"{counted(more, 'more was', 'more were')} left out.</p>"
        if more > 0
        else ""
    )
    seen = next((r.seen for r in results if r.seen is not None), None)
    table = models_table(models, seen) if seen is not None else ""
    names = f'<p class="sub">{escape(classes_known(models))}</p>'
    csv = download_link("comparison.csv", "text/csv", comparison_csv(models, results), "Predictions as CSV")
    return f'{note}{names}<div class="answers">{"".join(cards)}</div><p class="downloads">{csv}</p>{table}'


def images_of(
    store: Store, source: str, paths: list[str] | None, taken: str | None, picked: list[int] | None
) -> list[tuple[str, Any, str]]:
    """(name, file or pixels, right class or "") of the uploads, the picture taken and the examples picked."""
    images: list[tuple[str, Any, str]] = [(Path(p).name, Path(p), "") for p in paths or []]
    if taken:
        images.append(("your picture", Path(taken), ""))
    known = _examples_of(store, source) if picked else []
    for i in picked or []:
        if 0 <= i < len(known):
            images.append((f"example: {known[i][2]}", known[i][1].squeeze(), known[i][2]))  # grey: (H,W)
    return images


def examples_html(store: Store, source: str) -> str:
    """Test pictures to click, none of them chosen yet."""
    shown = _examples_of(store, source)
    if not shown:
        return ""
    buttons = "".join(
        f'<button type="button" data-example="{i}" aria-pressed="false" title="{escape(label)}">'
        f'<img src="{url}" alt=""><span>{escape(label)}</span></button>'
        for i, (url, _, label) in enumerate(shown)
    )
    # the attribute differs each time, so that a redrawn strip has nothing pressed even if its pictures are the same
    drawn = f'data-drawn="{secrets.token_hex(4)}"'
    return f'<p class="strip-title">Or click example pictures:</p><div class="pick" {drawn}>{buttons}</div>'


def _examples_of(store: Store, source: str) -> list[tuple[str, Any, str]]:
    """Example pictures of the data that the source's networks know."""
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
