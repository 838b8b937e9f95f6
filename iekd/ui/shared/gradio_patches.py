"""Everything that changes or reaches into Gradio's own code, each with its reason. Written for Gradio 6.31.0.

`patch_process` and `patch_page` are called once, by launch.py; the two component functions where a component is made.
What is needed before Gradio is imported is in iekd/ui/__init__.py.
Where a version of Gradio no longer has what a patch replaces, the page works without the patch, and one line in the log
names it. tests/ui/test_gradio_patches.py fails in that case.
"""

from __future__ import annotations

import functools
import logging
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils, utils
from gradio.context import get_blocks_context
from PIL import Image
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iekd.data.decoding import MAX_PIXELS
from iekd.language import language
from iekd.ui import gradio_is_imported
from iekd.ui.shared.endpoints import ANSWER, Endpoint, Schema

WRITTEN_FOR = "6.31.0"
DOES_NOT_FIT = (
    "These values cannot be used here. Send as many as are asked for, of their kind; "
    "files have to be uploaded to this page first."
)
log = logging.getLogger(__name__)


def patch_process() -> None:
    """The patches of modules; before the page is built."""
    gradio_is_imported()
    limit_image_size()
    refuse_addresses()


def patch_page(demo: gr.Blocks) -> None:
    """The patches of one page; after its `launch`, which creates what they change."""
    poll_less_often(demo)
    keep_no_copy_per_call(demo)
    say_what_does_not_fit(demo)


def limit_image_size() -> None:
    """Pillow, which Gradio opens uploads with, refuses an image of twice MAX_PIXELS: a small file can decode to a huge
    one. The warning below that limit is turned off; the page names an image that is too large itself."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def refuse_addresses() -> None:
    """Gradio downloads an image that a request names by its URL, for strangers too, and keeps the file. This page never
    asks for that."""

    def refuse(url: str, cache_dir: str) -> NoReturn:
        raise gr.Error("Only uploaded images are compared, no addresses.", print_exception=False)

    async def refuse_later(url: str, cache_dir: str) -> NoReturn:
        refuse(url, cache_dir)

    _replace(processing_utils, "ssrf_protected_download", refuse)
    _replace(processing_utils, "async_ssrf_protected_download", refuse_later)


def poll_less_often(demo: gr.Blocks) -> None:
    """Gradio's queue looks for work every millisecond, which takes 6 % of a core that training can use."""
    _replace(demo, "_queue.sleep_when_free", 0.05)


def keep_no_copy_per_call(demo: gr.Blocks) -> None:
    """Gradio copies the whole page at every call of a program, for links to a page's state. This page has none.

    The copy takes 16 ms of the server's loop and leaves 0.27 MB. A session made from no blocks holds only what it uses.
    """
    empty = SimpleNamespace(blocks={}, default_config=getattr(demo, "default_config", None))
    _replace(demo, "state_holder.blocks", empty)


def say_what_does_not_fit(demo: gr.Blocks) -> None:
    """Values that an event cannot take, such as a file that was never uploaded, end in `{"error": null}` and a
    traceback in the log. With this they end in a sentence."""
    original = getattr(demo, "preprocess_data", None)

    async def preprocess_data(*args: Any, **kwargs: Any) -> Any:
        try:
            return await original(*args, **kwargs)  # type: ignore[misc]
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:
            log.info("action=call allowed=no reason=%r", f"{type(error).__name__}: {error}"[:300])
            raise gr.Error(DOES_NOT_FIT, print_exception=False) from None

    _replace(demo, "preprocess_data", preprocess_data)


def file_field(**options: Any) -> gr.File:
    """A `gr.File` without the empty temporary file that Gradio creates for each file of each call and never removes."""
    component = gr.File(**options)
    named = getattr(utils, "NamedString", str)
    _replace(component, "_process_single_file", lambda f: named(f.path))
    return component


def describe_field(component: Any, name: str, schema: Schema) -> Any:
    """Give a component the name and the schema that `/gradio_api/info` and the API page show of it.

    Gradio has its own for each kind of component: labels such as "parameter_164", and for JSON no type at all.
    """
    component.label = name
    said = {**schema, "additional_description": schema.get("description", "")}  # Gradio's key for a parameter's words
    _replace(component, "api_info", lambda: said)
    if "examples" in schema:  # Gradio's own name files of other servers, which this page does not fetch
        for place in ("example_payload", "example_value"):
            _replace(component, place, lambda: schema["examples"][0])
    return component


