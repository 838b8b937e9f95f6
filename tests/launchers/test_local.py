"""Real workers in processes of their own. Nothing is timed; waiting is for conditions."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

import psutil
import pytest

from iekd.errors import RunError
from iekd.launchers.local import LocalLauncher, worker_process
from iekd.models.artifact import load_model
from iekd.runs.queue import device_turn
from iekd.runs.status import FINISHED, LOST, QUEUED, RUNNING, STOPPED, Status
from iekd.runs.store import Store


@pytest.fixture
def short(tiny_config):
    return tiny_config(methods=("baseline",), teacher="none")


@pytest.fixture
def endless(tiny_config):
    return tiny_config(methods=("baseline",), teacher="none", epochs=10_000)


def learning(run) -> bool:
    return run.status.state == RUNNING and bool(run.metrics()[0])


def test_a_submitted_run_goes_to_its_end(launcher, tiny_config, wait_until):
    run_id = launcher.submit(tiny_config(methods=("baseline", "ie-ft")))
    run = launcher.store.get(run_id)
    assert run.alive(), "no moment in which a run looks dead"
    assert launcher.status(run_id).live
    worker = []

    def ended():
        if run.status.pid and not worker:
            worker.append(run.status.pid)
        return not run.alive()

    wait_until(ended)
    status = launcher.status(run_id)
    assert status.state == FINISHED, run.log_tail(40)
    assert status.pid != os.getpid()
    assert os.path.isfile(run.path / "report.json")
    assert len(run.report["learners"]) == 2
    for folder in run.model_folders.values():
        load_model(folder)
    text, offset = launcher.logs(run_id)
    assert "The run is finished." in text
    assert launcher.logs(run_id, offset) == ("", offset)
    assert launcher.list() == [run_id]


def test_a_worker_has_a_session_of_its_own_and_no_pipe(launcher, endless, wait_until):
    run = launcher.store.get(launcher.submit(endless))
    wait_until(lambda: run.status.pid is not None)
    pid = run.status.pid
    assert os.getsid(pid) == pid != os.getsid(0)
    process = worker_process(run.status)
    assert process.parent().pid == os.getpid()
    if os.path.isdir(f"/proc/{pid}/fd"):
        outputs = [os.readlink(f"/proc/{pid}/fd/{n}") for n in (0, 1, 2)]
        assert outputs == ["/dev/null", str(run.path / "log.txt"), str(run.path / "log.txt")]


def test_a_killed_worker_is_lost_and_its_device_free(launcher, endless, short, wait_until):
    run = launcher.store.get(launcher.submit(endless))
    wait_until(lambda: learning(run))
    assert run.alive()
    os.kill(run.status.pid, signal.SIGKILL)
    wait_until(lambda: not run.alive())
    assert run.status.state == LOST
    assert run.status.error
    following, handle = launcher.store.create(short)
    with device_turn(following, launcher.store, stop=lambda: False, poll=0.01) as mine:
        assert mine
    os.close(handle)
    launcher.store.delete(run.id)


def test_one_trains_while_others_queue_first_in_first_out(launcher, endless, short, wait_until, refuses):
    """One long scenario, because every worker has torch to import: train, queue, stop a queued run, stop the running
    one, and see the others through."""
    first, waiting, unwanted, last = (launcher.store.get(launcher.submit(c)) for c in (endless, short, short, short))
    wait_until(lambda: learning(first))
    wait_until(lambda: all(run.status.pid for run in (waiting, unwanted, last)))
    assert [run.status.state for run in (waiting, unwanted, last)] == [QUEUED] * 3

    assert launcher.stop_and_wait(unwanted.id).state == STOPPED
    assert unwanted.status.started is None
    assert first.status.state == RUNNING
    assert waiting.status.state == last.status.state == QUEUED

    launcher.request_stop(first.id)
    wait_until(lambda: not any(run.alive() for run in (first, waiting, last)))
    assert first.status.state == STOPPED, first.log_tail(40)
    assert first.status.error is None
    load_model(first.model_folders["baseline-seed0"])
    refuses(lambda: launcher.request_stop(first.id), first.id, "stopped", kind=RunError)
    assert waiting.status.state == last.status.state == FINISHED
    assert first.status.ended <= waiting.status.started
    assert waiting.status.ended <= last.status.started
    assert "Waiting for" in waiting.log_tail(100) + last.log_tail(100)


def test_eight_submissions_with_one_key_start_one_worker(launcher, endless):
    ids, start = [], threading.Barrier(8)

    def click():
        start.wait()
        ids.append(launcher.submit(endless, "click"))

    threads = [threading.Thread(target=click) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1
    assert launcher.list() == [ids[0]]
    workers = [c for c in psutil.Process().children() if any(ids[0] in word for word in c.cmdline())]
    assert len(workers) == 1
    workers[0].kill()


def test_a_worker_that_will_not_stop_is_ended(launcher, endless, wait_until):
    """It is halted, so that it cannot even see the request."""
    run = launcher.store.get(launcher.submit(endless))
    wait_until(lambda: learning(run))
    os.kill(run.status.pid, signal.SIGSTOP)
    status = launcher.stop_and_wait(run.id, grace=0.2)
    assert status.state == STOPPED
    assert "did not stop" in status.error
    assert not run.alive()


def test_only_the_process_that_was_started_is_the_worker():
    me = psutil.Process()
    mine = Status(pid=me.pid, pid_started=me.create_time())
    assert worker_process(mine) == me
    assert worker_process(replace(mine, pid_started=me.create_time() - 1000)) is None, "another process got its number"
    assert worker_process(replace(mine, pid_started=None)) is None
    assert worker_process(Status()) is None


def test_a_process_id_that_does_not_exist_is_not_a_worker():
    free = next(pid for pid in range(4_000_000, 3_000_000, -1) if not psutil.pid_exists(pid))
    assert worker_process(Status(pid=free, pid_started=1.0)) is None


def test_a_stop_signals_no_other_process(launcher, tiny_config, monkeypatch):
    """The status names a process that is not the worker: the request is written, no signal is sent."""
    run, handle = launcher.store.create(tiny_config())
    run.write_status(Status(state=RUNNING, created=1, pid=os.getpid(), pid_started=1.0))
    sent = []
    monkeypatch.setattr(psutil.Process, "send_signal", lambda self, number: sent.append(number))
    launcher.request_stop(run.id)
    assert run.stop_requested
    assert sent == []
    os.close(handle)


def test_an_unwritable_folder_starts_nothing(tmp_path, short, refuses):
    (tmp_path / "file").write_text("")
    before = psutil.Process().children()
    refuses(lambda: LocalLauncher(Store(tmp_path / "file" / "runs")).submit(short), "--runs-dir", kind=RunError)
    assert psutil.Process().children() == before
