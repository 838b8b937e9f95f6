"""The endpoints `compare` and `compare_csv`; see methods.py, whose class they are methods of."""

from __future__ import annotations

from typing import Optional

import gradio as gr

from iekd.ui.shared.answers import Images, Models
from iekd.ui.shared.answers_compare import Comparison, ModelFiles, ModelRefs, RightAnswers, Show
from iekd.ui.shared.endpoints import Page
from iekd.ui.tabs.compare import compare_files, compare_files_csv, uploaded_models

NONE: list[str] = []  # default of a list, which nobody changes


def compare(
    self: Page, run_id: Models, images: Images, models: ModelRefs = NONE, right: RightAnswers = NONE, show: Show = "",
    model_files: ModelFiles = None, request: Optional[gr.Request] = None,
) -> Comparison:  # fmt: skip
    """What the teacher and each student of a run, or any models of the same classes, predict for images.

    Raises:
        UserError: no image or too many; there is no such run or model, or it has no models yet; a right answer is
            none of the classes. An image that cannot be read has its own error in the answer.
        AccessError: you may not upload models (403).
    """
    files, most = uploaded_models(self._access, request, model_files)
    return compare_files(
        self._store, run_id or "", images or [], models or (), files, right or (), show or "", most
    )  # fmt: skip


def compare_csv(
    self: Page, run_id: Models, images: Images, models: ModelRefs = NONE, model_files: ModelFiles = None,
    request: Optional[gr.Request] = None,
) -> str:  # fmt: skip
    """What `compare` says, as a table.

    Returns:
        CSV: a row for each image, a group of columns for each model.

    Raises:
        UserError: no image or too many; there is no such run or model, or it has no models yet.
        AccessError: you may not upload models (403).
    """
    files, most = uploaded_models(self._access, request, model_files)
    return compare_files_csv(self._store, run_id or "", images or [], models or (), files, most)
