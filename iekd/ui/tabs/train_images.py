"""Step 1 of the form: which images to learn from; one's own come in class cards, in a zip or from a folder."""

from __future__ import annotations

import contextlib
from html import escape
from typing import Any, Literal

import gradio as gr

from iekd import data
from iekd.data.archives import ZIP
from iekd.data.refusals import UnclearClassesError
from iekd.errors import UserError
from iekd.language import _
from iekd.paths import typed
from iekd.runs.store import Store
from iekd.ui.render.examples import thumbnails_html
from iekd.ui.render.template import html_text
from iekd.ui.render.train import problem_html, step_html
from iekd.ui.rights.access import Access
from iekd.ui.shared.actions import upload_pictures
from iekd.ui.shared.gradio_patches import file_field
from iekd.ui.tabs import form
from iekd.ui.tabs.pause import click_after_a_pause
from iekd.ui.tabs.run import PRIVATE, Updates

EAGER: dict[str, Any] = {**PRIVATE, "trigger_mode": "always_last"}


def images_step(demo: gr.Blocks, store: Store, access: Access, fields: dict[str, Any]) -> tuple[gr.HTML, str]:
    """Build the step and its events; puts `dataset` and `folder` into `fields`.

    Returns:
        What says what was uploaded, and its text while nothing is.
    """
    gr.HTML(step_html(_("Images"), _("What the networks learn to classify."), 1))
    fields["dataset"] = gr.Radio(
        form.dataset_choices(), value=form.default("dataset"), label=_("Dataset"), show_label=False,
        container=False, elem_id="f-dataset", elem_classes="cards",
    )  # fmt: skip
    visible_to_all = html_text("Others will see your images on this public page.")
    nothing_uploaded = f'<p class="note">{visible_to_all}</p>' if access.public else ""
    with gr.Column(visible=False, elem_id="own-pictures") as upload:
        gr.HTML('<div id="class-cards"></div>')  # which class_cards.js fills
        archive = file_field(
            label=_("Or a zip: one folder of images per class"),
            file_types=[ZIP],
            height=140,
            elem_id="f-archive",
        )
        uploaded = gr.HTML(nothing_uploaded, elem_id="uploaded")
        which = gr.Radio(visible=False, label=_("Which folders are the classes?"), elem_id="which-classes")
    fields["folder"] = gr.Textbox(
        label=_("Or the path of a folder on this machine"), visible=False, max_lines=1, elem_id="f-folder",
        info=form.folder_help(),
    )  # fmt: skip
    thumbnails = gr.HTML(elem_id="thumbnails")

    def pictures(request: gr.Request, dataset: str, folder: str | None) -> Updates:
        own, path = dataset == form.OWN_IMAGES, typed(folder or "")
        name = form.own_dataset(path) if own else dataset
        visible: bool | Literal["hidden"] = own and access.trusts(request)
        if own and not visible:
            visible = "hidden"  # for an upload to fill it in
        strip = ""
        with contextlib.suppress(UserError):  # the forecast says why
            access.check_paths(request, {"dataset": name}, store)
            strip = thumbnails_html(name) if path or not own else ""
        return {
            fields["folder"]: gr.Textbox(visible=visible),
            upload: gr.Column(visible=own and access.may_start(request)),
            thumbnails: strip,
        }

    def take(request: gr.Request, file: str, classes: str = "") -> Updates:
        # the folder of an earlier upload goes too: nobody is to train on it while reading that theirs was refused
        nothing: Updates = {fields["folder"]: "", archive: None, which: gr.Radio(value=None, visible=False)}
        try:
            name, found = upload_pictures(store, access, request, file, classes or "")
        except UnclearClassesError as asked:
            choices = [(text, answer) for answer, text in asked.answers.items()]
            question = gr.Radio(choices, value=None, visible=True)
            return {**nothing, uploaded: problem_html(asked.question), archive: gr.skip(), which: question}
        except UserError as problem:
            return {**nothing, uploaded: problem_html(problem)}
        note = f'<p class="note">{escape(found)}</p>'
        return {**nothing, fields["folder"]: str(data.own_path(name)), uploaded: note}

    look_at = gr.Button(visible="hidden", elem_id="look-at")
    picture_fields = [fields["dataset"], fields["folder"]]
    gr.on(
        [demo.load, fields["dataset"].change, look_at.click],
        pictures,
        picture_fields,
        [fields["folder"], upload, thumbnails],
        **EAGER,
    )
    fields["folder"].change(None, js=click_after_a_pause("look-at"), **PRIVATE)
    taken = [fields["folder"], uploaded, archive, which]
    archive.upload(take, archive, taken, **PRIVATE)
    which.input(take, [archive, which], taken, **PRIVATE)
    # what was said of an upload is over once somebody chooses other images
    chosen = [*(field.input for field in picture_fields), archive.clear]
    gr.on(chosen, lambda: (nothing_uploaded, gr.Radio(value=None, visible=False)), None, [uploaded, which], **PRIVATE)
    return uploaded, nothing_uploaded
