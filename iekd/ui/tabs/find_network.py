"""The search among all networks, ours and the libraries', below the two dropdowns of step 2."""

from __future__ import annotations

import gradio as gr

from iekd.errors import UserError
from iekd.language import _, ngettext
from iekd.models import libraries
from iekd.models.catalog import known_models, model_name, models
from iekd.models.unknown import meant
from iekd.ui.render.template import html_text
from iekd.ui.render.words import count
from iekd.ui.tabs.run import PRIVATE, Updates

SHOWN = 12  # names at a time; the parameters of a library's are counted when they are shown


def find_network(teacher: gr.Dropdown, student: gr.Dropdown) -> None:
    """Build the search and its events: words -> names with parameters -> teacher or student."""
    with gr.Accordion(_("Search all networks"), open=False, elem_id="find-network") as box:
        words = gr.Textbox(
            label=_("Words in the name, such as mobilenet"), max_lines=1, elem_id="find-words",
            info=_("Looks among ours and those of timm and torchvision. Press Enter."),
        )  # fmt: skip
        said = gr.HTML(elem_id="find-said")
        found = gr.Radio([], label=_("Networks (parameters)"), visible=False, elem_id="find-list")
        with gr.Row(visible=False) as buttons:
            as_teacher = gr.Button(_("Use as teacher"), size="sm", elem_id="find-teacher")
            as_student = gr.Button(_("Use as student"), size="sm", elem_id="find-student")
    hidden = {found: gr.Radio([], value=None, visible=False), buttons: gr.Row(visible=False)}

    def begin(text: str | None) -> Updates:
        """What stands there while names are looked up and parameters counted, which takes seconds the first time."""
        waiting = html_text("Searching, and counting parameters…")
        return {said: _note(waiting) if (text or "").strip() else "", **hidden}

    def search(text: str | None) -> Updates:
        names = find(text) if text and text.strip() else []
        if not names:
            nothing = _note(html_text("No network has “{words}” in its name.", words=text or "") + _meant(text or ""))
            return {said: nothing if (text or "").strip() else "", **hidden}
        note = ngettext("{number} network has that name.", "{number} networks have that name.", len(names))
        if len(names) > SHOWN:
            note += " " + _("Here are the first {shown}; add a word to narrow the search.", shown=SHOWN)
        choices = [(f"{model_name(name)} · {size_of(name)}", name) for name in names[:SHOWN]]
        return {said: _note(note), found: gr.Radio(choices, value=None, visible=True), buttons: gr.Row(visible=True)}

    box.expand(libraries.load_in_background, None, None, **PRIVATE)
    outputs = [said, found, buttons]
    words.submit(begin, words, outputs, **PRIVATE).then(search, words, outputs, **PRIVATE)
    for button, field in ((as_teacher, teacher), (as_student, student)):
        button.click(lambda name: name or gr.skip(), found, field, **PRIVATE)


def find(words: str) -> list[str]:
    """Names that have all the words: ours first, then the libraries'."""
    wanted = words.lower().split()
    ours = [name for name in known_models() if all(word in name.lower() for word in wanted)]
    return [*ours, *libraries.search(words)]


def _meant(words: str) -> str:
    """Names that may have been meant, which can be typed as teacher or student."""
    names = " or ".join(meant(words))
    return f" {html_text('Did you mean {names}?', names=names)}" if names else ""


def size_of(name: str) -> str:
    """Its parameters for ten classes, such as "1.5 M"; why it cannot be used where it cannot."""
    try:
        if libraries.names_one(name):
            return count(libraries.parameters(name))
        return count(models()[name].params(3, 10))
    except UserError:
        return _("cannot be used here")


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>'
