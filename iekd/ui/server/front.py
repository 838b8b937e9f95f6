"""Outermost of all: headers on every answer, the path before the page's own addresses, wrong tokens, other sites.

`launch.py` puts it around everything that Gradio adds, so that answers of the framework carry the headers too.
"""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iekd.errors import UserError
from iekd.ui.rights.access import COOKIE, HEADER, Access, address_of
from iekd.ui.rights.sessions import same

# Gradio's page has its settings in inline scripts and compiles the scripts of events from text, so both are allowed.
# What the policy prevents: code, pictures and connections of other sites, and frames in sites that are not named.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors "
)
# a file that somebody uploaded is shown as a picture; opened by itself it must not run as a part of the page
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors "
FILES = ("/file=", "/file/")
FRAMED_BY_SPACES = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
LOGIN = "session"  # Gradio's cookie of who is logged in with the Hub
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OTHER_SITE = "This request came from a page of another site. Use the page itself, or send the token in a header.\n"


class Front:
    """ASGI middleware around the whole server.

    root: the path that a proxy puts before the page's addresses, such as "/studio"; "" for none. The proxy may pass it
    on or strip it.
    """

    def __init__(self, app: ASGIApp, access: Access, root: str = "") -> None:
        self.app, self.access, self.root = app, access, root
        self.framed_by = FRAMED_BY_SPACES if access.in_space else "'self'"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(scope["path"], MutableHeaders(raw=message["headers"]))
            await send(message)

        await self._answer(scope, receive, with_headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.root and scope["path"] == self.root:  # relative addresses of the page need the slash
            query = scope["query_string"].decode("latin-1")
            address = f"{self.root}/?{query}" if query else f"{self.root}/"
            await RedirectResponse(address, status_code=308)(scope, receive, send)
            return
        if self.root and scope["path"].startswith(f"{self.root}/"):
            scope["path"] = scope["path"].removeprefix(self.root)
            scope["raw_path"] = scope["raw_path"].removeprefix(self.root.encode())
        request = Request(scope)
        from_page_of = request.headers.get("sec-fetch-site", "none")
        known = any(cookie in request.cookies for cookie in (COOKIE, LOGIN))
        if scope["method"] not in SAFE_METHODS and known and from_page_of.endswith("-site"):
            await PlainTextResponse(OTHER_SITE, 403)(scope, receive, send)
            return
        given = request.headers.get(HEADER)
        if given and self.access.token and not same(given, self.access.token):
            again = await self.access.attempts.wait(address_of(request))
            if again:
                await too_many(again)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _add_headers(self, path: str, headers: MutableHeaders) -> None:
        policy = FILE_POLICY if any(part in path for part in FILES) else PAGE_POLICY
        headers["x-content-type-options"] = "nosniff"
        headers["referrer-policy"] = "same-origin"
        headers["content-security-policy"] = policy + self.framed_by
        if headers.get("content-type", "").startswith("text/event-stream"):
            headers["x-accel-buffering"] = "no"  # nginx would hold back the messages of a stream


def too_many(again: float) -> PlainTextResponse:
    """The answer to wrong tokens of which too many wait already."""
    seconds = math.ceil(again)
    return PlainTextResponse(
        f"Too many wrong tokens were sent. Wait {seconds} seconds before you try another one.\n",
        429, {"retry-after": str(seconds)},
    )  # fmt: skip


def in_front(access: Access, root: str) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan that puts `Front` around the app, after Gradio has added its own middleware and before any request."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        app.middleware_stack = Front(app.middleware_stack, access, root)
        yield

    return lifespan


def check_root_path(text: str) -> str:
    """ "studio/" -> "/studio"; a whole address stays one, without the slash at its end.

    Raises:
        UserError: it is neither a path nor an address.
    """
    text = text.strip().rstrip("/")
    parts = urlsplit(text if "://" in text or not text else "/" + text.lstrip("/"))
    whole = f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") and parts.netloc else ""
    if (
        parts.query
        or parts.fragment
        or (parts.scheme and not whole)
        or "//" in parts.path
        or set(text) & set(" \"'<>\\")
    ):
        raise UserError(
            f"'{text}' cannot be used as the root path. Give a path such as /studio, "
            "or the whole address such as https://example.com/studio."
        )
    return whole + parts.path


def path_of(root: str) -> str:
    """The path of a root path that may be a whole address."""
    return urlsplit(root).path


def trusted_proxies() -> str:
    """The addresses and networks in IEKD_TRUSTED_PROXIES, whose X-Forwarded-For is believed, for uvicorn.

    Raises:
        UserError: one is no address.
    """
    names = [name.strip() for name in os.environ.get("IEKD_TRUSTED_PROXIES", "").split(",") if name.strip()]
    for name in names:
        try:
            ipaddress.ip_network(name)
        except ValueError:
            raise UserError(
                f"'{name}' in IEKD_TRUSTED_PROXIES is not an address. Write addresses or networks with commas, "
                "such as 127.0.0.1,10.0.0.0/8."
            ) from None
    return ",".join(names)
