"""A launcher that is not this machine's: its workers are threads, and its lease is a dictionary in memory.

Page, endpoints and commands are given it, and must start, show, stop and resume runs with nothing else.
"""

from __future__ import annotations

import json
import os
import threading
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.errors import RunError
from iekd.launchers.base import FolderLauncher, Launcher
from iekd.launchers.local import LocalLauncher
from iekd.runs.owner import LOCAL
from iekd.runs.queue import ahead_of
from iekd.runs.status import FAILED, FINISHED, LOST, QUEUED, RUNNING, STOPPED
from iekd.runs.store import Run, Store
from iekd.runs.transfer import export_run, import_run
from iekd.runs.worker import execute


class ThreadLauncher(FolderLauncher):
    """Runs wait in `waiting` while `closed`; else each trains at once in a thread of its own."""

    name = "threads"

    def __init__(self, store: Store, closed: bool = False) -> None:
        super().__init__(store)
        self.closed, self.waiting = closed, []
        self.threads: dict[str, threading.Thread] = {}

    def start(self, run: Run, handle: int) -> None:
        assert run.alive(), "a run that is being started looks alive"
        if self.closed:
            self.waiting.append(run.id)
            return
        alone = Run(run.path)  # as in a process of its own: it knows no launcher
        self.threads[run.id] = threading.Thread(target=execute, args=(alone, lambda: alone.stop_requested))
        self.threads[run.id].start()

    def alive(self, run_id: str) -> bool:
        return run_id in self.waiting or (run_id in self.threads and self.threads[run_id].is_alive())

    def kill(self, run: Run) -> bool:
        was = run.id in self.waiting
        self.waiting = [other for other in self.waiting if other != run.id]
        return was

    def ahead_of(self, run_id: str) -> list[str]:
        return self.waiting[: self.waiting.index(run_id)] if run_id in self.waiting else []

    def move_to_front(self, run_id: str) -> None:
        self.waiting.remove(run_id)
        self.waiting.insert(0, run_id)


@pytest.fixture
def threads(tmp_path):
    made = ThreadLauncher(Store(tmp_path / "runs"))
    yield made
    for run_id, thread in made.threads.items():
        if thread.is_alive():
            made.request_stop(run_id)
            thread.join()


@pytest.fixture
def endless(tiny_config):
    return tiny_config(methods=("baseline",), teacher="none", epochs=10_000)


def learning(run: Run) -> bool:
    return run.status.state == RUNNING and bool(run.metrics()[0])


def test_it_is_a_launcher_like_the_local_one(tmp_path):
    def takes(launcher: Launcher) -> str:
        return launcher.name

    assert takes(ThreadLauncher(Store(tmp_path))) == "threads"
    assert takes(LocalLauncher(Store(tmp_path))) == LOCAL


def test_the_page_starts_stops_and_resumes_with_it(threads, endless, wait_until):
    from iekd.ui.app import build_app
    from iekd.ui.rights.access import Access
    from iekd.ui.shared.actions import start_run
    from iekd.ui.tabs.run import look
    from iekd.ui.tabs.runs import act, table_html

    page = {getattr(block.fn, "__name__", ""): block.fn for block in build_app(threads).fns.values()}
    access = Access()
    run_id = start_run(threads, access, None, endless, "click")
    assert start_run(threads, access, None, endless, "click") == run_id, "two clicks start one run"
    run = threads.store.get(run_id)
    wait_until(lambda: learning(run))
    assert run.owner == "threads"
    assert not run.locked(), "no lock of this machine says that it lives"
    assert "badge running" in look(threads.store, run_id, {}, access.of(None))["head"]
    page["ask_to_stop"](run_id, None)
    wait_until(lambda: not run.alive())
    assert run.status.state == STOPPED
    rows = len(run.metrics()[0])
    page["go_on"](run_id, None)
    wait_until(lambda: learning(run) and len(run.metrics()[0]) > rows)
    assert (run.status.attempt, run.owner) == (2, "threads")

    def press(what: str) -> None:
        act(threads, access, None, SimpleNamespace(run=run_id, act=what))

    assert 'data-act="stop"' in table_html(threads.store, access.of(None))
    press("stop")
    wait_until(lambda: not run.alive())
    assert 'data-act="resume"' in table_html(threads.store, access.of(None))
    press("resume")
    wait_until(lambda: learning(run))
    assert threads.stop_and_wait(run_id).state == STOPPED
    press("delete")
    assert threads.list() == []


