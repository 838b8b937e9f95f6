"""The server dies, in two ways, while a run trains; another comes up over the same folder."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import QUICK, serving, wait_until

from iekd.config import make_config
from iekd.runs.launcher import LocalLauncher, stop_and_wait
from iekd.runs.store import Store


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_run_outlives_its_server_and_the_next_one_shows_it(tmp_path: Path, pictures: Path, number: int) -> None:
    from gradio_client import Client

    config = {**QUICK, "dataset": f"folder:{pictures}", "epochs": 10_000, "methods": ["baseline"], "teacher": "none"}
    server = serving(tmp_path)
    with server as url:
        run_id = Client(url, verbose=False).predict(config, "", api_name="/start")
        run = Store(tmp_path).get(run_id)
        wait_until(lambda: run.metrics()[0])
        server.process.send_signal(number)
        server.process.wait(30)
        port = int(url.rsplit(":", 1)[1])
        with socket.socket() as probe:  # free for the next
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    before = len(run.metrics()[0])
    assert run.alive()
    try:
        with serving(tmp_path) as again:
            client = Client(again, verbose=False)
            wait_until(lambda: client.predict(run_id, api_name="/run_status")["state"] == "running")
            wait_until(lambda: len(run.metrics()[0]) > before + 10)
            assert run.status.attempt == 1
            client.predict(run_id, api_name="/stop_run")
            wait_until(lambda: client.predict(run_id, api_name="/run_status")["state"] == "stopped")
    finally:
        if run.status.live:
            stop_and_wait(run)
    rows = run.metrics()[0]
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == sorted(set(steps)), "no gap, no repetition"
    assert steps == list(range(steps[0], steps[-1] + 1, steps[0]))


def test_calls_of_programs_leave_nothing_in_the_server(tmp_path: Path) -> None:
    """Gradio's own copy of the page would be 0.27 MB for each."""
    server = serving(tmp_path)
    with server as url, httpx.Client(base_url=f"{url}/gradio_api") as client:
        process = psutil.Process(server.process.pid)

        def calls(count: int) -> int:
            for _ in range(count):
                event = client.post("/call/list_runs", json={"data": []}).json()["event_id"]
                assert "event: complete" in client.get(f"/call/list_runs/{event}").text
            return process.memory_info().rss

        before = calls(50)
        assert calls(200) - before < 20e6


def test_the_server_starts_what_was_queued_before_it(tmp_path: Path, pictures: Path) -> None:
    """Nobody has to be there: the waiting worker looks for itself."""
    launcher = LocalLauncher(Store(tmp_path))
    small = make_config(**{**QUICK, "dataset": f"folder:{pictures}", "methods": ("baseline",), "teacher": "none"})
    first = launcher.store.get(launcher.submit(small.model_copy(update={"epochs": 10_000})))
    wait_until(lambda: first.metrics()[0])
    second = launcher.store.get(launcher.submit(small))
    wait_until(lambda: second.status.pid)
    assert second.status.state == "queued"
    stop_and_wait(first)
    wait_until(lambda: second.status.state == "finished")
