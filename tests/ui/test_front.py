"""Headers on every answer, the path that a proxy adds, and whose forwarding headers are believed. Real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from ui_helpers import CLIENT, TOKEN, call, serving

from iekd.errors import UserError
from iekd.ui.rights.access import Access
from iekd.ui.server.front import FILE_POLICY, Front, check_root_path, path_of, trusted_proxies
from iekd.ui.server.guard import MOST_BODY

PREFIX = "/tools/studio"


def check_headers(answer: httpx.Response, framed_by: str = "'self'") -> None:
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff", answer.url
    assert headers["referrer-policy"] == "same-origin"
    assert headers["content-security-policy"].endswith(f"frame-ancestors {framed_by}")
    assert len(headers.get_list("content-security-policy")) == 1


def test_every_answer_has_the_headers(guarded: str) -> None:
    """Also those of the framework: not found, not allowed, a preflight, a refused body."""
    for method, path, headers in (
        ("GET", "/", {}), ("GET", "/config", {}), ("GET", "/healthz", {}), ("GET", "/sign-in", {}),
        ("GET", "/nowhere", {}), ("DELETE", "/healthz", {}), ("POST", "/gradio_api/call/nothing", {}),
        ("GET", "/gradio_api/file=/etc/passwd", {}), ("GET", "/download/nothing/x", {}),
        ("OPTIONS", "/config", {"origin": "http://evil.example", "access-control-request-method": "GET"}),
    ):  # fmt: skip
        with CLIENT.stream(method, guarded + path, headers=headers) as answer:
            check_headers(answer)
    too_large = CLIENT.post(f"{guarded}/gradio_api/queue/join", content=bytes(MOST_BODY + 1), timeout=60)
    assert too_large.status_code == 413
    check_headers(too_large)
    script = CLIENT.get(guarded).text.partition('src="./assets/')[2].partition('"')[0]
    check_headers(CLIENT.get(f"{guarded}/assets/{script}"))


def test_an_uploaded_file_is_no_part_of_the_page(server: str) -> None:
    """Opened by itself, a picture with a script in it may do nothing."""
    file = {"files": ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")}
    (path,) = CLIENT.post(f"{server}/gradio_api/upload", files=file).json()
    answer = CLIENT.get(f"{server}/gradio_api/file={path}")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith(FILE_POLICY)
    assert "sandbox" in FILE_POLICY


def test_a_space_lets_its_own_site_embed_the_page(tmp_path: Path) -> None:
    with serving(tmp_path, SPACE_ID="someone/space") as url:
        check_headers(CLIENT.get(url), "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space")


# Behind a path


@pytest.mark.parametrize(
    ("given", "root", "path"),
    [
        ("", "", ""), ("/", "", ""), ("studio", "/studio", "/studio"), ("/a/b/", "/a/b", "/a/b"),
        ("https://example.com/studio/", "https://example.com/studio", "/studio"),
        ("https://example.com", "https://example.com", ""),
    ],
)  # fmt: skip
def test_a_root_path_is_a_path_or_a_whole_address(given: str, root: str, path: str) -> None:
    assert check_root_path(given) == root
    assert path_of(root) == path


@pytest.mark.parametrize("wrong", ["/a b", "/a?x=1", "ftp://example.com/a", "/a#b", 'a">', "https:///a", "//a//b"])
def test_anything_else_is_refused_in_words(wrong: str) -> None:
    with pytest.raises(UserError, match="cannot be used as the root path"):
        check_root_path(wrong)


class proxy:  # noqa: N801
    """A reverse proxy before `url` that has the page at PREFIX, and strips it or not; ends with the block."""

    def __init__(self, url: str, strips: bool) -> None:
        async def forward(request: Request) -> Response:
            path = request.url.path.removeprefix(PREFIX) if strips else request.url.path
            headers = [(k, v) for k, v in request.headers.items() if k not in ("connection", "content-length")]
            asked = client.build_request(
                request.method, httpx.URL(url).copy_with(path=path or "/", query=request.url.query.encode()),
                headers=[*headers, ("x-forwarded-host", request.headers["host"])], content=await request.body(),
            )  # fmt: skip
            answer = await client.send(asked, stream=True)
            reply = StreamingResponse(answer.aiter_raw(), answer.status_code, background=BackgroundTask(answer.aclose))
            reply.raw_headers = [(k.lower(), v) for k, v in answer.headers.raw]
            return reply

        fresh = httpx.Limits(max_keepalive_connections=0)  # the page may end one that is kept
        client = httpx.AsyncClient(timeout=60, limits=fresh)
        methods = ["GET", "POST", "HEAD", "OPTIONS"]
        routes = [Route(PREFIX, forward, methods=methods), Route(PREFIX + "/{path:path}", forward, methods=methods)]
        self.server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}{PREFIX}"

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(30)


@pytest.fixture(scope="module")
def behind_a_path(runs_dir: Path, finished_run: str) -> Iterator[str]:
    """The page's own address, with a root path and a token."""
    with serving(runs_dir, "--root-path", PREFIX, IEKD_ADMIN_TOKEN=TOKEN) as url:
        yield url.removesuffix(PREFIX)


