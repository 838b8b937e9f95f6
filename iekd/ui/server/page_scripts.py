"""The scripts that the page needs before anything of it is drawn."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iekd.ui.render.chart import chart_script
from iekd.ui.server.script_words import script

CHART = "/iekd/chart.js"
# a page that opens with a run or a tab in its address shows nothing until that one is in front (style.css)
ELSEWHERE = "if (/[?&](run|tab)=/.test(location.search)) document.documentElement.dataset.elsewhere = '';"

# Gradio says that the page is in the browser's language, which screen readers would then read it in
SAY_LANGUAGE = """(() => {
  const root = document.documentElement, own = root.lang;
  new MutationObserver(() => { if (root.lang !== own) root.lang = own; }).observe(root, {attributeFilter: ['lang']});
})();"""


def first_scripts(base: str) -> str:
    """HTML for the head of the page. base: the path that the page is behind, "" for none."""
    _, fingerprint = chart_script()
    keyboard = (Path(__file__).parents[1] / "render" / "keyboard.js").read_text()
    first = f"<script>{ELSEWHERE}\n{SAY_LANGUAGE}\n{script()}\n{keyboard}</script>"
    return f'{first}<script src="{base}{CHART}?v={fingerprint}" defer></script>'


def chart_route() -> Route:
    """The chart's code, which browsers keep until it changes: its address has its fingerprint."""

    def answer(request: Request) -> Response:
        headers = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(chart_script()[0], media_type="text/javascript", headers=headers)

    return Route(CHART, answer)
