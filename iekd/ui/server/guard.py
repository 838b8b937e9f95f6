"""What stands before Gradio: requests that are too large for a limit or the disk, or ask for addresses; `/healthz`."""

from __future__ import annotations

import contextlib
import shutil

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iekd import __version__
from iekd.data.archives import LEAST_FREE
from iekd.runs.store import Store
from iekd.ui.rights.access import Access, counts
from iekd.ui.shared.gradio_patches import upload_folder

MOST_BODY = 8 * 2**20  # bytes of a request that uploads no files; the largest of ours is the table of a thousand runs
TOO_LARGE = "This is more than the page accepts at once. Send smaller or fewer images.\n"
NO_ROOM = "The disk of this machine is nearly full. Try again later, or free some space.\n"
FOREIGN = ("/file=http", "/file/http", "/proxy=")  # the page shows nothing of other servers


class _TooLarge(Exception):  # noqa: N818 - never leaves this file
    pass


class Guard:
    """ASGI middleware: 413 for bodies over the cap, whatever their header says of their length; 507 for uploads that
    would fill the disk; 403 for addresses."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].lower()
        if any(part in path for part in FOREIGN):
            await PlainTextResponse("Only this page's own files are served.\n", 403)(scope, receive, send)
            return
        most = self.access.most_upload(Request(scope)) if path.endswith("/upload") else MOST_BODY
        headers = dict(scope["headers"])
        refusal = PlainTextResponse(TOO_LARGE, 413, {"connection": "close"})
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await refusal(scope, receive, send)
            return
        if path.endswith("/upload") and not _room_for(int(length) if length != b"0" else most):
            await PlainTextResponse(NO_ROOM, 507, {"connection": "close"})(scope, receive, send)
            return
        got, answered = 0, False

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > most:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            if got <= most:
                answered = True
                await send(message)  # else it is how the app takes the error, which is answered below

        with contextlib.suppress(_TooLarge):
            await self.app(scope, counted, noted)
        if got > most and not answered:
            await refusal(scope, receive, send)


def _room_for(size: int) -> bool:
    """Whether an upload leaves the runs of this machine some room."""
    place = upload_folder()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free - size >= LEAST_FREE


def health(store: Store) -> Route:
    """`/healthz`: 200 with the version and how many runs wait and go."""

    def answer(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "version": __version__, **counts(store)})

    return Route("/healthz", answer)
