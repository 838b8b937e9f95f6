"""What may go wrong while a run trains, done to it for real: signals, a full disk, a stuck worker, a race."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from iekd.errors import RunError
from iekd.launchers.local import LocalLauncher
from iekd.runs import attempt as attempts
from iekd.runs import training
from iekd.runs.checkpoints import Checkpoints
from iekd.runs.files import write_json
from iekd.runs.status import FAILED, FINISHED, LIVE, LOST, RUNNING, STOPPED
from iekd.runs.store import Store
from iekd.runs.worker import execute, stop_on_signals

pytestmark = pytest.mark.usefixtures("checkpoints_everywhere")


def never() -> bool:
    return False


@pytest.fixture
def config(tiny_config):
    """Eight epochs of three steps of one plain student."""
    return lambda **values: tiny_config(**{"methods": ("baseline",), "teacher": "none", "epochs": 8, **values})


def train(run, handle, stop=never, watch=None):
    try:
        execute(run, stop, watch)
    finally:
        os.close(handle)


# all that a run imports, then a limit a little above what that takes
SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import psutil
from iekd.engine import accelerate, experiment
from iekd.runs.store import Run
from iekd.runs import training, worker
training.wait_for_room = lambda *_: None  # else it is refused before it begins
most = psutil.Process().memory_info().vms + 2**29
resource.setrlimit(resource.RLIMIT_AS, (most, most))
worker.execute(Run(Path(sys.argv[1])), lambda: False)
"""


def events(run) -> list[str]:
    return [json.loads(line)["event"] for line in (run.path / "events.jsonl").read_text().splitlines()]


def rows(run):
    return [{k: v for k, v in row.items() if k != "time"} for row in run.metrics()[0]]


def weights(run):
    return {name: (folder / "model.safetensors").read_bytes() for name, folder in run.model_folders.items()}


@pytest.fixture
def whole(tmp_path, config):
    """The run without any fault."""
    run, handle = Store(tmp_path / "whole").create(config())
    train(run, handle)
    return run


def assert_same(run, whole):
    assert run.status.state == FINISHED, run.log_tail(40)
    assert rows(run) == rows(whole)
    assert weights(run) == weights(whole)


# Stopping


def test_a_stop_while_a_checkpoint_is_written(tmp_path, config, whole, monkeypatch):
    """The signal comes in the middle of the write: the checkpoint is finished, then the run stops, and goes on."""
    run, handle = Store(tmp_path / "runs").create(config())
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    sent = []

    def interrupted(path, value):
        if path.parent.name.startswith(".students-00000009"):
            os.kill(os.getpid(), signal.SIGTERM)
            sent.append(path)
        write_json(path, value)

    monkeypatch.setattr("iekd.runs.checkpoints.write_json", interrupted)
    try:
        train(run, handle, stop_on_signals(run))
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert sent
    assert run.status.state == STOPPED
    (found,) = Checkpoints(run.path / "checkpoints").newest().values()
    assert found.snapshot.step == 9, "the one that was being written"
    assert not list((run.path / "checkpoints").glob(".*"))
    train(run, run.reopen())
    assert_same(run, whole)


def test_a_stop_loses_nothing(tmp_path, config, monkeypatch):
    """However rare checkpoints are, there is one of the step at which it stops."""
    monkeypatch.setenv("IEKD_CHECKPOINT_SECONDS", "1e9")
    run, handle = Store(tmp_path / "runs").create(config())
    train(run, handle, lambda: len(run.metrics()[0]) >= 6)
    assert run.status.state == STOPPED
    (found,) = Checkpoints(run.path / "checkpoints").newest().values()
    assert found.snapshot.step >= max(row["step"] for row in rows(run)) > 0
    assert found.notes["rows"] == len(rows(run))


def test_a_stop_does_not_wait_for_a_checkpoint_for_ever(tmp_path, config, monkeypatch):
    monkeypatch.setattr(training, "PATIENCE", 0.0)
    monkeypatch.setattr(attempts.Attempt, "should_snapshot", lambda self: False)
    run, handle = Store(tmp_path / "runs").create(config())
    train(run, handle, lambda: len(run.metrics()[0]) >= 6)
    assert run.status.state == STOPPED
    assert max(row["step"] for row in rows(run)) < 24


def test_a_stop_that_races_with_the_end_leaves_one_final_state(tmp_path, config, monkeypatch):
    """Forty times, from another thread, at any moment around the end."""
    monkeypatch.setattr(
        "iekd.launchers.local.worker_process", lambda status: None
    )  # the signal would be for this process
    store, states, rng = Store(tmp_path / "runs"), [], random.Random(0)
    run, handle = store.create(config(epochs=1))
    began = time.monotonic()
    train(run, handle)
    took = time.monotonic() - began
    for _ in range(40):
        run, handle = store.create(config(epochs=1))

        wait = rng.uniform(0.6, 1.1) * took

        def stop(run=run, wait=wait):
            time.sleep(wait)
            with contextlib.suppress(RunError):  # over already
                LocalLauncher(store).request_stop(run.id)

        clicker = threading.Thread(target=stop)
        clicker.start()
        train(run, handle, lambda run=run: run.stop_requested)
        clicker.join()
        final = [name for name in events(run) if name in (FINISHED, STOPPED, FAILED)]
        assert len(final) == 1, events(run)
        assert run.status.state == final[0]
        assert (run.report is not None) == (final[0] == FINISHED)
        assert not run.alive()
        states.append(final[0])
        store.delete(run.id)
    assert {FINISHED, STOPPED} <= set(states), "both have happened"


