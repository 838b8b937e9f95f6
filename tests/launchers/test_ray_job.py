"""The job that looks after one run inside a Ray cluster, and its worker, with a stand-in for Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from iekd.errors import RunError, TakenError
from iekd.launchers import ray_job
from iekd.launchers.ray import RayLauncher
from iekd.paths import python_path
from iekd.runs import lease, worker
from iekd.runs.lease import give_back, holds, take
from iekd.runs.owner import LOCAL, set_owner
from iekd.runs.status import FAILED, FINISHED, QUEUED, RUNNING, STOPPED
from iekd.runs.store import Store


@pytest.fixture
def config(tiny_config):
    return tiny_config(methods=("baseline",), teacher="none", epochs=1)


class NodeDied(Exception):  # noqa: N818
    pass


class Full(NodeDied):
    """As Ray's, which is an error like that of a node that died."""


class Cancelled(Exception):  # noqa: N818
    pass


class StandInRay:
    """What a job asks of Ray. outcomes: what happens in each attempt until it ends."""

    exceptions = SimpleNamespace(
        RayError=NodeDied, TaskCancelledError=Cancelled, GetTimeoutError=TimeoutError, RayTaskError=ZeroDivisionError,
        RuntimeEnvSetupError=KeyError, TaskUnschedulableError=IndexError, OutOfMemoryError=Full, OutOfDiskError=Full,
    )  # fmt: skip

    def __init__(self, *outcomes) -> None:
        self.outcomes, self.tasks, self.cancelled, self.looks = list(outcomes), [], False, 0

    def remote(self, **options):
        self.options = options
        return lambda function: SimpleNamespace(remote=self.begin)

    def begin(self, folder, gpus, cpus, token):
        self.tasks.append(token)
        return len(self.tasks) - 1

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1.0}}]

    def wait(self, tasks, timeout):
        self.looks += 1
        assert self.looks < 100, "nobody ends the waiting"
        return ([] if self.outcomes[tasks[0]] is None and not self.cancelled else tasks), []

    def cancel(self, task):
        self.cancelled = True

    def get(self, task, timeout):
        if self.outcomes[task] is None:
            raise Cancelled
        self.outcomes[task]()


@pytest.fixture
def run(tmp_path, config, monkeypatch):
    monkeypatch.setattr(lease, "GONE", 0.0)
    launcher = RayLauncher(Store(tmp_path))
    made, handle = Store(tmp_path).create(config)  # as a job sees it, which knows no launcher
    set_owner(made.path, launcher.name, job="it", cpus=1.0, gpus=0.0)
    os.close(handle)
    return made


def attend(run, ray, gpus=0.0, asked=()):
    return ray_job.Job(run, ray, {"job": "it", "cpus": 1.0, "gpus": gpus}, list(asked)).attend()


def events(run):
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


def ends(run, state):
    def end():
        run.write_status(replace(run.status, state=state, pid=1))
        run.event(state)

    return end


def dies(run):
    def die():
        run.write_status(replace(run.status, state=RUNNING, pid=1, progress=0.5))
        raise NodeDied

    return die


def test_a_node_that_is_full_would_be_full_again(run):
    def full():
        run.write_status(replace(run.status, state=RUNNING, pid=1, progress=0.5))
        raise Full

    ray = StandInRay(full)
    assert attend(run, ray) == 1
    assert (run.status.state, len(ray.tasks)) == (FAILED, 1)
    assert "too little memory or disk" in run.status.error


def test_a_node_that_dies_is_another_attempt(run):
    ray = StandInRay(dies(run), dies(run), ends(run, FINISHED))
    assert attend(run, ray, gpus=0.5) == 0
    assert ray.options == {"num_cpus": 1.0, "num_gpus": 0.5, "max_retries": 0, "max_calls": 1}
    assert (run.status.state, run.status.attempt) == (FINISHED, 3)
    told = [(e["event"], e.get("attempt")) for e in events(run)]
    assert told == [("queued", None), ("retried", 2), ("retried", 3), ("finished", None)]
    assert "NodeDied" in events(run)[1]["why"]
    assert len(set(ray.tasks)) == 3, "each attempt takes the folder from the one before"
    assert not (run.path / lease.FILE).exists()


def test_nodes_that_always_die_end_in_one_failure(run):
    ray = StandInRay(*[dies(run)] * 20)
    assert attend(run, ray) == 1
    assert len(ray.tasks) == ray_job.RETRIES + 1
    assert run.status.state == FAILED
    assert [e["event"] for e in events(run)].count(FAILED) == 1


