"""A run as text to copy into a program: a script for Python, and a call of the page's endpoint `start`.

The command of a run is `RunConfig.command_line`. Nothing here is imported that the scripts import.
"""

from __future__ import annotations

import json
from typing import Any

from iekd.config.run import RunConfig

PYTHON = """\
from iekd import LocalLauncher, Store, make_config

config = make_config(
{settings}
)
run_id = LocalLauncher(Store("runs")).submit(config)
print(run_id)
"""
API = """\
from gradio_client import Client

page = Client({page})
settings = {{
{settings}
}}
run_id = page.predict(config=settings, api_name="/start")
print(run_id)
"""


def python_snippet(config: RunConfig) -> str:
    """A script that trains this run in the background, as the page does."""
    return PYTHON.format(settings="\n".join(f"    {name}={_written(v)}," for name, v in config.chosen().items()))


def api_snippet(config: RunConfig, address: str = "http://127.0.0.1:7860", header: str = "") -> str:
    """A script that asks a page to train this run.

    Args:
        address: of the page.
        header: where the page wants its token, the name of the header that carries it.
    """
    page = _written(address)
    if header:
        page += f", headers={{{_written(header)}: {_written('the token of the page')}}}"
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in config.chosen().items()}
    lines = (f"    {_written(name)}: {_written(value)}," for name, value in values.items())
    return API.format(page=page, settings="\n".join(lines))


def _written(value: Any) -> str:
    """A value as Python, with double quotes: the text of JSON is also one of Python."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (tuple, list)):
        items = ", ".join(map(_written, value))
        if isinstance(value, list):
            return f"[{items}]"
        return f"({items},)" if len(value) == 1 else f"({items})"
    return repr(value)
