"""The endpoints as MCP tools, asked by the real client: the same answers and permissions, and nothing is fetched."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ui_helpers import CLIENT, PATIENCE, QUICK, ROOT, TOKEN, call, serving, wait_until

from iekd.ui.api.mcp_server import MISSING
from iekd.ui.api.methods import ENDPOINTS

mcp = pytest.importorskip("mcp")
ADDRESS = "/gradio_api/mcp"
LIST_TOOLS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
SPEAKS = {"accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server of these tests writes temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def tools(runs_dir: Path, finished_run: str, uploads: Path) -> Iterator[str]:
    variables = {"TMPDIR": str(uploads), "GRADIO_TEMP_DIR": str(uploads / "gradio")}
    with serving(runs_dir, "--mcp", **variables) as url:
        yield url


@pytest.fixture(scope="module")
def guarded_tools(runs_dir: Path, finished_run: str) -> Iterator[str]:
    with serving(runs_dir, IEKD_ADMIN_TOKEN=TOKEN, GRADIO_MCP_SERVER="true") as url:
        yield url


def ask(url: str, *calls: tuple[str, dict[str, Any]], token: str = "", address: str = "") -> list[Any]:
    """The results of these tools, called one after the other; of none: the list of tools. address: of a visitor."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def talk() -> list[Any]:
        headers = {**({"X-IEKD-Token": token} if token else {}), **({"X-Forwarded-For": address} if address else {})}
        async with (
            streamablehttp_client(url + ADDRESS, headers=headers) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            if not calls:
                return list((await session.list_tools()).tools)
            return [await session.call_tool(name, values) for name, values in calls]

    return asyncio.run(talk())


def told(result: Any) -> str:
    """The sentence of an error."""
    assert result.isError, result
    return str(result.content[0].text)


def picture(colour: int = 90) -> str:
    content = io.BytesIO()
    Image.new("L", (16, 16), colour).save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def test_every_endpoint_is_a_tool_with_words_and_types(tools: str) -> None:
    found = {tool.name: tool for tool in ask(tools)}
    assert set(found) == set(ENDPOINTS)
    for name, tool in found.items():
        assert tool.description == ENDPOINTS[name].description
        assert tool.outputSchema["type"] == "object"
        for value in tool.inputSchema["properties"].values():
            assert value["type"]
            assert value["description"]
    assert found["compare"].inputSchema["required"] == ["images"]
    assert found["compare"].inputSchema["properties"]["images"]["items"]["type"] == "string"


def test_an_assistant_starts_watches_and_deletes_a_run(tools: str, pictures: Path) -> None:
    config = {**QUICK, "dataset": f"folder:{pictures}", "epochs": 5000, "methods": ["baseline"], "teacher": "none"}
    foreseen, started, again = ask(
        tools, ("estimate", {"config": config}), ("start", {"config": config, "key": "mcp", "details": True}),
        ("start", {"config": config, "key": "mcp"}),
    )  # fmt: skip
    run_id = started.structuredContent["result"]["run"]
    assert foreseen.structuredContent["classes"] == ["cross", "disc", "stripes"]
    assert again.structuredContent["result"] == again.content[0].text == run_id
    wait_until(lambda: ask(tools, ("run_status", {"run_id": run_id}))[0].structuredContent["accuracies"])
    ask(tools, ("stop_run", {"run_id": run_id}))
    wait_until(lambda: ask(tools, ("run_status", {"run_id": run_id}))[0].structuredContent["state"] == "stopped")
    deleted, gone = ask(tools, ("delete_run", {"run_id": run_id}), ("run_status", {"run_id": run_id}))
    assert deleted.structuredContent == {"run": run_id, "deleted": True}
    assert "There is no run" in told(gone)


def test_a_tool_says_the_same_as_the_endpoint(tools: str, finished_run: str) -> None:
    (status, listed, settings, report) = ask(
        tools, ("run_status", {"run_id": finished_run}), ("list_runs", {}), ("list_settings", {}),
        ("run_report", {"run_id": finished_run}),
    )  # fmt: skip
    assert [status.structuredContent] == call(tools, "run_status", finished_run)[1]
    assert [listed.structuredContent["result"]] == call(tools, "list_runs")[1]
    assert [settings.structuredContent["result"]] == call(tools, "list_settings")[1]
    assert report.content[0].text == call(tools, "run_report", finished_run)[1][0]


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("run_status", {}, "needs 'run_id'"),
        ("run_status", {"run_id": 5}, "the id of a run"),
        ("run_status", {"run": "x"}, "takes no 'run'"),
        ("run_status", {"run_id": "../secret"}, "There is no run"),
        ("start", {"config": {"epochs": 0}}, "Epochs '0'"),
        ("start", {"config": [1]}, "an object of settings"),
        ("start", {"config": {}, "request": {}}, "takes no 'request'"),
        ("list_runs", {"x": 1}, "It takes: nothing"),
        ("compare", {"images": []}, "No image"),
        ("compare", {"images": "a.png"}, "a list of uploaded files"),
        ("compare", {"images": ["data:image/png;base64,?"]}, "not valid base64"),
        ("compare", {"images": ["data:text/plain,hello"]}, "data: URL with base64"),
        ("nothing", {}, "Unknown tool 'nothing'"),
        ("_config_of", {"given": {}}, "Unknown tool"),
    ],
)
def test_what_does_not_fit_gets_the_same_sentences(tools: str, name: str, values: dict[str, Any], said: str) -> None:
    (result,) = ask(tools, (name, values))
    assert said in told(result)
    assert "Traceback" not in told(result)


