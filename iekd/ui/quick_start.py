"""Imports Gradio quickly and quietly; import this before anything that imports gradio.

At each import Gradio parses its own sources to rewrite its type stubs inside site-packages: about a third of the time
until the page answers. It leaves that out for a class whose source file cannot be found, which is what it is told here.
"""

from __future__ import annotations

import inspect
import os
from typing import Any

_find = inspect.getfile


def _no_sources_of_gradio(thing: Any) -> str:
    if isinstance(thing, type) and thing.__module__.startswith("gradio."):
        raise OSError("not looked for")
    return _find(thing)


os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read at import: no calls home
inspect.getfile = _no_sources_of_gradio  # type: ignore[assignment]
try:
    import gradio  # noqa: F401
finally:
    inspect.getfile = _find
