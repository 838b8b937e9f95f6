"""The Ray launcher without Ray: with a stand-in for a cluster's dashboard.

test_ray_job.py has what happens inside the cluster, test_ray.py the same with a real one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from ray_stand_in import Dashboard
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.errors import RunError
from iekd.launchers import ray_cluster
from iekd.launchers.factory import make_launcher
from iekd.paths import python_path
from iekd.runs import grid, lease, worker
from iekd.runs.lease import give_back, holds, take
from iekd.runs.owner import LOCAL, RECORD, record, set_owner
from iekd.runs.status import FAILED, FINISHED, LOST, QUEUED, RUNNING, STOPPED
from iekd.runs.store import NO_LOCKS, Store
from iekd.runs.variables import COPY_TO


@pytest.fixture
def dashboard(monkeypatch):
    monkeypatch.setattr("iekd.launchers.ray.FRESH", 0.0)
    monkeypatch.setattr("iekd.launchers.ray.AGAIN", 0.0)
    made = Dashboard()
    yield made
    made.close()


@pytest.fixture
def config(tiny_config):
    return tiny_config(methods=("baseline",), teacher="none", epochs=1)


def test_a_run_is_a_job_of_the_cluster(dashboard, tmp_path, config, monkeypatch):
    monkeypatch.setenv("IEKD_CHECKPOINT_SECONDS", "7")
    monkeypatch.setenv("IEKD_ADMIN_TOKEN", "secret")
    monkeypatch.setenv("IEKD_NPROC", "4")  # for runs of this machine
    launcher = make_launcher(tmp_path / "my runs", "ray", address=dashboard.address, cpus=2.0)
    run = launcher.store.get(launcher.submit(config, "key"))
    assert launcher.submit(config, "key") == run.id
    ((job, sent),) = dashboard.jobs.items()
    assert run.id in job
    assert f"-m iekd.launchers.ray_job '{run.path}' {job}" in sent["entrypoint"]
    environment = sent["runtime_env"]["env_vars"]
    assert environment["IEKD_CHECKPOINT_SECONDS"] == "7"
    assert "IEKD_NPROC" not in environment
    assert "secret" not in json.dumps(sent), "the dashboard shows it to everybody"
    noted = record(run.path)
    assert (noted["job"], noted["address"], noted["cpus"], noted["gpus"]) == (
        job, f"http://{dashboard.address}", 2.0, 0.0,
    )  # fmt: skip
    plain = make_launcher(tmp_path / "my runs")
    assert plain.status(run.id).state == QUEUED, "also without --launcher and --address"
    dashboard.jobs[job]["status"] = "SUCCEEDED"
    assert plain.status(run.id).state == LOST
    plain.resume(run.id)
    assert (run.owner, run.attempt, record(run.path)["cpus"]) == ("ray", 2, 2.0), "what it had is asked for again"
    assert plain.stop_and_wait(run.id, grace=-1).state == STOPPED
    assert list(dashboard.jobs.values())[-1]["status"] == "STOPPED"


def test_a_job_that_the_cluster_has_forgotten_is_lost(dashboard, tmp_path, config):
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    run_id = launcher.submit(config)
    jobs = dict(dashboard.jobs)
    dashboard.jobs.clear()  # another cluster was started there
    assert launcher.status(run_id).state == LOST
    dashboard.jobs.update(jobs)  # or it was on its way there
    assert launcher.status(run_id).state == QUEUED


def test_a_job_that_was_ended_by_force_has_a_worker_for_a_moment(dashboard, tmp_path, config):
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    run = launcher.store.get(launcher.submit(config))
    token = take(run.path)
    (job,) = dashboard.jobs.values()
    job.update(status="FAILED", end_time=(time.time() - 1) * 1000)
    assert run.alive(), "it may still write; who resumed the run now would disturb both"
    give_back(run.path, token)
    assert not run.alive()
    take(run.path)
    job.update(end_time=(time.time() - lease.GONE - 1) * 1000)
    assert run.status.state == LOST


def test_runs_of_a_cluster_that_does_not_answer_are_shown_as_they_were(dashboard, tmp_path, config, refuses):
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    run_id = launcher.submit(config)
    launcher.store.get(run_id).write_status(replace(launcher.status(run_id), state=RUNNING))
    dashboard.close()
    plain = make_launcher(tmp_path)
    status = plain.status(run_id)
    assert status.state == RUNNING
    assert dashboard.address in status.doubt
    assert "does not answer" in status.doubt
    refuses(lambda: launcher.submit(config), "does not answer", kind=RunError)
    assert launcher.list() == [run_id], "what cannot be handed over is not there"
    assert plain.stop_and_wait(run_id, grace=-1).state == RUNNING
    run = plain.store.get(run_id)
    token = take(run.path)  # as the job does
    plain.give_up(run_id)
    assert (run.status.state, run.owner, holds(run.path, token)) == (LOST, LOCAL, False)


def test_a_stopped_run_stays_the_clusters_if_that_is_away(dashboard, tmp_path, config, refuses):
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    run = launcher.store.get(launcher.submit(config))
    launcher.stop_and_wait(run.id, grace=-1)
    dashboard.close()
    refuses(lambda: make_launcher(tmp_path).resume(run.id), "does not answer", kind=RunError)
    assert (run.owner, run.status.state, run.attempt) == ("ray", STOPPED, 1)


@pytest.mark.parametrize("again", [False, True])
def test_a_job_whose_submission_had_no_answer_writes_nothing(
    dashboard, tmp_path, config, monkeypatch, refuses, again
):  # fmt: skip
    """It has begun: it looked whether the run is its own, and took the folder."""
    monkeypatch.setattr(lease, "GONE", 0.01)
    launcher, found = make_launcher(tmp_path, "ray", address=dashboard.address), dashboard.found
    run = launcher.store.get(launcher.submit(config)) if again else None
    if run:
        launcher.stop_and_wait(run.id, grace=-1)
    tokens = {}

    def no_answer(path, body):
        status, content = found(path, body)
        if body and "submission_id" in body:
            (folder,) = (path.parent for path in tmp_path.glob("*/config.json"))
            assert record(folder)["job"] == body["submission_id"]
            tokens[folder] = take(folder)
            return 0, None
        return status, content

    monkeypatch.setattr(dashboard, "found", no_answer)
    refuses(lambda: launcher.resume(run.id) if again else launcher.submit(config), "does not answer", kind=RunError)
    ((folder, token),) = tokens.items()
    assert not holds(folder, token), "so its worker ends"
    job = list(dashboard.jobs)[-1]
    assert dashboard.jobs[job]["status"] == "STOPPED"
    assert folder.exists() == again
    if again:
        assert (run.status.state, record(folder)["job"] == job) == (FAILED, False)
        assert run.status.resumable


def test_the_page_trains_in_the_cluster(dashboard, tmp_path, tiny_options):
    """The stand-in only keeps the job, so its worker runs here, as on a node that has the same folder."""
    from gradio_client import Client

    def serve(*options):
        return subprocess.Popen(
            [sys.executable, "-m", "iekd", "serve", "--port", "0", "--runs-dir", str(tmp_path), *options], text=True,
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    asked = {**tiny_options, "methods": ["baseline"], "teacher": "none"}
    servers = [serve("--launcher", "ray", "--address", dashboard.address), serve()]
    try:
        first, later = (re.search(r"http://\S+", server.stdout.readline())[0] for server in servers)
        run_id = Client(first, verbose=False).predict(asked, "", api_name="/start")
        ((job, sent),) = dashboard.jobs.items()
        run = Store(tmp_path).get(run_id)
        assert (run.owner, record(run.path)["job"]) == ("ray", job)
        assert str(run.path) in sent["entrypoint"]
        client = Client(later, verbose=False)
        assert client.predict(run_id, api_name="/run_status")["state"] == QUEUED, "it knows the cluster from the run"
        sent["status"] = "RUNNING"
        worker.execute(run, lambda: False)
        assert client.predict(run_id, api_name="/run_status")["state"] == FINISHED
        assert servers[0].poll() is None
    finally:
        for server in servers:
            server.terminate()
            server.wait()
            server.stdout.close()


@pytest.fixture
def training_dashboard(dashboard, tmp_path):
    """Trains what is submitted, one after the other, as a cluster of one node would that has the same folder."""
    over = threading.Event()

    def train():
        while not over.wait(0.05):
            for sent in list(dashboard.jobs.values()):
                if sent["status"] == "PENDING":
                    sent["status"] = "RUNNING"
                    (run,) = (run for run in Store(tmp_path).list() if str(run.path) in sent["entrypoint"])
                    worker.execute(run, lambda: False)
                    sent["status"] = "SUCCEEDED"

    thread = threading.Thread(target=train)
    thread.start()
    yield dashboard
    over.set()
    thread.join()


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        (["train", "--teacher", "none", "--student", "resnet8"], 1),
        (["table", "--pairs", "none:resnet8", "--seeds", "0,1"], 2),
    ],
)
def test_the_commands_train_in_the_cluster(training_dashboard, tmp_path, tiny_options, monkeypatch, words, runs):
    monkeypatch.setenv(COPY_TO, "")  # which the command sets; it is unset afterwards
    copies = tmp_path.parent / f"{tmp_path.name}-copies"
    options = {name: value for name, value in tiny_options.items() if name not in ("teacher", "student", "methods")}
    settings = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    done = CliRunner().invoke(
        app,
        [
            *words, *settings, "--methods", "baseline", "--launcher", "ray", "--address", training_dashboard.address,
            "--runs-dir", str(tmp_path), "--copy-to", str(copies), "--json",
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = [sent["runtime_env"]["env_vars"][COPY_TO] for sent in training_dashboard.jobs.values()]
    assert told == [str(copies)] * runs, "the worker on another node makes the copy"
    assert len(list(copies.rglob("*.zip"))) == runs
    trained = Store(tmp_path).list()
    assert [run.owner for run in trained] == ["ray"] * runs
    assert len(training_dashboard.jobs) == runs
    assert all(run.status.state == FINISHED and run.report["learners"] for run in trained)
    found = json.loads(done.stdout)
    assert found["state"] == FINISHED if words[0] == "train" else found["missing"] == 0


def test_something_else_at_that_port_is_no_reason_to_call_a_run_lost(dashboard, tmp_path, config, monkeypatch, refuses):
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    run_id = launcher.submit(config)
    monkeypatch.setattr(dashboard, "found", lambda path, body: (404, "Not here"))
    assert launcher.status(run_id).state == QUEUED
    assert "no dashboard of Ray" in launcher.status(run_id).doubt
    monkeypatch.setattr(dashboard, "found", lambda path, body: (401, "Unauthorized"))
    refuses(lambda: launcher.submit(config), "RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
    launcher.status(run_id)
    assert dashboard.asked[-1][1] == "Bearer abc"


def test_a_gpu_is_reserved_where_there_are_some(dashboard, tmp_path, config, refuses):
    dashboard.nodes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}]
    anywhere = config.model_copy(update={"device": "auto"})

    def made(**options):
        return make_launcher(tmp_path, "ray", address=dashboard.address, **options)

    assert made().width(config) == 12, "the CPU only"
    assert made(cpus=3.0).width(config) == 3
    assert made().width(anywhere) == 2
    assert made(gpus=0.5).width(anywhere) == 4
    assert made(gpus=0.5, cpus=4.0).width(anywhere) == 2
    run = made(gpus=0.5).submit(anywhere)
    assert record(tmp_path / run)["gpus"] == 0.5
    refuses(lambda: made(gpus=0.5).submit(config), "--gpus 0.5", "--device cpu")
    for cpus in (0.0, -1.0, float("inf"), float("nan")):
        refuses(lambda cpus=cpus: made(cpus=cpus), f"--cpus {cpus:g}", "above 0")


def test_without_ray_its_cluster_is_not_found(tmp_path, config, refuses, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    refuses(lambda: make_launcher(tmp_path, "ray").submit(config), "pip install 'iekd[ray]'", "--address")
    assert make_launcher(tmp_path).list() == []


def test_whoever_resumes_it_here_first_takes_it_from_a_worker_in_the_cluster(dashboard, tmp_path, config, monkeypatch):
    """The worker lives for a moment after the cluster was given up, and writes the state of its own training."""
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    run = launcher.store.get(launcher.submit(config))
    token = take(run.path)
    dashboard.close()
    launcher.give_up(run.id)
    order, sleep = [], time.sleep
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: order.append(("waits", seconds)) or sleep(0))
    local = make_launcher(tmp_path)
    monkeypatch.setattr(local.new, "start", lambda run, handle: order.append(("starts", run.status.attempt)))
    local.resume(run.id)
    (waits, seconds), starts = order
    assert (waits, starts) == ("waits", ("starts", 2))
    assert 0 < seconds <= lease.GONE
    assert not holds(run.path, token)
    assert not (run.path / lease.FILE).exists()


def test_what_was_given_up_long_ago_is_not_waited_for(dashboard, tmp_path, config, monkeypatch):
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    run = launcher.store.get(launcher.submit(config))
    take(run.path)
    dashboard.close()
    launcher.give_up(run.id)
    barred = run.path / lease.FILE
    os.utime(barred, (barred.stat().st_atime, barred.stat().st_mtime - lease.GONE))
    lease.bar(run.path)  # once more says nothing new
    waits = []
    monkeypatch.setattr(lease.time, "sleep", waits.append)
    os.close(run.reopen())
    assert waits == [0.0]


@pytest.mark.parametrize("number", NO_LOCKS)
def test_shared_storage_needs_no_file_locks(dashboard, tmp_path, config, monkeypatch, refuses, number):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    run = launcher.store.get(launcher.submit(config))
    assert run.status.state == QUEUED
    launcher.stop_and_wait(run.id, grace=-1)
    launcher.resume(run.id)
    assert (run.status.state, run.status.attempt) == (QUEUED, 2)
    assert json.loads((run.path / "events.jsonl").read_text().splitlines()[-1])["event"] == "resumed"
    refuses(lambda: make_launcher(tmp_path).submit(config), "without file locks", os.strerror(number), "--runs-dir")
    launcher.stop_and_wait(run.id, grace=-1)
    refuses(lambda: Store(tmp_path).get(run.id).reopen(), "without file locks")


def test_a_run_that_gets_its_job_is_queued_also_without_locks(dashboard, tmp_path, config):
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    run = launcher.store.get(launcher.submit(config))
    set_owner(run.path, "ray")
    assert run.status.state == QUEUED
    noted = run.path / RECORD
    os.utime(noted, (noted.stat().st_atime, noted.stat().st_mtime - 3600))
    assert run.status.state == LOST, "whoever started it is gone"


def test_a_cluster_that_is_silent_delays_no_other(dashboard, tmp_path, config, monkeypatch):
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    silent, fine = (launcher.store.get(launcher.submit(config)) for _ in range(2))
    set_owner(silent.path, **{**record(silent.path), "address": "http://silent"})
    asked, answer, ended = threading.Event(), threading.Event(), ray_cluster.Cluster.ended

    def slow(cluster, job):
        if cluster.address == "http://silent":
            asked.set()
            answer.wait()
            return 0.0
        return ended(cluster, job)

    monkeypatch.setattr(ray_cluster.Cluster, "ended", slow)
    asking = threading.Thread(target=lambda: silent.status, daemon=True)
    asking.start()
    asked.wait()
    found = []
    other = threading.Thread(target=lambda: found.append(fine.status.state), daemon=True)
    other.start()
    other.join(60)
    assert found == [QUEUED], "it waited for the silent one"
    answer.set()
    asking.join()


def test_a_resume_without_an_answer_is_no_new_run_of_a_table(dashboard, tmp_path, config, monkeypatch, refuses):
    launcher = make_launcher(tmp_path, "ray", address=dashboard.address)
    run = launcher.store.get(launcher.submit(config))
    launcher.stop_and_wait(run.id, grace=-1)
    found, lost = dashboard.found, [True]
    monkeypatch.setattr(
        dashboard, "found",
        lambda path, body: (0, None) if body and "submission_id" in body and lost and lost.pop() else found(path, body),
    )  # fmt: skip
    refuses(lambda: grid._submit(config, launcher), "does not answer")
    assert launcher.list() == [run.id]
