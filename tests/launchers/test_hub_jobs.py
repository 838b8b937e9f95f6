"""Runs as jobs of the Hub, against a stand-in whose jobs are processes of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from jobs_stand_in import JobsHub, Xet

from iekd import data
from iekd.errors import UserError
from iekd.hub_errors import HubError
from iekd.launchers import hub_follow, hub_jobs, in_job, sending
from iekd.launchers.base import Launcher
from iekd.launchers.flavors import dollars, seconds_in
from iekd.launchers.hub_account import Account
from iekd.launchers.hub_jobs import HubJobsLauncher
from iekd.launchers.in_job import Mirror
from iekd.runs import grid
from iekd.runs.estimate import estimate
from iekd.runs.files import read_json, write_json
from iekd.runs.owner import record, set_owner
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

pytest.importorskip("huggingface_hub", minversion="2.0")  # older ones speak to Xet in another way, past `Xet`


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    from huggingface_hub import constants
    from huggingface_hub.utils import _http, _xet

    (tmp_path / "hub").mkdir()
    made = JobsHub(tmp_path / "hub")
    monkeypatch.setattr(constants, "ENDPOINT", made.address)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(
        _http, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time)
    )  # between its attempts
    monkeypatch.setattr(_xet, "get_xet_session", lambda: Xet(made))
    monkeypatch.setattr(hub_jobs, "EVERY", 0.2)
    monkeypatch.setenv("HF_TOKEN", "hf_ann")
    monkeypatch.setenv("IEKD_CHECKPOINT_SECONDS", "0.2")
    yield made
    # threads that look at runs go on until these are over, and would ask the Hub of the next tests
    monkeypatch.setattr(HubJobsLauncher, "look", lambda self, run_id: True)
    for thread in threading.enumerate():
        if isinstance(thread, hub_jobs._Thread):
            thread.join(60)
            assert not thread.is_alive(), thread.name
    made.close()


@pytest.fixture
def hub_launcher(jobs, tmp_path):
    return HubJobsLauncher(Store(tmp_path / "runs"))


@pytest.fixture
def waiting(jobs, hub_launcher, tiny_config):
    """A run whose job has a machine and does nothing on it, and the job."""
    jobs.idle = True
    run = hub_launcher.store.get(hub_launcher.submit(tiny_config(dataset="fashion-mnist-sample")))
    return run, jobs.jobs[0]


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


def test_only_who_pays_resumes_a_job(jobs, waiting, hub_launcher, wait_until, refuses):
    from iekd.ui.rights.access import Access, AccessError
    from iekd.ui.shared.actions import resume_run

    run, job = waiting
    job.end("CANCELED")
    wait_until(lambda: not run.alive())
    stranger = SimpleNamespace(
        headers={"host": "192.0.2.1:7860"}, cookies={}, client=SimpleNamespace(host="192.0.2.7"), username=None
    )
    refuses(lambda: resume_run(hub_launcher, Access(), stranger, run), "sits at this machine", kind=AccessError)
    assert len(jobs.jobs) == 1
    here = SimpleNamespace(
        headers={"host": "127.0.0.1:7860"}, cookies={}, client=SimpleNamespace(host="127.0.0.1"), username=None
    )
    resume_run(hub_launcher, Access(), here, run)
    assert len(jobs.jobs) == 2


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


def test_a_visitors_token_is_theirs_alone(jobs, hub_launcher, tiny_config, wait_until, refuses):
    jobs.idle = True
    run_id = hub_launcher.for_visitor("hf_bob", flavor="cpu-basic").submit(tiny_config(dataset="fashion-mnist-sample"))
    assert (jobs.jobs[0].namespace, jobs.jobs[0].spec["flavor"]) == ("bob", "cpu-basic")
    run = hub_launcher.store.get(run_id)
    wait_until(lambda: "installs" in run.status.waiting)
    later = HubJobsLauncher(Store(hub_launcher.store.root))  # after a restart nobody has it
    assert later.status(run_id).state == QUEUED
    refuses(lambda: later.look(run_id), "a visitor's", kind=HubError)
    refuses(lambda: later.resume(run_id), "a visitor's", kind=HubError)  # nobody else pays for it
    later.welcome("hf_ann")
    assert run_id not in later.tokens
    later.welcome("hf_bob")
    assert later.look(run_id) is False
    assert later.for_visitor("hf_bob").look(run_id) is False


def test_price_and_time_are_said_before(jobs, hub_launcher, tiny_config, picture_folder):
    config = tiny_config()
    plan = estimate(config, hub_launcher.store, False).plan
    offer = hub_launcher.offer(config, plan)
    said = " ".join(offer.sentences("about 1 min"))
    assert "t4-small (1 x T4) costs $0.40 per hour." in said
    assert "at most $0.80: the job ends after 2 h" in said
    assert "a guess: no speed of t4-small has been measured" in said
    assert "156 of your images and tables" in said
    assert "the GPU would be paid for and not used" in said
    assert "private bucket 'ann/iekd-runs'" in said
    assert offer.high > 10 * offer.low
    assert [one for one in jobs.requests if one[0] == "POST"] == [], "nothing was sent"


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


def test_the_command_line_says_the_price_and_shows_the_run(jobs, tiny_options, tmp_path, monkeypatch, wait_until):
    import typer
    from typer.testing import CliRunner

    from iekd.cli.main import app

    jobs.idle = True
    place = ["--runs-dir", str(tmp_path / "runs")]
    words = [f"--{name.replace('_', '-')}={value}" for name, value in tiny_options.items()]
    options = ["--launcher", "hf-jobs", "--flavor", "cpu-basic", "--timeout", "1h", "--detach", *place]
    asked = []

    def no(text, **_):
        asked.append(text)
        raise typer.Abort

    with monkeypatch.context() as terminal:
        terminal.setattr("iekd.cli.jobs.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
        terminal.setattr("typer.confirm", no)
        result = CliRunner().invoke(app, ["train", *words, "--dataset", "fashion-mnist-sample", *options])
    assert (result.exit_code, asked, jobs.jobs) == (1, ["Start it?"], []), "no is no"
    result = CliRunner().invoke(app, ["train", *words, "--dataset", "fashion-mnist-sample", *options])
    assert result.exit_code == 0, result.output
    assert "cpu-basic (2 vCPU) costs $0.01 per hour." in result.output
    assert jobs.jobs[0].spec["timeoutSeconds"] == 3600
    run_id = Store(tmp_path / "runs").list()[0].id
    jobs.jobs[0].end("CANCELED")
    shown = CliRunner().invoke(app, ["runs", "show", run_id, *place])  # another process, as it were
    assert shown.exit_code == 0, shown.output
    wait_until(lambda: "cancelled on the Hub" in CliRunner().invoke(app, ["runs", "show", run_id, *place]).output)
    wrong = CliRunner().invoke(app, ["train", *words, "--flavor", "t4-small", *place])
    assert (wrong.exit_code, "--launcher hf-jobs" in wrong.output) == (2, True)


def test_a_table_says_the_price_of_new_cells_and_of_each_that_is_resumed(jobs, tiny_options, tmp_path, wait_until):
    from typer.testing import CliRunner

    from iekd.cli.main import app

    jobs.idle = True
    words = [f"--{name.replace('_', '-')}={value}" for name, value in tiny_options.items()
             if name not in ("teacher", "student", "methods")]  # fmt: skip
    words += ["--methods=baseline", "--dataset=fashion-mnist-sample", f"--runs-dir={tmp_path / 'runs'}", "--detach"]
    hub = ["--launcher=hf-jobs", "--flavor=a10g-small", "--timeout=30m"]
    made = CliRunner().invoke(app, ["train", "--teacher=none", "--student=resnet8", "--seeds=0", *hub, *words])
    assert made.exit_code == 0, made.output
    jobs.jobs[0].end("CANCELED")
    (run,) = Store(tmp_path / "runs").list()
    wait_until(lambda: not HubJobsLauncher(Store(tmp_path / "runs")).alive(run.id))
    jobs.refusals["POST /api/jobs"] = 402, "Pre-paid credit balance is insufficient"  # nothing trains here
    table = ["table", "--pairs=none:resnet8", "--seeds=0,1,2", "--launcher=hf-jobs", "--flavor=cpu-basic"]
    said = CliRunner().invoke(app, [*table, *words[:-1]]).output
    assert "That is of one job; 2 jobs will be started." in said
    assert said.count("cpu-basic (2 vCPU) costs") == 2, "the option counts for the resumed cell too"
    assert said.count("ends after 2 h") == 1
    assert said.count("ends after 30 min") == 1, "the resumed cell keeps its own limit"


def test_resuming_a_job_on_the_page_says_what_it_costs(jobs, waiting, hub_launcher, wait_until):
    from iekd.runs.index import Index
    from iekd.ui.render.runs import Query, list_html
    from iekd.ui.render.sparkline import Sparklines
    from iekd.ui.tabs.run import look

    run, job = waiting
    job.end("CANCELED")
    wait_until(lambda: not run.alive())
    said = "Resuming it starts another job on t4-small. It costs at most $0.80: the job ends after 2 h at the latest."
    assert said in look(hub_launcher.store, run.id, {}, lambda *_: True)["headline"]
    listed = list_html(Index(hub_launcher.store), Sparklines(), Query(), lambda *_: True)
    assert f'data-act="resume" data-price="{said}"' in listed
    set_owner(run.path, "local")  # it was taken over
    assert "Resuming it" not in look(hub_launcher.store, run.id, {}, lambda *_: True)["headline"]


@pytest.mark.parametrize("what", ["flavor", "timeout"])
def test_a_page_that_could_offer_no_job_is_not_served(what, jobs, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from iekd.cli.main import app

    served = []
    monkeypatch.setattr("iekd.ui.server.launch.launch", lambda *_: served.append(1))
    words = {"flavor": ["--flavor", "t4-smal"], "timeout": ["--timeout", "soon"]}[what]
    command = ["serve", "--launcher", "hf-jobs", "--runs-dir", str(tmp_path)]
    refused = CliRunner().invoke(app, [*command, *words])
    assert (refused.exit_code, served) == (2, [])
    for said in bad(what):
        assert said in " ".join(refused.output.split())
    assert (CliRunner().invoke(app, command).exit_code, served) == (0, [1])
    jobs.down = True  # a flavor that cannot be looked up is no reason to have no page
    assert (CliRunner().invoke(app, [*command, "--flavor", "t4-small"]).exit_code, served) == (0, [1, 1])


def test_a_page_offers_jobs_beside_this_machine(jobs, tiny_config, tmp_path, refuses):
    import gradio as gr

    from iekd.cli.jobs import as_choice
    from iekd.launchers.factory import make_launcher
    from iekd.runs.owner import LOCAL
    from iekd.runs.prepare import prepare
    from iekd.ui.rights.access import Access
    from iekd.ui.shared.actions import start_run
    from iekd.ui.tabs.jobs import where_part

    jobs.idle = True
    launcher = as_choice(make_launcher(tmp_path / "runs", "hf-jobs", timeout="1h"))
    assert launcher.name == LOCAL, "what does not ask for a job, such as the API, gets none"
    with gr.Blocks():
        assert where_part(make_launcher(tmp_path / "runs"), Access()) is None
        part = where_part(launcher, Access())
    config = tiny_config(dataset="fashion-mnist-sample")
    given = {part.place: LOCAL, part.flavor: "a10g-small", part.timeout: "30m"}
    assert part.chosen(None, given, "") is launcher
    given[part.place] = "hf-jobs"
    hub = part.chosen(None, given, "hf_bob")
    priced = part.priced(prepare(config, launcher.store.root, here=False), hub)
    assert "$1.00 per hour" in priced[part.price]
    assert "at most $0.50" in priced[part.price]
    assert "at most $0.50" in priced[part.most], "beside Start"
    run_id = start_run(hub, Access(), None, config, "click")
    assert launcher.store.get(run_id).owner == "hf-jobs"
    (job,) = jobs.jobs
    assert (job.namespace, job.spec["flavor"], job.spec["timeoutSeconds"]) == ("bob", "a10g-small", 1800)
    for access, said in ((Access(public=True, training=True), "sits at this machine"),
                         (Access(public=True, training=True, in_space=True), "Log in with Hugging Face")):  # fmt: skip
        stranger = replace(part, access=access)
        refuses(lambda stranger=stranger: stranger.chosen(None, given, ""), said)


def test_a_job_is_resumed_on_a_page_as_it_was_started(jobs, tiny_config, tmp_path, wait_until):
    """And not with the options that the page offers for new ones, which may cost many times as much."""
    from iekd.cli.jobs import as_choice
    from iekd.launchers.factory import make_launcher

    jobs.idle = True
    started = make_launcher(tmp_path / "runs", "hf-jobs", flavor="cpu-basic", timeout="30m")
    run = started.store.get(started.submit(tiny_config(dataset="fashion-mnist-sample")))
    jobs.jobs[0].end("CANCELED")
    wait_until(lambda: not run.alive())
    page = as_choice(make_launcher(tmp_path / "runs", "hf-jobs", flavor="a10g-small", timeout="12h", namespace="org"))
    page.resume(run.id)
    assert (jobs.jobs[1].spec["flavor"], jobs.jobs[1].spec["timeoutSeconds"]) == ("cpu-basic", 1800)
    assert jobs.jobs[1].namespace == "ann"


def test_start_on_the_page_asks_again_where_another_price_was_shown(jobs, tmp_path, monkeypatch):
    import gradio as gr
    from gradio.routes import App

    from iekd.cli.jobs import as_choice
    from iekd.launchers.factory import make_launcher
    from iekd.ui.app import build_app

    jobs.idle = True
    monkeypatch.setenv("IEKD_PROBE", "0")
    launcher = as_choice(make_launcher(tmp_path / "runs", "hf-jobs", timeout="1h"))
    demo = build_app(launcher)
    demo.queue()
    App.create_app(demo)
    request = gr.Request(
        headers={"host": "127.0.0.1:7860"}, cookies={}, query_params={}, client=SimpleNamespace(host="127.0.0.1"),
        username=None,
    )  # fmt: skip
    (event,) = [
        one for one in demo.fns.values() if one.name == "begin" and "f-where" in {i.elem_id for i in one.inputs}
    ]
    changed = {"f-where": "hf-jobs", "f-timeout": "30m", "f-epochs": 1}

    def pressed() -> dict:
        given = [changed.get(one.elem_id, one.value) for one in event.inputs]
        answer = asyncio.run(demo.process_api(event, given, state=None, request=request))
        return {one.elem_id or one._id: value for one, value in zip(event.outputs, answer["data"], strict=True)}

    refused = pressed()
    assert "press Start again" in str(refused["error"])
    assert "at most $0.20" in refused["job-most"]
    assert jobs.jobs == [], "nothing was shown, so nothing is paid for"
    changed |= {"job-most": refused["job-most"], "f-timeout": "1h"}
    assert "at most $0.40" in pressed()["job-most"], "it was for another time"
    assert jobs.jobs == []
    changed["f-timeout"] = "30m"
    started = pressed()
    assert started["shown-run"]
    assert [job.spec["timeoutSeconds"] for job in jobs.jobs] == [1800]


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


def test_a_page_never_resumes_on_a_visitors_account(jobs, hub_launcher, tiny_config, wait_until, refuses):
    from iekd.ui.rights.access import Access, AccessError
    from iekd.ui.shared.actions import resume_run

    jobs.idle = True
    run = hub_launcher.store.get(hub_launcher.for_visitor("hf_bob").submit(tiny_config(dataset="fashion-mnist-sample")))
    jobs.jobs[0].end("CANCELED")
    wait_until(lambda: not run.alive())
    here = SimpleNamespace(
        headers={"host": "127.0.0.1:7860"}, cookies={}, client=SimpleNamespace(host="127.0.0.1"), username=None
    )
    refuses(lambda: resume_run(hub_launcher, Access(), here, run), "visitor", "same settings", kind=AccessError)
    assert len(jobs.jobs) == 1


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


def test_a_stop_while_files_are_sent_starts_no_job(jobs, hub_launcher, tiny_config, refuses):
    hub_launcher.stopping = lambda: True
    refuses(lambda: hub_launcher.submit(tiny_config(dataset="fashion-mnist-sample")), "was not started", kind=HubError)
    assert jobs.jobs == []
    assert hub_launcher.store.list() == []


def test_times_and_prices_in_words():
    assert [seconds_in(text) for text in ("2h", "90m", "1.5d", "3600")] == [7200, 5400, 129600, 3600]
    assert [dollars(amount) for amount in (0.4, 12, 0.01, 0.00334)] == ["$0.40", "$12.00", "$0.01", "$0.0033"]


def test_the_job_copies_the_state_last_and_forgets_what_is_gone(tmp_path, monkeypatch):
    source, target = tmp_path / "a", tmp_path / "b"
    for name in ("status.json", "log.txt", "checkpoints/1/manifest.json", "checkpoints/1/state.bin", "control.json"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    order, copy = [], shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lambda a, b: (order.append(b.relative_to(target).as_posix()), copy(a, b)))
    mirror = Mirror(source, target)
    mirror.copy(heavy=True)
    assert order == ["checkpoints/1/state.bin", "checkpoints/1/manifest.json", "log.txt", "status.json"]
    mirror.copy(heavy=True)
    assert len(order) == 4, "what is the same is not copied again"
    shutil.rmtree(source / "checkpoints")
    mirror.copy(heavy=True)
    assert not (target / "checkpoints/1/state.bin").exists()


def test_the_job_refuses_files_for_other_places(tmp_path, refuses):
    for name in ("root/../x", "elsewhere/x"):
        with tarfile.open(tmp_path / "a.tar", "w") as packed:
            packed.addfile(tarfile.TarInfo(name))
        refuses(lambda: in_job.unpack(tmp_path / "a.tar", tmp_path / "runs"), name)


def test_a_job_stops_its_worker_before_its_time_is_over(tmp_path, tiny_config, monkeypatch):
    run, handle = Store(tmp_path / "runs").create(tiny_config(dataset="fashion-mnist-sample"))
    os.close(handle)
    set_owner(run.path, "hf-jobs")
    mount = tmp_path / "mount"
    shutil.copytree(run.path, mount / "run")
    write_json(mount / "job.json", {"run": run.id, "seconds": 1000})
    program = (  # in the place of the worker: it ends when it is asked to, and any signal kills it
        "import json, pathlib, time; run = pathlib.Path({!r})\n"
        "while not (run / 'control.json').exists(): time.sleep(0.02)\n"
        "state = json.loads((run / 'status.json').read_text()); state['state'] = 'stopped'\n"
        "(run / 'new').write_text(json.dumps(state)); (run / 'new').replace(run / 'status.json')"
    )
    popen = subprocess.Popen

    def start(words, **options):
        ready.append(words)
        return popen([sys.executable, "-c", program.format(words[-1])], **options)

    ready: list = []
    monkeypatch.setattr(in_job.subprocess, "Popen", start)
    monkeypatch.setattr(in_job.signal, "signal", lambda *_: None)
    job = in_job.Job(mount, tmp_path / "work", began=time.time() - 899, every=0.05)
    assert job.execute() == 0
    assert ready[0][1:3] == ["-m", "iekd.runs.worker"]
    found = read_json(mount / "run" / "status.json")
    assert (found["state"], "time of 16.7 min was nearly over" in found["error"]) == (STOPPED, True)


def test_what_is_installed_in_a_job_is_what_this_program_needs():
    lines = sending.requirements_text().splitlines()
    assert any(line.startswith("torch!=") or line.startswith("torch>=") for line in lines)
    assert not any("extra" in line or "ruff" in line for line in lines)
    assert "uv pip install" in hub_jobs.command("")
    assert "iekd.zip" not in hub_jobs.command("iekd==1.0")


def sent_of(config, store, root):
    return {path.relative_to(root).as_posix() for path, _ in sending.inputs_of(config, store).files}


def test_of_a_folder_only_what_the_run_reads_is_sent(tmp_path, tiny_config, picture_folder):
    pictures = tmp_path / "pets"
    shutil.copytree(picture_folder, pictures)
    images = {path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")}
    (pictures / "notes.txt").write_text("my diary, page 1\nmy diary, page 2\n")
    (pictures / "contacts.csv").write_text("name,phone\nann,1\nbob,2\n")
    listed = "".join(f"{name},{name.split('/')[-2]}\n" for name in sorted(images))
    (pictures / "labels.csv").write_text(f"file,label\n{listed}")
    (pictures / "extra.jpg").write_bytes(b"outside of the class folders")
    config, store = tiny_config(dataset=f"folder:{pictures}"), Store(tmp_path / "runs")
    assert sent_of(config, store, pictures) == {*images, "labels.csv"}
    more = tmp_path / "more"
    shutil.copytree(next(path for path in pictures.rglob("*.png")).parent, more)
    (more / "notes.txt").write_text("private")
    config = config.model_copy(update={"dataset": "fashion-mnist-sample", "unlabelled": str(more)})
    sent = sent_of(config, store, more)
    assert sent
    assert {name.rpartition(".")[2] for name in sent} == {"png"}


def test_of_a_table_only_what_it_lists_is_sent(tmp_path, tiny_config, picture_folder):
    """Its folder may be the user's own, with everything that they have."""
    home = tmp_path / "ann"
    shutil.copytree(picture_folder, home / "pets")
    shutil.copytree(picture_folder, home / "holiday", ignore=lambda _, names: [n for n in names if n.endswith("1.png")])
    (home / "notes.txt").write_text("my diary, page 1\nmy diary, page 2\n")
    (home / "other.csv").write_text("name,phone\nann,1\nbob,2\n")
    images = sorted(path.relative_to(home).as_posix() for path in (home / "pets").rglob("*.png"))
    lines = [f"{name},{name.split('/')[-2] if i % 4 == 0 else ''}\n" for i, name in enumerate(images)]
    (home / "labels.csv").write_text("file,label\n" + "".join(lines))
    config = tiny_config(dataset=f"csv:{home / 'labels.csv'}")
    inputs = sending.inputs_of(config, Store(tmp_path / "runs"))
    assert {path.relative_to(home).as_posix() for path, _ in inputs.files} == {*images, "labels.csv"}
    here = data.describe(config.dataset)
    sending.pack(inputs, tmp_path / "inputs.tar")
    home.rename(tmp_path / "elsewhere")
    in_job.unpack(tmp_path / "inputs.tar", tmp_path / "runs")
    there = data.describe(config.dataset)
    assert (there.class_sizes, there.fingerprint) == (here.class_sizes, here.fingerprint), (
        "the job has the same dataset"
    )


def test_what_describes_weights_is_sent_with_them(tmp_path, tiny_config):
    """Their network, how their images are normalised, and the order of their classes."""
    described = ("model.safetensors", "config.json", "preprocessor_config.json", "classes.txt")
    for name in (*described, "secret.txt"):
        (tmp_path / name).write_text("{}")
    config = tiny_config(teacher_from=str(tmp_path / "model.safetensors"))
    assert sorted(path.name for path in sending._weights(config)) == sorted(described)


def test_nothing_is_fetched_to_another_place(tmp_path):
    run = Run(tmp_path / "r")
    names = ("../x", "a/../../x", "/x", "config.json", "launcher.json", ".hidden", "checkpoints/1/a")
    assert [hub_follow._target(run, "run", name, False, False) for name in names] == [None] * len(names)
    assert hub_follow._target(run, "run", "log.txt", False, False) == run.path / "log.txt"
    with pytest.raises(UserError):
        seconds_in("-1h")
