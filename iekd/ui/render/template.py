"""HTML from the templates beside this file: Jinja2, which escapes every value by itself. `_` translates in them."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from iekd.language import translated, translated_plural
from iekd.ui.render.words import count

TEMPLATES = Path(__file__).parent / "templates"


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"count": count}
    made.globals |= {"_": html_text, "ngettext": html_plural}
    return made


def render(name: str, **values: Any) -> str:
    """The HTML of `templates/NAME.html`. A value that the template names and is not given is an error."""
    return _environment().get_template(f"{name}.html").render(values)


def html_text(text: str, /, **values: object) -> Markup:
    """As `language._`, for a text that is HTML, with tags such as <b>; `_` in the templates. Values are escaped."""
    return translated(_as_html, text, values)


def html_plural(one: str, several: str, number: int, /, **values: object) -> Markup:
    """As `language.ngettext`, for texts that are HTML; `ngettext` in the templates. Values are escaped."""
    return translated_plural(_as_html, one, several, number, values)


def _as_html(text: str) -> Markup:
    return Markup(text.replace('"', "&#34;"))  # it may be the value of an attribute


def problem_html(problem: object) -> str:
    """What is wrong, as one paragraph. That of the Train form, which can lead to a field, is in render/train.py."""
    return f'<p class="problem" role="alert">{escape(str(problem))}</p>'
