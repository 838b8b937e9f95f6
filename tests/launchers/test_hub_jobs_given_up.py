"""Jobs of the Hub that were given up or cannot be ended, and what is left of them there."""

from __future__ import annotations

import json
import shutil
import threading

import pytest

from iekd.hub_errors import HubError
from iekd.launchers import hub_jobs, sending
from iekd.launchers.hub_account import Account
from iekd.runs.owner import record
from iekd.runs.status import STOPPED
from iekd.runs.store import Run


def test_a_run_that_is_given_up_has_no_job_that_costs_money(jobs, waiting, hub_launcher, wait_until):
    run, job = waiting
    wait_until(lambda: "installs" in run.status.waiting)
    jobs.down = True
    wait_until(lambda: run.status.doubt)
    hub_launcher.give_up(run.id)
    lines = (json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines())
    (left,) = [one for one in lines if one["event"] == "job left"]
    assert left["job"] == job.id
    assert job.stage == "RUNNING"
    jobs.down = False
    hub_launcher.resume(run.id)
    assert [one.stage for one in jobs.jobs] == ["CANCELED", "RUNNING"], "two would write to one place"


def test_what_a_job_that_was_given_up_has_learned_is_not_deleted(jobs, waiting, hub_launcher, wait_until):
    run, _ = waiting
    wait_until(lambda: "installs" in run.status.waiting)
    learned = jobs.bucket("ann/iekd-runs") / "runs" / run.id / "run" / "checkpoints" / "students-7"
    learned.mkdir(parents=True)
    (learned / "state.safetensors").write_bytes(b"much")
    jobs.down = True
    wait_until(lambda: run.status.doubt)
    hub_launcher.give_up(run.id)
    jobs.down = False
    hub_launcher.resume(run.id)
    assert (run.path / "checkpoints" / "students-7" / "state.safetensors").read_bytes() == b"much"
    assert (learned / "state.safetensors").read_bytes() == b"much", "the new job finds it too"
    assert jobs.jobs[1].spec["timeoutSeconds"] == 7200
    assert record(run.path)["namespace"] == "ann"


@pytest.mark.parametrize(("here", "there"), [("students-5", "students-7"), ("students-9", "students-7")])
def test_of_the_checkpoints_here_and_of_a_job_that_was_given_up_the_newest_stay(
    here, there, jobs, waiting, hub_launcher, wait_until
):
    run, _ = waiting
    wait_until(lambda: "installs" in run.status.waiting)
    in_bucket = jobs.bucket("ann/iekd-runs") / "runs" / run.id / "run"
    for name, place in ((here, run.path), (there, in_bucket)):
        (place / "checkpoints" / name).mkdir(parents=True)
        (place / "checkpoints" / name / "manifest.json").write_text(name)
    jobs.down = True
    wait_until(lambda: run.status.doubt)
    hub_launcher.give_up(run.id)
    jobs.down = False
    hub_launcher.resume(run.id)
    for place in (run.path, in_bucket):  # where the new job looks for them
        found = {path.parent.name for path in (place / "checkpoints").rglob("manifest.json")}
        assert found == {max(here, there)}
    assert [path.name for path in run.path.parent.iterdir() if path.name.startswith((".fetching", ".sending"))] == []
    assert not list(jobs.bucket("ann/iekd-runs").rglob(sending.GIVEN_UP))


def test_a_job_that_was_given_up_is_over_before_another_takes_its_place(
    jobs, waiting, hub_launcher, wait_until, monkeypatch, refuses
):
    run, job = waiting
    wait_until(lambda: "installs" in run.status.waiting)
    jobs.down = True
    wait_until(lambda: run.status.doubt)
    hub_launcher.give_up(run.id)
    jobs.down = False
    cancelled = []
    monkeypatch.setattr(Account, "cancel", lambda self, job_id: cancelled.append(job_id))  # it takes its time
    monkeypatch.setattr(hub_jobs, "ENDING", 0)
    refuses(lambda: hub_launcher.resume(run.id), "has not ended", job.id, "Resume the run", kind=HubError)
    assert (cancelled, len(jobs.jobs)) == ([job.id], 1)
    monkeypatch.setattr(hub_jobs, "ENDING", 20)
    monkeypatch.setattr(Account, "cancel", lambda self, job_id: threading.Timer(0.5, job.end, ["CANCELED"]).start())
    hub_launcher.resume(run.id)
    assert [one.stage for one in jobs.jobs] == ["CANCELED", "RUNNING"]


