"""The Demo tab, where the page opens: what the shipped networks predict for test images and for the visitor's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from iekd.language import _
from iekd.runs.store import Store
from iekd.ui.render.comparison import PAGE
from iekd.ui.render.template import html_text
from iekd.ui.shared.gradio_patches import file_field
from iekd.ui.tabs.compare import DEMO, results_html
from iekd.ui.tabs.run import PRIVATE, Updates

# all images are in the page: turning to the next asks nobody, and nothing moves, because they lie on one another
TURN = """
const slides = [...element.querySelectorAll('.slide')], at = element.querySelector('.turn .at');
let now = 0;
const strip = [...element.querySelectorAll('.strip button')];
const show = (slide) => {
  now = (slide + slides.length) % slides.length;
  slides.forEach((one, i) => one.classList.toggle('now', i === now));
  strip.forEach((one, i) => one.setAttribute('aria-pressed', i === now));
  at.textContent = now + 1;
};
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-turn], [data-slide]');
  if (button) show(button.dataset.slide ? Number(button.dataset.slide) : now + Number(button.dataset.turn));
});
element.addEventListener('keydown', (event) => {
  if (event.key === 'ArrowLeft') show(now - 1);
  else if (event.key === 'ArrowRight') show(now + 1);
});
"""
# Pictures that are pasted, or dropped anywhere, go to the upload field of the tab in front. Gradio's own fields take
# what is dropped on themselves, and a field for text takes what is pasted into it.
GIVE_PICTURES = """() => {
  const field = () => [...document.querySelectorAll('#demo-upload input[type=file], #upload input[type=file]')]
    .find((input) => input.closest('[role=tabpanel]')?.offsetParent);
  const give = (files, event) => {
    const input = field(), pictures = [...files].filter((file) => file.type.startsWith('image/'));
    if (!input || !pictures.length) return;
    event.preventDefault();
    event.stopPropagation();
    const given = new DataTransfer();
    pictures.forEach((file) => given.items.add(file));
    input.files = given.files;
    input.dispatchEvent(new Event('change', {bubbles: true}));
  };
  const own = (event) => event.target.closest?.('input, textarea, [data-testid=image], #demo-upload, #upload, #camera');
  document.addEventListener('paste', (event) => { if (!own(event)) give(event.clipboardData?.files ?? [], event); });
  document.addEventListener('dragover', (event) => {
    if (!own(event) && field() && event.dataTransfer?.types.includes('Files')) event.preventDefault();
  });
  document.addEventListener('drop', (event) => { if (!own(event)) give(event.dataTransfer?.files ?? [], event); });
}"""
TO_ANSWER = "() => document.querySelector('#demo-answer').scrollIntoView({block: 'nearest'})"


@dataclass
class DemoTab:
    """What the page's layout needs of this tab."""

    train: gr.Button
    own: gr.Button


def demo_tab(demo: gr.Blocks, store: Store, shown: str, anybody_starts: bool) -> DemoTab:
    """Build the tab.

    shown: `render.demo.demo_html()`. anybody_starts: the page is not only for looking.
    """
    gr.HTML(shown, js_on_load=TURN, apply_default_css=False, elem_id="demo")
    with gr.Row(elem_id="demo-next"):
        train = gr.Button(
            _("Train it yourself") if anybody_starts else _("See how it is trained"), variant="primary", size="lg",
            elem_id="to-train",
        )  # fmt: skip
        own = gr.Button(_("Train on my own images"), size="lg", elem_id="to-own", visible=anybody_starts)
    gr.HTML(
        f'<h2 class="section">{html_text("What do they predict for your image?")}</h2>'
        f'<p class="lead">{html_text("Drop an image anywhere on this page, paste one, or choose it here.")}</p>'
    )
    files = file_field(label=_("Your images"), file_count="multiple", height=130, elem_id="demo-upload")
    answer = gr.HTML(elem_id="demo-answer")

    def predict(paths: list[str] | None) -> Updates:
        return {answer: results_html(store, DEMO, paths or [], None, [], most=PAGE), files: None}

    busy: dict[str, Any] = {
        **PRIVATE, "queue": True, "concurrency_limit": 2, "show_progress": "minimal", "show_progress_on": answer,
    }  # fmt: skip
    files.upload(predict, files, [answer, files], **busy).then(None, None, None, js=TO_ANSWER, api_visibility="private")
    demo.load(None, None, None, js=GIVE_PICTURES, api_visibility="private")
    return DemoTab(train, own)
