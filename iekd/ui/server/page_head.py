"""What the page's head loads: its styles, and the chart's code, which browsers keep until it changes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iekd.ui.app import ELSEWHERE, style
from iekd.ui.render.chart import chart_script
from iekd.ui.render.colours import method_colours

CHART = "/iekd/chart.js"


def page_head(base: str) -> str:
    """HTML for the head. base: the path that the page is behind, "" for none."""
    _, fingerprint = chart_script()
    scripts = f'<script>{ELSEWHERE}</script><script src="{base}{CHART}?v={fingerprint}"></script>'
    return f"{scripts}<style>{style()}{method_colours()}</style>"


def chart_route() -> Route:
    """The chart's code."""

    def answer(request: Request) -> Response:
        headers = {"cache-control": "public, max-age=31536000, immutable"}  # its address has its fingerprint
        return Response(chart_script()[0], media_type="text/javascript", headers=headers)

    return Route(CHART, answer)
