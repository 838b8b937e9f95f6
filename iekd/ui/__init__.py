"""The page. Nothing here trains, and nothing here imports torch by itself."""

import inspect
import os
from typing import Any

import iekd.hub  # noqa: F401 - switches the Hub's telemetry off before gradio imports huggingface_hub

# gradio reads it when it is imported; who wants the statistics of use to be sent sets it to True
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


_getfile = inspect.getfile


def _no_component(of: Any) -> str:
    """`inspect.getfile`, but classes of Gradio's components are in no file.

    Whenever Gradio is imported, it parses the source of each component and writes a stub for editors beside it, which
    is a sixth of the time until the page is there. Of a class in no file it makes none. As in gradio_patches.py, which
    comes too late for this: written for Gradio 6.31.0.
    """
    if type(of).__name__ == "ComponentMeta":
        raise OSError("left out")
    return _getfile(of)


inspect.getfile = _no_component  # type: ignore[assignment]


def gradio_is_imported() -> None:
    """`inspect.getfile` is as it was."""
    inspect.getfile = _getfile
