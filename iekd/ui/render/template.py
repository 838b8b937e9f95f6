"""HTML from the templates beside this file: Jinja2, which escapes every value by itself."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import jinja2

from iekd.ui.render.words import count

TEMPLATES = Path(__file__).parent / "templates"


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"count": count}
    return made


def render(name: str, **values: Any) -> str:
    """The HTML of `templates/NAME.html`. A value that the template names and is not given is an error."""
    return _environment().get_template(f"{name}.html").render(values)


def problem_html(problem: object) -> str:
    """What is wrong, as one paragraph. That of the Train form, which can lead to a field, is in render/train.py."""
    return f'<p class="problem" role="alert">{escape(str(problem))}</p>'
