"""The server dies, in two ways, while a run trains; another comes up over the same folder."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import httpx
import psutil
from ui_helpers import QUICK, serving, wait_until

from iekd.config.run import make_config
from iekd.launchers.local import LocalLauncher
from iekd.runs.store import Store


def test_a_run_outlives_its_servers_and_the_next_one_shows_it(tmp_path: Path, pictures: Path) -> None:
    """One server is killed, the next is asked to end."""
    from gradio_client import Client

    config = {**QUICK, "dataset": f"folder:{pictures}", "epochs": 10_000, "methods": ["baseline"], "teacher": "none"}
    server = serving(tmp_path)
    with server as url:
        run = Store(tmp_path).get(Client(url, verbose=False).predict(config, "", api_name="/start"))
        wait_until(lambda: run.metrics()[0])
        end(server, url, signal.SIGKILL)
    assert run.alive()

    def state() -> str:
        return client.predict(run.id, api_name="/run_status")["state"]

    try:
        for number in (signal.SIGTERM, None):
            server, before = serving(tmp_path), len(run.metrics()[0])
            with server as url:
                client = Client(url, verbose=False)
                wait_until(lambda: state() == "running")
                wait_until(lambda before=before: len(run.metrics()[0]) > before + 10)
                if number:
                    end(server, url, number)
                else:
                    assert run.status.attempt == 1
                    client.predict(run.id, api_name="/stop_run")
                    wait_until(lambda: state() == "stopped")
    finally:
        if run.status.live:
            LocalLauncher(Store(run.path.parent)).stop_and_wait(run.id)
    rows = run.metrics()[0]
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == sorted(set(steps)), "no repetition"
    assert set(range(steps[0], steps[-1] + 1, steps[0])) <= set(steps), "the end of every epoch"


def end(server: serving, url: str, number: int) -> None:
    """As a user or the system does; its port is free for the next."""
    server.process.send_signal(number)
    server.process.wait(30)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(url.rsplit(":", 1)[1])))


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
    launcher.stop_and_wait(first.id)
    wait_until(lambda: second.status.state == "finished")
