"""The endpoints as tools for programs that speak MCP (Model Context Protocol), at `/gradio_api/mcp`.

Written on the package `mcp` rather than on Gradio's own MCP server: that one asks the page as a client of its own, so
that every caller has this machine's address, it fetches the addresses that files are given by, and answers in Python's
notation instead of JSON.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from iekd import __version__
from iekd.errors import UserError, unknown_name
from iekd.launchers.base import Launcher
from iekd.ui.api.bodies import WENT_WRONG
from iekd.ui.api.methods import ENDPOINTS, Actions
from iekd.ui.rights.access import Access
from iekd.ui.shared.answers import is_file, takes_files
from iekd.ui.shared.endpoints import Endpoint, Parameter, Schema, in_order
from iekd.ui.shared.gradio_patches import upload_folder

log = logging.getLogger(__name__)
ADDRESS = "/gradio_api/mcp"
MISSING = "The MCP server needs the package 'mcp'. Install it with: pip install -U 'mcp>=1.22,<2'"
MOST_WAITING = 16  # calls of one tool that wait for each other
FILE: Schema = {
    "type": "string",
    "description": "a data: URL with base64, or the path that an upload to /gradio_api/upload returned",
}
DATA = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+)?(;[\w.+-]+=[^;,]*)*;base64,(?P<content>.*)", re.DOTALL)
FROM_A_PAGE = "MCP requests are not taken from web pages. Use a program."
RESULT = "result"  # the key of an answer that is no object, which MCP requires


class McpServer:
    """The tools of one page, and the route that serves them. Each request stands alone: there are no sessions.

    Raises:
        UserError: the package `mcp` is not installed.
    """

    def __init__(self, launcher: Launcher, access: Access) -> None:
        try:
            from mcp import types
            from mcp.server.lowlevel import Server
            from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
        except ImportError:
            raise UserError(MISSING) from None
        self.actions = Actions(launcher, access)
        # as for HTTP, one call of an endpoint at a time; the others wait
        self.turns = {name: anyio.CapacityLimiter(1) for name in ENDPOINTS}
        server: Any = Server("IE-KD Studio", version=__version__)

        async def list_tools() -> list[Any]:
            return [
                types.Tool(
                    name=name, description=endpoint.description, inputSchema=input_schema(endpoint),
                    outputSchema=output_schema(endpoint),
                )
                for name, endpoint in ENDPOINTS.items()
            ]  # fmt: skip

        async def call_tool(name: str, arguments: dict[str, Any]) -> Any:
            answer = await self.call(name, arguments, server.request_context.request)
            text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
            wrapped = answer if output_is_object(ENDPOINTS[name]) else {RESULT: answer}
            return [types.TextContent(type="text", text=text)], wrapped

        server.list_tools()(list_tools)
        # values are compared with the endpoint's own parameters, which gives the same sentences as HTTP
        server.call_tool(validate_input=False)(call_tool)
        self.manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)

    async def call(self, name: str, arguments: dict[str, Any], request: Request) -> Any:
        """What an endpoint answers to whoever sent the request.

        Raises:
            UserError: what HTTP would say too, or that too many calls wait.
        """
        if name not in ENDPOINTS:
            raise unknown_name("tool", name, ENDPOINTS)
        endpoint, turn = ENDPOINTS[name], self.turns[name]
        values = in_order(endpoint, arguments, as_text(endpoint))
        if turn.statistics().tasks_waiting >= MOST_WAITING:
            raise UserError("Too many calls of this tool are waiting. Try again in a few seconds.")

        def ask() -> Any:
            with tempfile.TemporaryDirectory(prefix="iekd-mcp-") as folder:
                given = {
                    parameter.name: parameter.default if value is None else with_files(parameter, value, Path(folder))
                    for parameter, value in zip(endpoint.parameters, values, strict=True)
                }
                # methods that are the same for everybody take no request
                who = {"request": request} if endpoint.asks_who else {}
                return getattr(self.actions, name)(**given, **who)

        try:
            return await anyio.to_thread.run_sync(ask, limiter=turn)
        except UserError:
            raise
        except Exception:
            log.exception("action=%s", name)
            raise UserError(WENT_WRONG) from None

    def routes(self) -> list[Route]:
        """The protocol, and the list of tools for the API page of Gradio, which writes the address with a slash."""
        door = _Door(self.manager.handle_request)
        return [Route(ADDRESS, door), Route(f"{ADDRESS}/", door), Route(f"{ADDRESS}/schema", _schema)]

    def lifespan(self, other: Callable[[Any], AbstractAsyncContextManager[None]]) -> Any:
        """Another lifespan of the app, with the server's own around it."""

        @asynccontextmanager
        async def both(app: Any) -> AsyncIterator[None]:
            async with self.manager.run(), other(app):
                yield

        return both


