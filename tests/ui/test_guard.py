"""Bodies that are too large, files that are not ours, addresses that are nobody's business. Real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ui_helpers import CLIENT, TOKEN, call, serving

from iekd.launchers.local import LocalLauncher
from iekd.runs.status import FINISHED
from iekd.runs.store import Store
from iekd.ui.rights.access import MOST_OWN_UPLOAD, MOST_UPLOAD
from iekd.ui.server.guard import MOST_BODY

# Bodies


def raw(url: str, head: str, body: Iterator[bytes]) -> str:
    """The first line of the answer to a request that httpx would not send."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(head.replace("\n", "\r\n").encode())
        try:
            for part in body:
                line.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent
        return line.recv(4096).decode().splitlines()[0]


def test_a_file_that_is_too_large_is_refused(guarded: str) -> None:
    """More is taken of whoever may do everything."""
    file, proof = {"files": ("a.zip", bytes(MOST_UPLOAD + 1))}, {"x-iekd-token": TOKEN}
    address = f"{guarded}/gradio_api/upload"
    assert CLIENT.post(address, files=file, timeout=60).status_code == 413
    assert CLIENT.post(address, files=file, headers={"x-iekd-token": "x"}, timeout=60).status_code == 413
    assert CLIENT.post(address, files=file, headers=proof, timeout=60).status_code == 200
    giant = {**proof, "content-length": str(MOST_OWN_UPLOAD + 1)}
    head = "POST /gradio_api/upload HTTP/1.1\nHost: x\n" + "".join(f"{k}: {v}\n" for k, v in giant.items()) + "\n"
    assert " 413 " in raw(guarded, head, iter([b"A"]))


def test_many_files_that_are_too_large_together_are_refused(guarded: str) -> None:
    files = [("files", (f"{i}.png", bytes(2**20))) for i in range(70)]
    assert CLIENT.post(f"{guarded}/gradio_api/upload", files=files, timeout=60).status_code == 413


def test_an_upload_that_would_fill_the_disk_is_refused(small_disk: Any, tmp_path: Path) -> None:
    place, _ = small_disk
    with serving(tmp_path, GRADIO_TEMP_DIR=str(place / "uploads")) as url:
        answer = CLIENT.post(f"{url}/gradio_api/upload", files={"files": ("a.png", bytes(2**20))}, timeout=60)
        assert answer.status_code == 507
        assert "nearly full" in answer.text
        assert CLIENT.get(f"{url}/healthz").status_code == 200
    assert not [path for path in place.rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", ["/gradio_api/call/start", "/gradio_api/queue/join", "/gradio_api/run/start"])
def test_giant_json_and_data_urls_are_refused(server: str, path: str) -> None:
    giant = json.dumps({"data": ["data:image/png;base64," + "A" * MOST_BODY]})
    answer = CLIENT.post(f"{server}{path}", content=giant, headers={"content-type": "application/json"}, timeout=60)
    assert answer.status_code == 413


def test_a_body_that_lies_about_its_length_is_refused(server: str) -> None:
    head = "POST /gradio_api/queue/join HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n"
    piece = b"100000\r\n" + b"A" * 2**20 + b"\r\n"
    assert " 413 " in raw(server, head, (piece for _ in range(MOST_BODY // 2**20 + 2)))
    assert CLIENT.get(f"{server}/healthz").status_code == 200


# Files of the host


@pytest.fixture
def secret() -> Iterator[tuple[str, list[str]]]:
    """(address of a server of this machine that nobody outside may reach, the requests that it got)."""
    asked: list[str] = []

    class Secret(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"secret")

        def log_message(self, *_: Any) -> None:
            pass

    inner = HTTPServer(("127.0.0.1", 0), Secret)
    thread = threading.Thread(target=inner.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{inner.server_port}/hidden.png", asked
    inner.shutdown()
    inner.server_close()


def test_no_file_of_the_host_is_served(server: str, runs_dir: Path, finished_run: str) -> None:
    root = Path(__file__).parents[2]
    for target in (
        "/etc/passwd", "../../../../etc/passwd", "..%2f..%2f..%2fetc/passwd", str(root / "app.py"), "app.py",
        str(root / "iekd" / "config.py"), str(runs_dir / finished_run / "report.json"), f"{finished_run}/report.json",
        str(runs_dir / finished_run / "models" / "teacher" / "model.safetensors"), "/proc/self/environ",
    ):  # fmt: skip
        for prefix in (
            "/gradio_api/file=",
            "/file=",
            "/gradio_api/file/",
            "/gradio_api/stream/",
            "/static/",
            "/assets/",
        ):
            answer = CLIENT.get(f"{server}{prefix}{target}")
            assert answer.status_code in (400, 403, 404, 405, 422), (prefix, target, answer.status_code)


def test_the_server_fetches_nothing_for_anybody(server: str, secret: tuple[str, list[str]], finished_run: str) -> None:
    address, asked = secret
    for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/proxy=", "/proxy="):
        answer = CLIENT.get(f"{server}{prefix}{address}", follow_redirects=False)
        assert answer.status_code in (400, 403, 404), (prefix, answer.status_code, answer.headers)
    for file in (
        {"path": address, "meta": {"_type": "gradio.FileData"}},
        {"path": "x.png", "url": address, "meta": {"_type": "gradio.FileData"}},
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    ):
        kind, data = call(server, "compare", finished_run, [file])
        assert kind == "error" or "root:" not in json.dumps(data)
        assert "predictions" not in json.dumps(data) or '"error"' in json.dumps(data)
    assert asked == []


def test_addresses_are_refused_before_anything_is_fetched(monkeypatch: Any) -> None:
    from gradio import Error, processing_utils

    from iekd.ui.shared.gradio_patches import refuse_addresses

    for name in ("ssrf_protected_download", "async_ssrf_protected_download"):
        monkeypatch.setattr(processing_utils, name, getattr(processing_utils, name))  # put back afterwards
    refuse_addresses()
    with pytest.raises(Error, match="no addresses"):
        processing_utils.ssrf_protected_download("http://203.0.113.5/x.png", "/tmp")
    with pytest.raises(Error, match="no addresses"):
        asyncio.run(processing_utils.async_ssrf_protected_download("http://203.0.113.5/x.png", "/tmp"))


def test_the_state_of_a_finished_run_is_untouched_by_all_that(runs_dir: Path, finished_run: str) -> None:
    assert LocalLauncher(Store(runs_dir)).status(finished_run).state == FINISHED