def test_the_endpoints_start_stop_and_resume_with_it(threads, endless, wait_until):
    from iekd.ui.app import build_app

    call = {block.api_name: block.fn for block in build_app(threads).fns.values()}
    run_id = call["start"](endless.model_dump(), "key")
    run = threads.store.get(run_id)
    wait_until(lambda: learning(run))
    assert call["run_status"](run_id)["state"] == RUNNING
    assert [found["run"] for found in call["list_runs"]()] == [run_id]
    call["stop_run"](run_id)
    wait_until(lambda: not run.alive())
    call["resume_run"](run_id)
    wait_until(lambda: learning(run))
    assert run.status.attempt == 2


def test_the_commands_stop_resume_and_show_with_it(threads, endless, wait_until, monkeypatch):
    monkeypatch.setattr("iekd.launchers.factory.make_launcher", lambda runs_dir: threads)

    def iekd(*words: str) -> dict:
        result = CliRunner().invoke(app, ["runs", *words, "--runs-dir", str(threads.store.root), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    run_id = threads.submit(endless)
    run = threads.store.get(run_id)
    wait_until(lambda: learning(run))
    assert iekd("show", run_id)["state"] == RUNNING
    assert [found["state"] for found in iekd("list")["runs"]] == [RUNNING]
    assert iekd("stop", run_id)["state"] == STOPPED
    assert not threads.threads[run_id].is_alive()
    iekd("resume", run_id, "--detach")
    wait_until(lambda: learning(run))
    assert run.status.attempt == 2


def test_its_own_queue_is_shown_and_reordered(tmp_path, endless, monkeypatch):
    from iekd.ui.rights.access import Access
    from iekd.ui.tabs.runs import act, table_html

    launcher = ThreadLauncher(Store(tmp_path), closed=True)
    first, second, third = (launcher.submit(endless) for _ in range(3))
    store, may = launcher.store, Access().of(None)
    assert [run.id for run in ahead_of(store.get(third), store)] == [first, second]
    assert table_html(store, may).count('data-act="first"') == 2, "all but the one at the front"
    act(launcher, Access(), None, SimpleNamespace(run=third, act="first"))
    assert launcher.waiting == [third, first, second]
    monkeypatch.setattr("iekd.launchers.factory.make_launcher", lambda runs_dir: launcher)
    assert CliRunner().invoke(app, ["runs", "first", second]).exit_code == 0
    assert launcher.waiting == [second, third, first]


def test_runs_of_this_machine_do_not_wait_for_those_of_another_launcher(tmp_path, endless):
    other = ThreadLauncher(Store(tmp_path), closed=True)
    other.submit(endless)
    run, handle = Store(tmp_path).create(endless)  # as a worker sees it, which knows no launcher
    assert ahead_of(run, Store(tmp_path)) == []
    assert ahead_of(run, other.store) == []
    os.close(handle)


def test_a_run_is_lost_only_if_its_own_launcher_says_so(tmp_path, endless, refuses):
    launcher = ThreadLauncher(Store(tmp_path), closed=True)
    run_id = launcher.submit(endless)
    stranger = LocalLauncher(Store(tmp_path))
    assert launcher.status(run_id).state == QUEUED
    assert stranger.status(run_id).state == QUEUED, "who does not know its launcher believes what was written"
    launcher.waiting.clear()
    assert launcher.status(run_id).state == LOST
    assert stranger.status(run_id).state == QUEUED
    refuses(lambda: stranger.resume(run_id), run_id, "queued", kind=RunError)
    refuses(lambda: stranger.store.delete(run_id), run_id, "Stop it first", kind=RunError)
    launcher.store.delete(run_id)


def test_only_its_own_launcher_stops_a_run(tmp_path, endless, refuses, monkeypatch):
    launcher = ThreadLauncher(Store(tmp_path), closed=True)
    run = launcher.store.get(launcher.submit(endless))
    local = LocalLauncher(Store(tmp_path))
    for refused in (local.request_stop, local.stop_and_wait, local.move_to_front):
        refuses(lambda refused=refused: refused(run.id), "threads", LOCAL, kind=RunError)
    assert not run.stop_requested
    launcher.request_stop(run.id)
    killed = []
    monkeypatch.setattr(LocalLauncher, "kill", lambda self, run: killed.append(run.id))
    local.end_stuck(grace=-1, saving=-1)
    assert killed == [], "nor does another one end it"
    assert run.alive()
    launcher.end_stuck(grace=-1, saving=-1)
    assert not run.alive()
    assert run.status.state == STOPPED
    assert "did not stop" in run.status.error


def test_a_stopped_run_is_the_launchers_that_resumes_it(tmp_path, tiny_config, launcher, wait_until):
    """From a queue in memory to a process of this machine; both launchers are over one folder."""
    other = ThreadLauncher(Store(tmp_path / "runs"), closed=True)
    run = launcher.store.get(other.submit(tiny_config(methods=("baseline",), teacher="none")))
    other.request_stop(run.id)
    other.end_stuck(grace=-1, saving=-1)
    assert (run.owner, run.status.state) == ("threads", STOPPED)
    launcher.resume(run.id)
    assert (run.owner, run.locked()) == (LOCAL, True)
    wait_until(lambda: not run.alive())
    assert run.status.state == FINISHED, run.log_tail(40)


class Unreachable(ThreadLauncher):
    name = "unreachable"

    def start(self, run: Run, handle: int) -> None:
        raise RunError("The cluster does not answer. Start it.")

    def alive(self, run_id: str) -> bool:
        return True  # it cannot be asked


def test_a_worker_that_cannot_be_started_leaves_no_run_and_no_key(tmp_path, endless, refuses):
    launcher = Unreachable(Store(tmp_path))
    refuses(lambda: launcher.submit(endless, "click"), "cluster", kind=RunError)
    assert launcher.list() == []
    other = ThreadLauncher(Store(tmp_path), closed=True)
    run_id = other.submit(endless, "click")
    other.request_stop(run_id)
    other.end_stuck(grace=-1, saving=-1)
    refuses(lambda: launcher.resume(run_id), "cluster", kind=RunError)
    status = launcher.status(run_id)
    assert (status.state, status.attempt) == (FAILED, 2)
    assert "The cluster does not answer" in status.error
    assert status.resumable


def test_an_imported_run_is_this_machines(tmp_path, endless):
    launcher = ThreadLauncher(Store(tmp_path / "there"), closed=True)
    run = launcher.store.get(launcher.submit(endless))
    launcher.request_stop(run.id)
    launcher.end_stuck(grace=-1, saving=-1)
    export_run(run, tmp_path / "run.zip")
    assert import_run(Store(tmp_path / "here"), tmp_path / "run.zip").owner == LOCAL


def test_a_run_with_an_unreadable_record_does_not_count_as_local(tmp_path, endless):
    """It would look lost, and be trained twice."""
    launcher = ThreadLauncher(Store(tmp_path), closed=True)
    run = launcher.store.get(launcher.submit(endless))
    (run.path / "launcher.json").write_text("{")
    assert run.owner != LOCAL
    assert run.status.state == QUEUED