class _Door:
    """What may reach the protocol: a POST of a program.

    Browsers send an Origin with every POST. Refusing it stops pages of other sites, also those that make their own
    name point to this machine (DNS rebinding). Nothing is ever sent without being asked, so a GET has nothing to wait
    for and is answered with 405, as the protocol allows.
    """

    def __init__(self, handle: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Request(scope).headers
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            await JSONResponse({"error": FROM_A_PAGE}, 403)(scope, receive, send)
        elif scope["method"] != "POST":
            await JSONResponse({"error": "Send POST requests of the Model Context Protocol."}, 405, {"allow": "POST"})(
                scope, receive, send
            )
        else:
            await self.handle(scope, receive, send)


def _schema(_: Request) -> JSONResponse:
    return JSONResponse(
        [
            {
                "name": name, "description": endpoint.description, "inputSchema": input_schema(endpoint),
                "meta": {"file_data_present": False, "mcp_type": "tool", "endpoint_name": name},
            }
            for name, endpoint in ENDPOINTS.items()
        ]
    )  # fmt: skip


def as_text(endpoint: Endpoint) -> tuple[Parameter, ...]:
    """The parameters as MCP has them: files are strings."""
    return tuple(Parameter(p.name, _files_as_text(p.schema), p.optional, p.default) for p in endpoint.parameters)


def _files_as_text(schema: Schema) -> Schema:
    if not takes_files(schema):
        return schema
    what = schema["description"].partition(", ")[0]
    if is_file(schema):
        return {**FILE, "description": f"{what}: {FILE['description']}"}
    return {"type": "array", "items": dict(FILE), "description": f"{what}, each {FILE['description']}"}


def input_schema(endpoint: Endpoint) -> Schema:
    """JSON schema of a tool's arguments."""
    parameters = as_text(endpoint)
    return {
        "type": "object", "properties": {p.name: p.schema for p in parameters},
        "required": [p.name for p in parameters if not p.optional], "additionalProperties": False,
    }  # fmt: skip


def output_is_object(endpoint: Endpoint) -> bool:
    """Whether the endpoint's answer is an object; MCP wants one, so others are wrapped."""
    return endpoint.answer.get("type") == "object"


def output_schema(endpoint: Endpoint) -> Schema:
    """JSON schema of what a tool answers."""
    if output_is_object(endpoint):
        return endpoint.answer
    return {"type": "object", "properties": {RESULT: endpoint.answer}, "required": [RESULT]}


def with_files(parameter: Parameter, value: Any, folder: Path) -> Any:
    """The value with the paths of its files, those of data: URLs written into `folder`."""
    if not takes_files(parameter.schema):
        return value
    if is_file(parameter.schema):
        return str(file_of(value, folder, 1))
    return [str(file_of(text, folder, number)) for number, text in enumerate(value, 1)]


def file_of(text: str, folder: Path, number: int) -> Path:
    """The file that a text stands for: its content as a data: URL, or the path of an upload. Nothing is fetched.

    Raises:
        UserError: it is neither.
    """
    if found := DATA.fullmatch(text):
        try:
            content = base64.b64decode(found["content"], validate=True)
        except (binascii.Error, ValueError):
            raise UserError(f"File {number} is not valid base64. Encode its bytes after 'data:...;base64,'.") from None
        suffix = re.sub(r"\W", "", (found["kind"] or "").rpartition("/")[2])
        path = folder / f"file-{number}.{suffix or 'bin'}"
        path.write_bytes(content)
        return path
    uploads = upload_folder().resolve()
    try:
        path = Path(text).resolve()
        if path.is_relative_to(uploads) and path.is_file():
            return path
    except (OSError, ValueError):
        pass  # a text that no file can be called
    raise UserError(
        f"File {number} cannot be used. Send a data: URL with base64, or upload the file to /gradio_api/upload first "
        "and send the path that it returns. The server fetches no addresses."
    )
