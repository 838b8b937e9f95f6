"""The scripts that the page needs before anything of it is drawn, and those that are files of their own."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iekd.ui.server.script_words import script

RENDER = Path(__file__).parents[1] / "render"
FILES = {  # addresses -> what is served there, one after the other
    "/iekd/chart.js": ("vendor/uPlot.iife.min.js", "chart.js"),
    "/iekd/class_cards.js": ("vendor/fflate.umd.min.js", "class_cards.js"),
}
# a page that opens with a run or a tab in its address shows nothing until that one is in front (style.css)
ELSEWHERE = "if (/[?&](run|tab)=/.test(location.search)) document.documentElement.dataset.elsewhere = '';"

# Gradio says that the page is in the browser's language, which screen readers would then read it in
SAY_LANGUAGE = """(() => {
  const root = document.documentElement, own = root.lang;
  new MutationObserver(() => { if (root.lang !== own) root.lang = own; }).observe(root, {attributeFilter: ['lang']});
})();"""


@lru_cache(maxsize=len(FILES))
def served(address: str) -> tuple[str, str]:
    """(JavaScript that is served at one of FILES, a short fingerprint of it for its address)."""
    text = "\n".join((RENDER / name).read_text() for name in FILES[address])
    return text, hashlib.sha256(text.encode()).hexdigest()[:12]


def first_scripts(base: str) -> str:
    """HTML for the head of the page. base: the path that the page is behind, "" for none."""
    keyboard = (RENDER / "keyboard.js").read_text()
    first = f"<script>{ELSEWHERE}\n{SAY_LANGUAGE}\n{script()}\n{keyboard}</script>"
    return first + "".join(f'<script src="{base}{name}?v={served(name)[1]}" defer></script>' for name in FILES)


def script_routes() -> list[Route]:
    """Routes of FILES, which browsers keep until they change: an address has the fingerprint of its content."""

    def answer(request: Request) -> Response:
        headers = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(served(request.scope["path"])[0], media_type="text/javascript", headers=headers)

    return [Route(address, answer) for address in FILES]