def test_pictures_come_as_content_or_as_uploads(tools: str, finished_run: str, pictures: Path, uploads: Path) -> None:
    file = pictures / "test" / "disc" / "0.png"
    (path,) = CLIENT.post(f"{tools}/gradio_api/upload", files={"files": ("0.png", file.read_bytes())}).json()
    content = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
    (result,) = ask(tools, ("compare", {"run_id": finished_run, "images": [path, content, picture()]}))
    uploaded, sent, other = result.structuredContent["images"]
    assert uploaded["name"] == "0.png"
    assert set(sent["predictions"]) == {"teacher", "baseline", "ie-ft"}
    scores = [{(model, one["label"]): one["score"] for model, ranked in image["predictions"].items() for one in ranked}
              for image in (uploaded, sent, other)]  # fmt: skip
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)  # a batch of another size rounds in another way
    assert scores[1] != pytest.approx(scores[2], abs=1e-6)
    assert list(uploads.glob("iekd-mcp-*")) == [], "what was sent is removed after the answer"
    assert [p for p in uploads.rglob("*") if p.is_file()] == [Path(path)]


def test_no_address_is_fetched_and_no_file_of_the_server_is_read(tools: str, pictures: Path, runs_dir: Path) -> None:
    asked = []

    class Witness(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Witness) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = pictures / "test" / "disc" / "0.png"
        for name in (
            f"http://127.0.0.1:{server.server_port}/cat.png", f"file://{own}", str(own), "/etc/passwd", "", "a\0b",
            "x" * 5000, str(runs_dir),
        ):  # fmt: skip
            compared, added = ask(tools, ("compare", {"images": [name]}), ("add_pictures", {"archive": name}))
            for result in (compared, added):
                assert "The server fetches no addresses" in told(result), name
        server.shutdown()
    assert asked == []


def test_permissions_are_those_of_the_endpoints(guarded_tools: str, finished_run: str) -> None:
    one = {"run_id": finished_run}
    refused = [
        ("start", {"config": {}}), ("stop_run", one), ("resume_run", one), ("move_run_to_front", one),
        ("delete_run", one), ("run_files", one), ("add_pictures", {"archive": picture()}),
    ]  # fmt: skip
    wrong = ask(guarded_tools, refused[1], token="a wrong one")  # one: whoever guesses has to wait after each
    for result in (*ask(guarded_tools, *refused), *wrong):
        assert "token" in told(result)
    (read,) = ask(guarded_tools, ("run_status", one))
    assert read.structuredContent["state"] == "finished"
    files, stopped = ask(guarded_tools, ("run_files", one), ("stop_run", one), token=TOKEN)
    assert not files.isError
    assert "is finished already" in told(stopped)


def test_visitors_of_a_public_page_are_told_apart_by_their_addresses(tmp_path: Path) -> None:
    own = {"IEKD_PUBLIC_TRAINING": "1", "IEKD_TRUSTED_PROXIES": "127.0.0.1", "IEKD_PUBLIC_LIMITS": "runs=1"}
    config = {"methods": ["baseline"], "teacher": "none", "epochs": 10}
    with serving(tmp_path, "--mcp", "--public", **own) as url:
        (started, second) = ask(
            url, ("start", {"config": config}), ("start", {"config": config}), address="192.0.2.1"
        )  # fmt: skip
        one = {"run_id": started.structuredContent["result"]}
        assert "as many as a visitor may" in told(second)
        for name in ("stop_run", "run_files", "delete_run"):
            assert "You may not" in told(ask(url, (name, one), address="192.0.2.2")[0])
        assert "Folders of this machine" in told(
            ask(url, ("estimate", {"config": {"dataset": f"folder:{tmp_path}"}}), address="192.0.2.2")[0]
        )
        (stopped,) = ask(url, ("stop_run", one), address="192.0.2.1")
        assert not stopped.isError
        wait_until(lambda: ask(url, ("run_status", one))[0].structuredContent["state"] == "stopped")


def test_a_web_page_cannot_use_the_tools(tools: str) -> None:
    """Also one that has made its own name point to this machine: its Origin and Host then agree."""
    fine = CLIENT.post(tools + ADDRESS, json=LIST_TOOLS, headers=SPEAKS)
    assert fine.status_code == 200
    for headers in (
        {"origin": "http://evil.example", "host": "evil.example"}, {"origin": "null"}, {"origin": tools},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-origin"},
    ):  # fmt: skip
        answer = CLIENT.post(tools + ADDRESS, json=LIST_TOOLS, headers={**SPEAKS, **headers})
        assert answer.status_code == 403, headers
        assert "not taken from web pages" in answer.json()["error"]
    plain = CLIENT.post(tools + ADDRESS, content=b"{}", headers={**SPEAKS, "content-type": "text/plain"})
    assert plain.status_code in (400, 415)


def test_other_requests_do_not_hang(tools: str) -> None:
    for method in ("GET", "DELETE", "PUT"):
        assert CLIENT.request(method, tools + ADDRESS, headers=SPEAKS, timeout=PATIENCE).status_code == 405
    large = CLIENT.post(tools + ADDRESS, content=bytes(9 * 2**20), headers=SPEAKS, timeout=PATIENCE)
    assert large.status_code == 413


def test_the_tools_are_not_there_unless_asked_for(server: str, guarded_tools: str) -> None:
    assert CLIENT.post(server + ADDRESS, json=LIST_TOOLS, headers=SPEAKS).status_code in (404, 405)
    for path in ("/sse", "/messages/"):  # of Gradio's own server, which that variable would start
        assert CLIENT.get(guarded_tools + ADDRESS + path, timeout=PATIENCE).status_code == 404


def test_without_the_package_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text("raise ImportError\n")
    for command in ([str(ROOT / "app.py")], ["-m", "iekd", "serve"]):
        done = subprocess.run(
            [sys.executable, *command, "--mcp", "--runs-dir", str(tmp_path / "runs")], text=True, capture_output=True,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert MISSING in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
