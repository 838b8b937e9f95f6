"""Runs as jobs of the Hub, against a stand-in whose jobs are processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from collections import Counter
from dataclasses import replace

import pytest

from iekd.hub_errors import HubError
from iekd.launchers import hub_jobs
from iekd.launchers.base import Launcher
from iekd.launchers.hub_account import Account
from iekd.launchers.hub_jobs import HubJobsLauncher
from iekd.runs import grid
from iekd.runs.files import read_json, write_json
from iekd.runs.owner import record
from iekd.runs.status import FAILED, FINISHED, QUEUED, RUNNING, STOPPED
from iekd.runs.store import Run, Store
from iekd.runs.teachers import find_teacher
from iekd.runs.worker import execute

OWN_NETS = """
from torch import nn
from iekd.models.registry import register

@register
def job_net(num_classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))
"""


def ends(run: Run) -> list[str]:
    lines = (json.loads(line)["event"] for line in (run.path / "events.jsonl").read_text().splitlines())
    return [event for event in lines if event in (FINISHED, STOPPED, FAILED)]


def test_a_run_trains_in_a_job_and_comes_back(jobs, hub_launcher, tiny_config, picture_folder, tmp_path, wait_until):
    def takes(launcher: Launcher) -> str:
        return launcher.name

    assert takes(hub_launcher) == "hf-jobs"
    pictures = tmp_path / "pets"
    shutil.copytree(picture_folder, pictures)
    (pictures / "letter.docx").write_text("not for others")
    config = tiny_config(dataset=f"folder:{pictures}", methods=("kd",))
    here = hub_launcher.store
    made, _ = Store(tmp_path / "here").create(config)
    assert execute(made, lambda: False).state == FINISHED
    jobs.held = True
    run = here.get(hub_launcher.submit(config, "click"))
    assert hub_launcher.submit(config, "click") == run.id, "twenty clicks start one job"
    pictures.rename(tmp_path / "elsewhere")  # in the job there is only what was sent
    wait_until(lambda: "waits for a machine" in run.status.waiting)
    assert (run.status.state, run.owner) == (QUEUED, "hf-jobs")
    sent = jobs.bucket("ann/iekd-runs") / "runs" / run.id / "inputs.tar"
    with tarfile.open(sent) as packed:
        kinds = Counter(name.rpartition(".")[2] for name in packed.getnames())
    assert kinds == {"png": 156}, "pictures only"
    jobs.release()
    wait_until(lambda: not run.status.live)
    (job,) = jobs.jobs
    status = run.status
    wait_until(lambda: not run.alive())
    assert status.state == FINISHED, (run.log_tail(), (jobs.root / f"{job.id}.err").read_text())
    assert ends(run) == [FINISHED]
    assert run.metrics()[0]
    assert set(run.model_folders) == {"teacher", "kd-seed0"}
    assert "The run is finished." in hub_launcher.logs(run.id)[0]
    numbers = [[learner["accuracy_last"] for learner in one.report["learners"]] for one in (run, made)]
    assert numbers[0] == numbers[1], "the same as here"
    shutil.rmtree(pictures)  # the job's
    (tmp_path / "elsewhere").rename(pictures)
    assert find_teacher(config, here.root).is_relative_to(here.root / "teachers"), "later runs find its teacher"
    assert not sent.exists(), "pictures do not stay there"
    assert (job.spec["flavor"], job.spec["timeoutSeconds"]) == ("t4-small", 7200)
    assert not job.spec.get("secrets"), "the job has no token"
    assert jobs.public == set()
    written = [path for path in jobs.root.rglob("*") if path.is_file()] + [
        p for p in here.root.rglob("*") if p.is_file()
    ]
    assert not [path for path in written if b"hf_ann" in path.read_bytes()], "the token is in no file"
    here.delete(run.id)


def test_a_stop_saves_what_was_learned_and_training_goes_on(jobs, hub_launcher, tiny_config, wait_until):
    config = tiny_config(methods=("baseline",), teacher="none", epochs=10_000)
    run = hub_launcher.store.get(hub_launcher.submit(config))
    wait_until(lambda: run.status.state == RUNNING and bool(run.metrics()[0]))
    assert hub_launcher.stop_and_wait(run.id).state == STOPPED
    assert run.status.error is None, "it stopped by itself"
    assert (run.model_folders and ends(run)) == [STOPPED]
    jobs.idle = True
    other = HubJobsLauncher(Store(hub_launcher.store.root), flavor="a10g-small")  # a server that was started again
    other.resume(run.id)
    run = other.store.get(run.id)
    assert run.status.live
    assert [job.spec["flavor"] for job in jobs.jobs] == ["t4-small", "a10g-small"]
    there = jobs.bucket("ann/iekd-runs") / "runs" / run.id
    assert list((there / "run" / "checkpoints").rglob("manifest.json")), "the job finds where to go on"
    assert not (there / "control.json").exists(), "and no request to stop"
    jobs.jobs[1].end("ERROR", "its machine failed")
    wait_until(lambda: not run.status.live)
    wait_until(lambda: not run.alive())
    assert (run.status.state, run.status.attempt, ends(run)) == (FAILED, 2, [STOPPED, FAILED])
    assert "line 2 of the job's own log" in run.log_tail()
    rows = len(run.metrics()[0])
    handle = run.reopen()  # on this machine, with what came back
    execute(run, lambda: len(run.metrics()[0]) > rows)
    os.close(handle)
    assert "Continuing after step" in run.log_tail(20)


@pytest.mark.parametrize(
    ("stage", "message", "asked", "state", "says"),
    [
        ("ERROR", "Job timeout", False, STOPPED, "reached its time limit of 2 h"),
        ("ERROR", "exit status 1", False, FAILED, "exit status 1"),
        ("CANCELED", None, False, STOPPED, "was cancelled on the Hub"),
        ("DELETED", None, False, STOPPED, "was deleted on the Hub"),
        ("CANCELED", None, True, STOPPED, "before its students were saved"),
        ("COMPLETED", None, False, FAILED, "without a result"),
    ],
)
def test_a_job_without_a_final_state_gets_one(waiting, stage, message, asked, state, says, hub_launcher, wait_until):
    run, job = waiting
    wait_until(lambda: "installs" in run.status.waiting)
    if asked:
        hub_launcher.request_stop(run.id)
    job.end(stage, message)
    wait_until(lambda: not run.status.live)
    wait_until(lambda: not run.alive())
    time.sleep(0.3)  # for a second one
    assert run.status.state == state
    assert says in run.status.error
    assert ends(run) == [state]
    assert run.status.resumable


def test_what_arrives_late_still_counts(jobs, waiting, monkeypatch):
    run, job = waiting
    monkeypatch.setattr(hub_jobs._Thread, "start", lambda self: self.first.set())
    run.owners["hf-jobs"].threads.pop(run.id).launcher.look = lambda run_id: True  # only this test looks
    time.sleep(0.5)
    other = HubJobsLauncher(Store(run.path.parent))
    other.follower.ended[run.id] = replace(run.status, state=FINISHED, attempt=0)
    assert other.look(run.id) is False, "the end of an earlier attempt is not this one's"
    job.end("COMPLETED")
    assert other.look(run.id) is False, "its state may still be on its way"
    there = jobs.bucket("ann/iekd-runs") / "runs" / run.id / "run"
    write_json(there / "status.json", {**read_json(there / "status.json"), "state": FINISHED})
    (there / "models").mkdir()
    (there / "models" / "x.json").write_text("{}")
    assert other.look(run.id) is True
    assert run.status.state == FINISHED
    assert (run.path / "models" / "x.json").exists(), "before the state, everything else"


def test_a_lost_connection_changes_nothing(jobs, waiting, hub_launcher, wait_until, refuses):
    run, job = waiting
    wait_until(lambda: "installs" in run.status.waiting)
    jobs.down = True
    wait_until(lambda: "cannot be reached" in hub_launcher.doubt(run.id))
    job.end("CANCELED")
    assert run.status.state == QUEUED
    refuses(lambda: hub_launcher.request_stop(run.id), "cannot be reached", "not asked to stop", kind=HubError)
    assert not run.stop_requested
    jobs.down = False
    wait_until(lambda: run.status.state == STOPPED)


def test_a_run_that_cannot_be_resumed_now_stays_as_it_was(jobs, waiting, hub_launcher, wait_until, refuses):
    run, job = waiting
    job.end("CANCELED")
    wait_until(lambda: run.status.state == STOPPED)
    wait_until(lambda: not run.alive())
    before = record(run.path)
    jobs.down = True
    hub_launcher.accounts.clear()
    refuses(lambda: hub_launcher.resume(run.id), "cannot be reached", kind=HubError)
    assert (run.status.state, record(run.path)) == (STOPPED, before)
    jobs.down = False
    jobs.refusals["POST /api/jobs"] = 402, "Pre-paid credit balance is insufficient"
    refuses(lambda: hub_launcher.resume(run.id), "billing", kind=HubError)
    assert (run.status.state, run.owner) == (FAILED, "hf-jobs")
    assert record(run.path)["flavor"] == before["flavor"]


def test_a_job_that_has_no_machine_yet_is_cancelled_at_once(jobs, hub_launcher, tiny_config, wait_until):
    jobs.held = True
    run_id = hub_launcher.submit(tiny_config(dataset="fashion-mnist-sample"))
    assert hub_launcher.stop_and_wait(run_id).state == STOPPED
    assert jobs.jobs[0].stage == "CANCELED"


def test_a_worker_that_does_not_stop_is_cancelled(waiting, hub_launcher, wait_until, monkeypatch):
    run, job = waiting
    wait_until(lambda: "installs" in run.status.waiting)
    hub_launcher.request_stop(run.id)
    hub_launcher.end_stuck(grace=0)
    assert job.stage == "RUNNING", "it has more time than a worker of this machine"
    monkeypatch.setattr(hub_jobs, "SEEN", 0)
    hub_launcher.end_stuck(grace=0)
    assert (job.stage, run.status.state) == ("CANCELED", STOPPED)


def test_a_run_whose_sender_died_is_found_by_its_label(jobs, waiting, wait_until):
    run, _ = waiting
    notes = {name: value for name, value in record(run.path).items() if name not in ("job", "url")}
    write_json(run.path / "launcher.json", notes)
    other = HubJobsLauncher(Store(run.path.parent))
    assert other.status(run.id).state == QUEUED
    assert record(run.path)["job"] == "job1"
    write_json(run.path / "launcher.json", notes)
    jobs.jobs[0].spec["labels"] = {}
    third = HubJobsLauncher(Store(run.path.parent))
    wait_until(lambda: third.status(run.id).state == FAILED)
    assert "never started" in third.status(run.id).error


def test_a_lost_answer_to_the_start_leaves_no_job(jobs, hub_launcher, tiny_config, monkeypatch, refuses):
    """The Hub has made the job, and the connection was lost then."""
    jobs.idle = True
    start = Account.start

    def lost(self, *given):
        start(self, *given)
        raise HubError("The Hub cannot be reached.")

    monkeypatch.setattr(Account, "start", lost)
    refuses(
        lambda: hub_launcher.submit(tiny_config(dataset="fashion-mnist-sample")), "cannot be reached", kind=HubError
    )
    assert [job.stage for job in jobs.jobs] == ["CANCELED"]


def test_a_job_that_may_have_been_left_is_named(jobs, hub_launcher, tiny_config, monkeypatch, caplog):
    """The Hub has made the job, and cannot be asked from then on."""
    jobs.idle = True
    start = Account.start

    def lost(self, *given):
        start(self, *given)
        jobs.down = True
        raise HubError("The Hub cannot be reached.")

    monkeypatch.setattr(Account, "start", lost)
    with pytest.raises(HubError) as caught:
        hub_launcher.submit(tiny_config(dataset="fashion-mnist-sample"))
    label = jobs.jobs[0].spec["labels"]["iekd-run"]
    for said in (str(caught.value), caplog.text):
        assert f"A job of ann with the label iekd-run={label} may be running and cost money" in said
        assert "hf jobs ps --namespace ann" in said
    assert jobs.jobs[0].stage == "RUNNING"


def test_a_table_goes_on_with_jobs_that_a_closed_terminal_has_left(jobs, hub_launcher, tiny_config, wait_until):
    jobs.idle = True
    configs = [tiny_config(dataset="fashion-mnist-sample", methods=("baseline",), teacher="none", seeds=(seed,))
               for seed in (0, 1)]  # fmt: skip
    left = [hub_launcher.submit(config) for config in configs]

    def follow(_):
        for job in jobs.jobs:
            job.end("CANCELED")

    cells = grid.run_grid_at_once(configs, hub_launcher, 2, lambda: False, follow)
    assert [cell.run for cell in cells] == left
    assert len(jobs.jobs) == 2, "none is paid for twice"


def test_a_job_that_cannot_be_started_does_not_hide_those_that_train(jobs, hub_launcher, tiny_config, refuses):
    jobs.idle = True
    configs = [tiny_config(dataset="fashion-mnist-sample", methods=("baseline",), teacher="none", seeds=(seed,))
               for seed in (0, 1)]  # fmt: skip
    followed = []

    def follow(training):
        jobs.refusals["POST /api/jobs"] = 402, "Pre-paid credit balance is insufficient"
        followed.append(len(training))
        if len(followed) > 2:
            jobs.jobs[0].end("CANCELED")

    launcher = hub_launcher
    refuses(lambda: grid.run_grid_at_once(configs, launcher, 1, lambda: False, follow), "billing", kind=HubError)
    assert [job.stage for job in jobs.jobs] == ["CANCELED"]
    assert followed[:3] == [1, 1, 1]


def test_ctrl_c_cancels_a_job_that_does_not_stop(jobs, hub_launcher, tiny_config, monkeypatch):
    jobs.idle = True
    monkeypatch.setattr(hub_jobs, "SEEN", 0)
    config = tiny_config(dataset="fashion-mnist-sample", methods=("baseline",), teacher="none")
    began = []

    def stop():
        return bool(began)

    cells = grid.run_grid_at_once([config], hub_launcher, 1, stop, lambda training: began.append(1))
    assert [job.stage for job in jobs.jobs] == ["CANCELED"]
    assert cells[0].state == STOPPED


def bad(name):
    return {
        "token": ("There is no token", "hf auth login"),
        "wrong token": ("does not accept the token", "hf auth login"),
        "flavor": ("Unknown flavor 't4-smal'", "'t4-small'", "a10g-small $1.00 per hour"),
        "timeout": ("'soon'", "90m"),
        "short": ("'10s'", "5 min"),
        "no jobs": ("may not start jobs for ann", "settings/tokens"),
        "credit": ("paid", "billing"),
        "down": ("cannot be reached", "Check the network"),
        "public": ("'ann/iekd-runs' is public", "private"),
        "device": ("'cuda'", "'cpu-basic' does not have", "Leave the device out"),
        "size": ("at most", "files of this machine"),
        "module": ("'own_nets'", "registers 'job-net'", "Train on this machine"),
    }[name]


@pytest.mark.parametrize(
    "what",
    [
        "token",
        "wrong token",
        "flavor",
        "timeout",
        "short",
        "no jobs",
        "credit",
        "down",
        "public",
        "size",
        "module",
        "device",
    ],
)
def test_what_cannot_be_started_is_one_sentence_and_leaves_no_run(
    what, jobs, hub_launcher, tiny_config, monkeypatch, refuses, tmp_path, forgotten
):
    jobs.idle = True
    options = {"flavor": {"flavor": "t4-smal"}, "timeout": {"timeout": "soon"}, "short": {"timeout": "10s"},
               "device": {"flavor": "cpu-basic"}}  # fmt: skip
    if what == "token":
        monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    elif what == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_other")
    elif what == "no jobs":
        jobs.refusals["POST /api/jobs"] = 403, "Missing permissions: job.write"
    elif what == "credit":
        jobs.refusals["POST /api/jobs"] = 402, "Pre-paid credit balance is insufficient"
    elif what == "down":
        jobs.down = True
    elif what == "public":
        jobs.bucket("ann/iekd-runs").mkdir(parents=True)
        jobs.public.add("ann/iekd-runs")
    elif what == "size":
        monkeypatch.setattr(hub_jobs, "MOST_SENT", 1000)
    elif what == "module":
        (tmp_path / "own_nets.py").write_text(OWN_NETS)
        monkeypatch.setenv("IEKD_PLUGINS", str(tmp_path / "own_nets.py"))
    changes = {"device": {"device": "cuda"}, "module": {"student": "job-net"}}.get(what, {})
    store = hub_launcher.store
    refuses(lambda: HubJobsLauncher(store, **options.get(what, {})).submit(tiny_config(**changes)), *bad(what))
    assert store.list() == []
    assert jobs.jobs == []


def test_plugins_that_the_run_does_not_use_are_no_obstacle(
    jobs, hub_launcher, tiny_config, monkeypatch, tmp_path, forgotten
):
    (tmp_path / "unused_nets.py").write_text(OWN_NETS.replace("job_net", "unused_net"))
    monkeypatch.setenv("IEKD_PLUGINS", str(tmp_path / "unused_nets.py"))
    jobs.idle = True
    for teacher in ("resnet8", "none"):
        assert hub_launcher.submit(tiny_config(teacher=teacher, methods=("baseline",)))


def test_a_stop_while_files_are_sent_starts_no_job(jobs, hub_launcher, tiny_config, refuses):
    hub_launcher.stopping = lambda: True
    refuses(lambda: hub_launcher.submit(tiny_config(dataset="fashion-mnist-sample")), "was not started", kind=HubError)
    assert jobs.jobs == []
    assert hub_launcher.store.list() == []