def test_the_server_ends_a_worker_that_does_not_stop(launcher, config, wait_until):
    """It is halted, so that it cannot even see the request; the page only asked."""
    run = launcher.store.get(launcher.submit(config(epochs=10_000)))
    wait_until(lambda: run.status.state == RUNNING and run.metrics()[0])
    os.kill(run.status.pid, signal.SIGSTOP)
    launcher.request_stop(run.id)
    launcher.end_stuck()
    assert run.alive(), "it has half a minute"
    launcher.end_stuck(grace=0.0, saving=0.0)
    wait_until(lambda: not run.alive())
    assert run.status.state == STOPPED
    assert "did not stop" in run.status.error


def test_a_worker_that_saves_is_given_time(launcher, config, wait_until):
    run = launcher.store.get(launcher.submit(config(epochs=10_000)))
    wait_until(lambda: run.status.state == RUNNING and run.metrics()[0])
    os.kill(run.status.pid, signal.SIGSTOP)
    values = json.loads((run.path / "status.json").read_text())
    write_json(run.path / "status.json", {**values, "state": "stopping"})
    write_json(run.path / "control.json", {"request": "stop", "time": time.time() - 100})
    launcher.end_stuck()
    assert run.alive()


@pytest.mark.skipif(sys.platform != "linux", reason="reads with processes on Linux only")
def test_a_service_that_is_ended_stops_its_run_and_loses_nothing(launcher, config, wait_until):
    """All of its processes are told, those that read images ahead among them."""
    run = launcher.store.get(launcher.submit(config(epochs=10_000, image_memory=0)))
    wait_until(lambda: run.status.state == RUNNING and run.metrics()[0])
    trainer = psutil.Process(run.status.pid)
    readers = trainer.children(recursive=True)
    assert readers
    for process in (trainer, *readers):
        process.terminate()
    wait_until(lambda: not run.alive())
    assert run.status.state == STOPPED, run.log_tail()
    assert run.status.resumable
    wait_until(lambda: not any(reader.is_running() for reader in readers))


# A full disk


@pytest.mark.parametrize("left", [0, 4096, 200_000], ids=["in the metrics", "in the status", "in a checkpoint"])
def test_a_full_disk_is_reported_and_the_run_resumes_when_there_is_room(small_disk, config, whole, left):
    place, fill = small_disk
    store, fillers = Store(place / "runs"), []
    run, handle = store.create(config())

    def watch(_, row):
        if row and row["kind"] == "test" and row["step"] == 12 and not fillers:
            fillers.append(fill(left))

    train(run, handle, watch=watch)
    assert fillers
    assert run.status.state == FAILED, run.log_tail(20)
    assert "disk is full" in run.status.error
    assert events(run)[-1] == FAILED
    (found,) = Checkpoints(run.path / "checkpoints").newest().values()
    assert found.snapshot.step >= 6, "the one before is whole"
    assert all(json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines())
    handle = run.reopen()
    train(run, handle)  # still full: once more in words, and no loop
    assert run.status.state == FAILED
    assert "disk is full" in run.status.error
    fillers[0].unlink()
    train(run, run.reopen())
    assert_same(run, whole)


# Errors


def test_after_a_failure_the_device_is_free_and_the_queue_continues(
    launcher, config, picture_folder, tmp_path, wait_until
):
    mine = tmp_path / "pictures"
    shutil.copytree(picture_folder, mine)
    first = launcher.store.get(launcher.submit(config(epochs=10_000)))
    broken = launcher.store.get(launcher.submit(config(dataset=f"folder:{mine}")))
    last = launcher.store.get(launcher.submit(config()))
    wait_until(lambda: first.status.state == RUNNING and first.metrics()[0])
    shutil.rmtree(mine)
    launcher.request_stop(first.id)
    wait_until(lambda: not any(run.alive() for run in (first, broken, last)))
    assert [run.status.state for run in (first, broken, last)] == [STOPPED, FAILED, FINISHED]
    assert str(mine) in broken.status.error


def test_when_all_processes_are_gone_every_run_is_what_it_was(launcher, config, wait_until):
    """As after the machine was restarted: one training, one waiting, one finished."""
    done = launcher.store.get(launcher.submit(config(epochs=1)))
    wait_until(lambda: not done.alive())
    training = launcher.store.get(launcher.submit(config(epochs=10_000)))
    wait_until(lambda: training.status.state == RUNNING and training.metrics()[0])
    waiting = launcher.store.get(launcher.submit(config(epochs=1)))
    wait_until(lambda: waiting.status.pid is not None)
    for run in (waiting, training):
        os.kill(run.status.pid, signal.SIGKILL)
    wait_until(lambda: not any(run.alive() for run in (training, waiting)))
    fresh = {run.id: run.status for run in Store(launcher.store.root).list()}
    assert {i: s.state for i, s in fresh.items()} == {done.id: FINISHED, training.id: LOST, waiting.id: LOST}
    assert not any(status.state in LIVE for status in fresh.values())
    launcher.resume(waiting.id)
    wait_until(lambda: not waiting.alive())
    assert waiting.status.state == FINISHED


def test_a_worker_without_memory_says_so_and_the_next_run_trains(tmp_path, config):
    """Pictures of 512 x 512 in a batch make features of gigabytes, and the process may have half of one."""
    store = Store(tmp_path)
    run, handle = store.create(config(resolution=512, batch_size=48, student="resnet20"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY, run.path], env=environment, check=True, timeout=120)
    os.close(handle)
    assert run.status.state == FAILED
    assert run.status.error.startswith("Out of memory. Use a smaller batch size"), run.status.error
    after, handle = store.create(config())
    train(after, handle)
    assert after.status.state == FINISHED