def describe_endpoint(event: Any, endpoint: Endpoint) -> None:
    """The same for `gr.api`, which calls parameters "1st", "2nd" and takes types that it does not know for anything."""
    blocks = get_blocks_context()
    function = getattr(blocks, "fns", {}).get(event.get("id"))
    if function is None:
        _say_missing("Blocks", "fns")
        return
    for component, parameter in zip(function.inputs, endpoint.parameters, strict=True):
        describe_field(component, parameter.name, parameter.schema)
    for component in function.outputs:
        describe_field(component, ANSWER, endpoint.answer)


def open_dropdown(**options: Any) -> gr.Dropdown:
    """A `gr.Dropdown` whose handlers check its value themselves.

    Gradio checks it against the choices of the session, which the server forgets when it restarts or has too many open
    pages (`state_session_capacity`); the page then still shows choices that the server would refuse.
    """
    component = gr.Dropdown(**options)
    _replace(component, "preprocess", lambda value: str(value or ""))
    return component


def open_choices(**options: Any) -> gr.Dropdown:
    """`open_dropdown` for several values; None before any has been chosen."""
    component = gr.Dropdown(multiselect=True, **options)
    _replace(component, "preprocess", lambda value: [str(v) for v in value] if isinstance(value, list) else None)
    return component


def upload_folder() -> Path:
    """Where Gradio writes uploaded files; the folder need not exist yet."""
    return Path(utils.get_upload_folder())


def _replace(owner: object, path: str, value: object) -> None:
    """Set an attribute that Gradio has, such as "state_holder.blocks"; log one line where it is no longer there."""
    *parents, name = path.split(".")
    target = owner
    for parent in parents:
        target = getattr(target, parent, None)
    if hasattr(target, name):
        setattr(target, name, value)
    else:
        _say_missing(owner.__name__ if isinstance(owner, ModuleType) else type(owner).__name__, path)


@functools.cache  # a page has several file fields
def _say_missing(owner: str, path: str) -> None:
    log.warning(
        "action=patch-gradio applied=no attribute=%s.%s version=%s written_for=%s",
        owner, path, gr.__version__, WRITTEN_FOR,
    )  # fmt: skip


# Gradio's loading indicator goes on asking for 60 frames a second after it has left the page. Without a GPU to draw
# them that costs more than everything else an open page does, and learners in lock-step all wait for the one it slows.
# So frames are given freely while someone points, types or scrolls, and once a second while the page is only watched:
# curves and progress do not need them. The script has to run before Gradio's own; `launch(head=...)` comes too late.
FEW_FRAMES = b"""<script>(() => {
  const native = window.requestAnimationFrame.bind(window);
  let waiting = new Map(), last = 0, asked = false, timer = 0, awakeUntil = 5000;
  const draw = (time) => {
    const now = waiting;
    waiting = new Map();
    asked = false;
    now.forEach((callback) => callback(time));
  };
  const ask = () => {
    clearTimeout(timer);
    timer = 0;
    native(draw);
  };
  window.requestAnimationFrame = (callback) => {
    waiting.set(++last, callback);
    if (!asked) {
      asked = true;
      if (performance.now() < awakeUntil) ask(); else timer = setTimeout(ask, 1000);
    }
    return last;
  };
  window.cancelAnimationFrame = (id) => { waiting.delete(id); };
  const wake = () => {
    awakeUntil = performance.now() + 2000;
    if (timer) ask();
  };
  for (const kind of ['pointermove', 'pointerdown', 'keydown', 'wheel', 'scroll', 'touchmove', 'resize'])
    window.addEventListener(kind, wake, {capture: true, passive: true});
})()</script>"""


# Where a proxy puts a path before the page's addresses, the browser may have opened "/studio" as well as "/studio/".
# Gradio's own `<base href="./">` finds nothing from the former.
BASE = b'<base href="./" />'
LANGUAGE = b'lang="en"'


class PageHtml:
    """ASGI middleware that puts `FEW_FRAMES` and `head` first in the head of the page, and says what its addresses
    start with and which language it is in. Gradio's own script adds what `launch(head=...)` is given, too late for what
    is needed first.

    base: the root path with a slash at its end. head: HTML.
    """

    def __init__(self, app: ASGIApp, base: str = "/", head: str = "") -> None:
        self.app, self.base, self.head = app, base, FEW_FRAMES + head.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def add(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            for part in (b"<head>", BASE, LANGUAGE):
                if part not in body and body and start["status"] == 200:
                    _say_missing("page", part.decode())
            body = body.replace(b"<head>", b"<head>" + self.head, 1)
            body = body.replace(LANGUAGE, f'lang="{language()}"'.encode(), 1)
            if self.base != "/":
                body = body.replace(BASE, f'<base href="{self.base}" />'.encode(), 1)
            MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
            await send(start)
            await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, add)