@pytest.mark.parametrize("strips", [True, False])
@pytest.mark.parametrize("opened", ["", "/"])
def test_the_page_finds_its_parts_behind_a_path(behind_a_path: str, strips: bool, opened: str) -> None:
    import re

    with proxy(behind_a_path, strips) as url:
        page = CLIENT.get(url + opened, follow_redirects=True)
        assert page.status_code == 200
        assert f'"root":"{url}"' in page.text
        (base,) = re.findall(r'<base href="([^"]*)"', page.text)
        parts = re.findall(r'(?:src|href)="(\./[^"]+\.(?:js|css))"', page.text)
        assert len(parts) > 1
        for part in parts:
            found = CLIENT.get(httpx.URL(url).join(base).join(part))
            assert found.status_code == 200, part
            assert "html" not in found.headers["content-type"]
        assert CLIENT.get(f"{url}/theme.css").status_code == 200


@pytest.mark.parametrize("strips", [True, False])
def test_streams_endpoints_downloads_and_signing_in_work_behind_a_path(
    behind_a_path: str, finished_run: str, strips: bool
) -> None:
    with proxy(behind_a_path, strips) as url:
        kind, (status,) = call(url, "run_status", finished_run)
        assert (kind, status["run"]) == ("complete", finished_run)
        assert CLIENT.get(f"{url}/healthz").json()["status"] == "ok"
        with httpx.Client(base_url=url) as browser:
            refused = browser.get(f"/download/{finished_run}/teacher")
            assert refused.status_code == 403
            answer = browser.post("/sign-in", data={"token": TOKEN})
            assert f"Path={PREFIX};" in answer.headers["set-cookie"] + ";"
            assert httpx.URL(f"{url}/sign-in").join(answer.headers["location"]) == f"{url}/?tab=train"
            zipped = browser.get(f"/download/{finished_run}/teacher")
            assert zipped.content[:2] == b"PK"
            browser.get("/sign-out")
            assert browser.get(f"/download/{finished_run}/teacher").status_code == 403


def test_messages_of_a_stream_are_not_held_back(server: str, finished_run: str) -> None:
    event = CLIENT.post(f"{server}/gradio_api/call/run_status", json={"data": [finished_run]}).json()["event_id"]
    with CLIENT.stream("GET", f"{server}/gradio_api/call/run_status/{event}") as answer:
        assert answer.headers["x-accel-buffering"] == "no"


def test_a_path_that_only_begins_alike_is_not_the_pages() -> None:
    import asyncio

    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    front = Front(app, Access(), "/studio")
    for path in ("/studio/x", "/studios/x", "/x/studio"):
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": [],
                 "query_string": b""}  # fmt: skip
        asyncio.run(front(scope, None, None))  # type: ignore[arg-type]
    assert seen == ["/x", "/studios/x", "/x/studio"]


# Proxies


def test_nobodys_forwarding_header_is_believed_unless_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("IEKD_TRUSTED_PROXIES", raising=False)
    assert trusted_proxies() == ""
    monkeypatch.setenv("IEKD_TRUSTED_PROXIES", " 127.0.0.1, 10.0.0.0/8,")
    assert trusted_proxies() == "127.0.0.1,10.0.0.0/8"
    for wrong in ("*", "nginx", "10.0.0.0/99"):
        monkeypatch.setenv("IEKD_TRUSTED_PROXIES", wrong)
        with pytest.raises(UserError, match="IEKD_TRUSTED_PROXIES"):
            trusted_proxies()


@pytest.mark.parametrize(("named", "visitors"), [("", {"127.0.0.1"}), ("127.0.0.1", {"1.2.3.4", "5.6.7.8"})])
def test_the_server_tells_visitors_apart_behind_a_named_proxy_only(
    tmp_path: Path, capfd: Any, named: str, visitors: set[str]
) -> None:
    import re

    with serving(tmp_path, IEKD_ADMIN_TOKEN=TOKEN, IEKD_TRUSTED_PROXIES=named) as url:
        for address in ("1.2.3.4", "9.9.9.9, 5.6.7.8"):
            call(url, "start", {"epochs": 1}, **{"x-forwarded-for": address})
    assert set(re.findall(r"action=start run=- from=(\S+) allowed=no", capfd.readouterr().err)) == visitors