def test_what_ended_just_before_its_node_died_is_not_trained_again(run):
    def die():
        ends(run, FINISHED)()
        raise NodeDied

    ray = StandInRay(die)
    assert attend(run, ray) == 0
    assert (run.status.state, run.status.attempt) == (FINISHED, 1)


def test_a_run_that_waits_is_stopped_without_a_worker(run):
    (run.path / "control.json").write_text(json.dumps({"request": "stop"}))
    ray = StandInRay(None)
    assert attend(run, ray, gpus=1.0) == 0
    assert (ray.cancelled, run.status.state, run.status.error) == (True, STOPPED, None)
    assert [e["event"] for e in events(run)].count(STOPPED) == 1


def test_a_job_that_is_ended_ends_its_run(run):
    ray = StandInRay(None)
    assert attend(run, ray, asked=[15]) == 0
    assert run.status.state == STOPPED
    assert "job" in run.status.error


def test_a_job_that_is_ended_does_not_wait_for_the_folder(run, monkeypatch):
    """Ray ends it by force after three seconds, and taking a folder that a worker had lasts five."""
    taken = []
    monkeypatch.setattr(ray_job, "take", lambda folder, wait=True: taken.append(folder) or take(folder, wait))
    assert attend(run, StandInRay(dies(run)), asked=[15]) == 0
    assert len(taken) == 1
    assert run.status.state == STOPPED


def test_a_job_that_is_ended_does_not_wait_for_a_worker_that_takes_long(run):
    def hangs():
        raise TimeoutError

    earlier = []
    ray = StandInRay(hangs)
    ray.begin = lambda *given: earlier.append(given[-1]) or 0
    run.write_status(replace(run.status, state=RUNNING, pid=1))
    assert attend(run, ray, asked=[15]) == 0
    assert (run.status.state, run.status.error) == (STOPPED, "Its job in the Ray cluster was stopped.")
    assert not lease.holds(run.path, earlier[0]), "whoever looks after the worker kills it"


def test_a_killed_worker_leaves_no_final_state(run):
    ray = StandInRay(lambda: run.write_status(replace(run.status, state=RUNNING, pid=1)))
    assert attend(run, ray) == 1
    assert run.status.state == RUNNING, "so that its launcher, which sees that the job is over, calls it lost"


def test_what_cannot_be_started_is_said(run):
    def no_folder():
        error = ZeroDivisionError("long text")
        error.cause = RunError("The node n1 has no folder.")
        raise error

    assert attend(run, StandInRay(no_folder)) == 1
    assert run.status.state == FAILED
    assert run.status.error.endswith("The node n1 has no folder.")


def test_whoever_took_the_folder_later_has_it(run):

    def taken_and_returned():
        taken_token.append(take(run.path))

    taken_token: list[str] = []
    assert attend(run, StandInRay(taken_and_returned), asked=[15]) == 1
    assert run.status.state == QUEUED, "nothing is written to a folder that is somebody else's"
    assert holds(run.path, taken_token[0])
    give_back(run.path, "another")
    assert holds(run.path, taken_token[0])
    (run.path / lease.FILE).write_text("{")  # a network disk in trouble
    assert holds(run.path, taken_token[0])
    (run.path / lease.FILE).unlink()
    assert not holds(run.path, taken_token[0])


def test_a_job_that_lost_its_run_before_it_took_the_folder_leaves_it(run):
    set_owner(run.path, "ray", job="another")
    ray = StandInRay(ends(run, FINISHED))
    assert attend(run, ray) == 1
    assert (ray.tasks, run.status.state) == ([], QUEUED)
    assert not (run.path / lease.FILE).exists()


@pytest.mark.parametrize("ending", [FINISHED, RUNNING])
def test_what_happens_while_a_resume_waits_is_not_overwritten(run, monkeypatch, refuses, ending):
    """The earlier worker may finish, and somebody may ask the new attempt to stop."""
    set_owner(run.path, LOCAL)
    run.write_status(replace(run.status, state=FAILED))
    take(run.path)

    def meanwhile(seconds):
        run.write_status(replace(run.status, state=ending))
        (run.path / "control.json").write_text(json.dumps({"request": "stop"}))

    monkeypatch.setattr(lease.time, "sleep", meanwhile)
    if ending == FINISHED:
        refuses(run.reopen, "has just finished", kind=TakenError)
        assert run.status.state == FINISHED
    else:
        os.close(run.reopen())
        assert run.status.attempt == 2
    assert run.stop_requested


