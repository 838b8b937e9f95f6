"""What programs send to the public endpoints, checked before Gradio: a body that does not fit gets one sentence.

Gradio would answer with 422 and a list of its own terms, with 500, or with `{"error": null}`.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iekd.errors import UserError, unknown_name
from iekd.plural import counted
from iekd.ui.shared.endpoints import Endpoints, check, in_order, listed

CALL = re.compile(r"/gradio_api/(call|run|api|queue/join)(/|$)")
NAMED = re.compile(r"/gradio_api/(?P<route>call/v2|call|run|api)/(?P<name>[^/]+)/?")
STREAM = re.compile(r"/gradio_api/(call/[^/]+/[^/]+|queue/data)/?")
UNKNOWN = b"404: Not Found"  # what Gradio writes into the answer then
NO_CALL = "There is no such call, or its answer has been fetched already. Call the endpoint again."
WENT_WRONG = "This failed because of a mistake in the program, not in what you sent. The server's log has the details."
NOT_ALLOWED = "Not allowed"  # the title of an error that is answered with 403


class Bodies:
    """ASGI middleware: 400 for a body that does not fit an endpoint, 404 for an endpoint or a call that does not exist,
    415 for a body that does not claim to be JSON.

    An error of an endpoint that was called directly is 400, or 403 for what is not allowed, where Gradio says 500.
    """

    def __init__(self, app: ASGIApp, endpoints: Endpoints) -> None:
        self.app, self.endpoints = app, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and STREAM.fullmatch(scope["path"]):
            await self._stream(scope, receive, send)
            return
        if scope["type"] != "http" or scope["method"] != "POST" or not CALL.match(scope["path"]):
            await self.app(scope, receive, send)
            return
        content = await _read(receive)
        if content is None:
            return
        try:
            checked = self._checked(scope, content)
        except _RefusedError as error:
            await JSONResponse({"error": str(error)}, error.status)(scope, receive, send)
            return
        except UserError as error:
            await JSONResponse({"error": str(error)}, 400)(scope, receive, send)
            return
        MutableHeaders(scope=scope)["content-length"] = str(len(checked))
        rest: list[Message] = [{"type": "http.request", "body": checked}]

        async def checked_body() -> Message:
            return rest.pop() if rest else await receive()

        await self.app(scope, checked_body, _proper_status(send))

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Gradio begins an answer with status 200 before it knows whether there is such a call, and then breaks off."""
        held: list[Message] = []

        async def late(message: Message) -> None:
            held.append(message)
            if message["type"] == "http.response.start" or (len(held) == 2 and UNKNOWN in message.get("body", b"")):
                return
            for each in held:
                await send(each)
            held.clear()

        try:
            await self.app(scope, receive, late)
        except RuntimeError as error:
            if not held or not isinstance(error.__cause__, HTTPException):
                raise
            await JSONResponse({"error": NO_CALL}, 404)(scope, receive, send)

    def _checked(self, scope: Scope, content: bytes) -> bytes:
        """The body to pass on, with their defaults for values that were left out."""
        found = NAMED.fullmatch(scope["path"])
        by_number = not found or found["name"] == "predict"  # what Gradio's own page and clients use
        name = "" if by_number or not found else found["name"]
        if name and name not in self.endpoints:
            raise _RefusedError(str(unknown_name("endpoint", name, self.endpoints)), 404)
        if Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise _RefusedError("The body has to be sent with the header 'Content-Type: application/json'.", 415)
        body = _object(content)
        if name:
            self._check_values(name, body, found is not None and found["route"] == "call/v2")
        elif not isinstance(body.get("data"), list) or type(body.get("fn_index")) is not int:
            raise UserError("The body needs 'data', a list of values, and 'fn_index', the number of an event.")
        return json.dumps(body, ensure_ascii=False).encode()

    def _check_values(self, name: str, body: dict[str, Any], named: bool) -> None:
        endpoint = self.endpoints[name]
        parameters = endpoint.parameters
        if named:
            given = {key: body[key] for key in body if key not in ("session_hash", "oauth_token")}
            values = in_order(endpoint, given)
            body |= {parameter.name: value for parameter, value in zip(parameters, values, strict=True)}
            return  # with the optional ones, which Gradio asks for
        values = body.get("data", ...)
        if not isinstance(values, list):
            raise UserError(
                f"The body of '{name}' needs 'data', a list of values: {listed(parameters) or 'an empty one here'}."
            )
        if len(values) > len(parameters):
            many = "no values" if not parameters else f"{len(parameters)} at most: {listed(parameters)}"
            got = counted(len(values), "value")
            raise UserError(f"The endpoint '{name}' got {got}, but it takes {many}.")
        check(name, parameters, values)
        values += [None] * (len(parameters) - len(values))
        pairs = zip(parameters, values, strict=True)
        body["data"] = [parameter.default if value is None else value for parameter, value in pairs]


class _RefusedError(UserError):
    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _object(content: bytes) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        UserError: it is something else.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(
            'The body is not JSON. Send an object such as {"data": [...]}.'
            if content.strip()
            else 'The body is empty. Send a JSON object such as {"data": [...]}.'
        ) from None
    if not isinstance(body, dict):
        raise UserError('The body has to be a JSON object such as {"data": [...]}.')
    try:
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise UserError("The body has a number or a character that JSON does not know, such as NaN.") from None
    return body


async def _read(receive: Receive) -> bytes | None:
    """The whole body, which the guard keeps below its limit; None if the sender has gone."""
    content, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        content += message.get("body", b"")
        more = message.get("more_body", False)
    return content


def _proper_status(send: Send) -> Send:
    """Gradio answers 500 to a direct call whose error has a sentence; that is 400 or 403, unless the fault is ours."""
    held: list[Message] = []

    async def changed(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 500:
            held.append(message)
            return
        if held:
            start = held.pop()
            with contextlib.suppress(ValueError, AttributeError):
                error = json.loads(message.get("body", b""))
                if error.get("error") not in (None, WENT_WRONG):
                    start["status"] = 403 if error.get("title") == NOT_ALLOWED else 400
            await send(start)
        await send(message)

    return changed
