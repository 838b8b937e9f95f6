"""The script that saves frames is put into the page, and into nothing else."""

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from iekd.ui.server.gradio_patches import FEW_FRAMES, FewFrames

PAGE = "<html><head><title>é</title></head><body>x</body></html>"


async def whole(_: Request) -> Response:
    return HTMLResponse(PAGE)


async def in_pieces(_: Request) -> Response:
    return StreamingResponse(iter([PAGE[:10], PAGE[10:]]), media_type="text/html")


@pytest.mark.parametrize("answer", [whole, in_pieces])
def test_the_page_begins_with_the_script_and_says_its_new_length(answer: object) -> None:
    app = Starlette(
        routes=[Route("/", answer), Route("/other", answer)],  # type: ignore[arg-type]
        middleware=[Middleware(FewFrames)],
    )
    client = TestClient(app)
    page = client.get("/")
    assert page.content == PAGE.encode().replace(b"<head>", b"<head>" + FEW_FRAMES)
    assert int(page.headers["content-length"]) == len(page.content)
    assert client.get("/other").text == PAGE