def test_a_job_whose_run_was_given_up_and_resumed_elsewhere_starts_nothing_and_says_nothing(run):
    """Its node dies, or its worker cannot be started, only then."""
    cause = ZeroDivisionError()
    cause.cause = RunError("The node n1 has no folder.")
    for error in (NodeDied(), cause):
        before, handles = run.status.attempt, []

        def given_up(error=error, handles=handles):
            set_owner(run.path, LOCAL)
            lease.bar(run.path)
            handles.append(Store(run.path.parent).get(run.id).reopen())
            raise error

        set_owner(run.path, "ray", job="it", cpus=1.0, gpus=0.0)
        run.write_status(replace(run.status, state=QUEUED))
        ray = StandInRay(given_up, ends(run, FINISHED))
        assert attend(run, ray) == 1
        assert len(ray.tasks) == 1
        assert (run.status.state, run.status.attempt) == (QUEUED, before + 1)
        assert not (run.path / lease.FILE).exists()
        os.close(handles[0])


def test_a_job_that_waits_leaves_the_queue_once_its_run_is_given_up(run):
    ray = StandInRay(None)
    nodes = ray.nodes

    def given_up():  # it asks for them before it waits
        set_owner(run.path, LOCAL)
        lease.bar(run.path)
        return nodes()

    ray.nodes = given_up
    assert attend(run, ray) == 1
    assert ray.cancelled
    assert [e["event"] for e in events(run)] == [QUEUED]


def test_an_old_job_takes_nothing_from_the_next_one(run):
    set_owner(run.path, "ray", job="next", cpus=1.0, gpus=0.0)
    token = take(run.path)
    assert attend(run, StandInRay(ends(run, FINISHED))) == 1
    assert holds(run.path, token)


def test_what_an_earlier_worker_has_finished_is_not_trained_again(run):
    take(run.path)
    ends(run, FINISHED)()
    ray = StandInRay()
    assert attend(run, ray) == 0
    assert not ray.tasks
    assert not (run.path / lease.FILE).exists()


def test_a_worker_ends_once_somebody_else_has_its_folder(tmp_path, tiny_config, monkeypatch):
    """A real one, and the task that looks after it."""
    run, handle = Store(tmp_path).create(tiny_config(methods=("baseline",), teacher="none", epochs=10_000))
    os.close(handle)
    set_owner(run.path, "ray", job="it", cpus=1.0, gpus=0.0)
    monkeypatch.setattr(ray_job, "_node_id", lambda: "n1")
    monkeypatch.setenv("PYTHONPATH", python_path())
    token = take(run.path)
    task = threading.Thread(target=ray_job.train_here, args=(str(run.path), 0.0, 1.0, token), daemon=True)
    task.start()
    while not run.metrics()[0]:
        assert task.is_alive(), run.log_tail()
        time.sleep(0.1)
    command = psutil.Process(run.status.pid).cmdline()
    assert command[-3:] == ["--lifeline", "--holder", token]
    lease.take_away(run.path)
    task.join(60)
    assert not task.is_alive()
    assert not psutil.pid_exists(run.status.pid)
    ray_job.train_here(str(run.path), 0.0, 1.0, token)  # as late as a task may begin
    assert [e["event"] for e in events(run)].count("placed") == 1


def test_a_worker_whose_run_was_taken_leaves_no_final_state(run, monkeypatch):
    token = take(run.path)
    monkeypatch.setattr(worker.Training, "train", lambda self: take(run.path))
    worker.execute(run, lambda: False, holder=token)
    assert run.status.state == QUEUED
    assert [event["event"] for event in events(run)] == [QUEUED]
    monkeypatch.setattr(worker.Training, "train", lambda self: None)
    worker.execute(run, lambda: False, holder=take(run.path))
    assert run.status.state == FINISHED


def test_a_worker_does_not_outlive_who_started_it():
    code = (
        "import threading, time; from iekd.runs import worker;"
        "threading.Thread(target=worker._end_with_input, daemon=True).start(); print('ready', flush=True);"
        "time.sleep(600)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert worker.stdout.readline() == b"ready\n"
        assert worker.poll() is None
        worker.stdin.close()
        assert worker.wait(60) == -9
    finally:
        worker.kill()