def pictures_left(run: Run) -> list[tuple[str, str]]:
    """(bucket, folder) of each event that says so."""
    events = map(json.loads, (run.path / "events.jsonl").read_text().splitlines())
    return [(one["bucket"], one["inside"]) for one in events if one["event"] == "sent files left"]


def test_pictures_that_cannot_be_deleted_from_the_bucket_are_named(
    jobs, hub_launcher, tiny_config, wait_until, monkeypatch, caplog
):
    jobs.idle = True
    run = hub_launcher.store.get(hub_launcher.submit(tiny_config()))
    wait_until(lambda: "installs" in run.status.waiting)

    def forget(*_):
        raise HubError("The Hub cannot be reached.")

    monkeypatch.setattr(Account, "forget", forget)
    jobs.jobs[0].end("CANCELED")
    wait_until(lambda: not run.alive())
    assert pictures_left(run) == [("ann/iekd-runs", f"runs/{run.id}")]
    assert f"in the bucket 'ann/iekd-runs', in 'runs/{run.id}'" in caplog.text


@pytest.mark.parametrize("answers", [True, False])
def test_the_pictures_of_a_run_that_is_given_up_are_deleted_or_named(
    answers, jobs, hub_launcher, tiny_config, wait_until
):
    jobs.idle = True
    run = hub_launcher.store.get(hub_launcher.submit(tiny_config()))
    sent = jobs.bucket("ann/iekd-runs") / "runs" / run.id / "inputs.tar"
    wait_until(lambda: "installs" in run.status.waiting)
    jobs.down = True
    wait_until(lambda: run.status.doubt)
    if answers:
        hub_launcher.threads[run.id].launcher.look = lambda run_id: True  # so that the doubt stays
        jobs.down = False
        hub_launcher.disown(run)
    else:
        hub_launcher.give_up(run.id)
    assert sent.exists() is not answers
    assert pictures_left(run) == ([] if answers else [("ann/iekd-runs", f"runs/{run.id}")])


def test_one_job_that_cannot_be_ended_keeps_no_other_from_it(jobs, hub_launcher, tiny_config, monkeypatch):
    jobs.idle = True
    monkeypatch.setattr(hub_jobs, "SEEN", 0)
    runs = [hub_launcher.submit(tiny_config(dataset="fashion-mnist-sample", seeds=(seed,))) for seed in (0, 1)]
    for run_id in runs:
        hub_launcher.request_stop(run_id)
    kill, tried = hub_launcher.kill, []

    def sometimes(run):
        tried.append(run.id)
        if len(tried) == 1:
            raise HubError("The token is gone.")
        return kill(run)

    monkeypatch.setattr(hub_launcher, "kill", sometimes)
    hub_launcher.end_stuck(0)
    assert sorted(tried) == sorted(runs)
    assert [job.stage for job in jobs.jobs].count("CANCELED") == 1


def test_a_job_and_bucket_that_another_account_cannot_see_are_not_taken_for_deleted(
    jobs, waiting, hub_launcher, wait_until
):
    run, job = waiting
    wait_until(lambda: "installs" in run.status.waiting)
    jobs.jobs.remove(job)
    shutil.move(jobs.bucket("ann/iekd-runs"), jobs.root / "out-of-sight")
    wait_until(lambda: "Log in as whoever" in run.status.doubt)
    assert not record(run.path).get("over")
    shutil.move(jobs.root / "out-of-sight", jobs.bucket("ann/iekd-runs"))
    wait_until(lambda: not run.alive())
    assert run.status.state == STOPPED, "now its bucket is there, and the job was deleted"
