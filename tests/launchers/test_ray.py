"""Runs in a real Ray cluster: a head without CPUs and one node with one, all on this machine. See `make test-ray`."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from safetensors.torch import load_file

from iekd.launchers.factory import make_launcher
from iekd.runs.lease import FILE
from iekd.runs.owner import record
from iekd.runs.status import FINISHED, LIVE, QUEUED, RUNNING, STOPPED
from iekd.runs.store import Run, Store

pytest.importorskip("ray", reason="Ray is not installed; 'make test-ray' installs it")

STORE = 100 * 2**20  # bytes of each node's object store
HERE = {"node_ip_address": "127.0.0.2"}  # Ray replaces 127.0.0.1 by an address that others reach
STARTING = 300.0  # seconds, for hangs only


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    # a node that is killed is missed within seconds
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick.items():
            patch.setenv(f"RAY_{name}", str(value))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": True, "dashboard_port": 0, **HERE}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add = lambda: made.add_node(num_cpus=1, object_store_memory=STORE, dashboard_agent_listen_port=0, **HERE)
        made.node = made.add()
        yield made
        made.shutdown()


@pytest.fixture
def made(cluster, tmp_path, wait_until):
    """`made()`: a launcher as a server would have it; all share a folder of runs."""
    address = cluster.head_node.webui_url
    first = make_launcher(tmp_path / "runs", "ray", address=address)
    yield lambda: make_launcher(tmp_path / "runs", "ray", address=address)
    for run in first.store.list():
        if run.alive():
            first.new.kill(run)
            wait_until(lambda run=run: not run.alive())


@pytest.fixture
def config(tiny_config):
    return lambda epochs, **values: tiny_config(
        **{"methods": ("baseline",), "teacher": "none", "epochs": epochs, "threads": 1, **values}
    )


def events(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


def learning(run: Run) -> bool:
    assert run.status.state in LIVE, run.log_tail(40)
    return run.status.state == RUNNING and bool(run.metrics()[0])


def rows(run: Run) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "time"} for row in run.metrics()[0]]


def assert_equal(run: Run, whole: Run) -> None:
    assert run.status.state == FINISHED, run.log_tail(40)
    assert rows(run) == rows(whole)
    for name, folder in whole.model_folders.items():
        expected = load_file(folder / "model.safetensors")
        found = load_file(run.model_folders[name] / "model.safetensors")
        assert all((expected[key] == found[key]).all() for key in expected), name
    assert run.report["learners"] == whole.report["learners"]


def test_a_run_is_trained_by_the_cluster(made, config, complete, tmp_path, wait_until):
    wanted = config(2, teacher="resnet8", methods=("baseline", "ie-ft"))
    run = made().store.get(made().submit(wanted))
    wait_until(lambda: not run.alive(), STARTING)
    whole, _ = complete(Store(tmp_path / "alone"), wanted)
    assert_equal(run, whole)
    found = made()
    assert found.status(run.id).state == FINISHED
    assert "The run is finished." in found.logs(run.id)[0]
    told = [event["event"] for event in events(run)]
    assert [told.count(name) for name in ("queued", "placed", "running", "finished")] == [1, 1, 1, 1]
    assert not (run.path / FILE).exists()


def test_runs_wait_stop_and_go_on(made, config, wait_until):
    """Each step with another launcher, as after a restart of the server; one of them knows no address."""
    long = config(10_000)
    first = made().store.get(made().submit(long))
    wait_until(lambda: learning(first), STARTING)
    second = made().store.get(made().submit(long))
    wait_until(lambda: second.status.waiting, STARTING)
    assert second.status.state == QUEUED
    assert second.status.waiting == "Waiting for 1 CPU in the Ray cluster."
    began = time.monotonic()
    status = made().stop_and_wait(second.id)
    assert (status.state, status.error, second.status.pid) == (STOPPED, None, None)
    assert time.monotonic() - began < 20
    plain = make_launcher(first.path.parent)
    assert plain.stop_and_wait(first.id).state == STOPPED
    assert first.status.error is None, "it stopped by itself"
    assert first.model_folders, "and saved its students"
    learned = len(first.metrics()[0])
    plain.resume(first.id)
    wait_until(lambda: learning(first) and len(first.metrics()[0]) > learned, STARTING)
    assert (first.owner, first.attempt) == ("ray", 2)
    os.kill(first.status.pid, signal.SIGSTOP)  # it neither reads requests nor ends
    status = plain.stop_and_wait(first.id, grace=1.0)
    assert status.state == STOPPED
    assert "did not stop by itself" in status.error
    assert [event["event"] for event in events(first)].count(STOPPED) == 2, "one for each attempt"


def test_a_node_that_dies_is_replaced_bit_for_bit(made, cluster, config, complete, tmp_path, wait_until, monkeypatch):
    monkeypatch.setenv("IEKD_CHECKPOINT_SECONDS", "0")
    wanted = config(80, teacher="resnet8", methods=("baseline", "ie-ft"))
    run = made().store.get(made().submit(wanted))
    wait_until(lambda: learning(run) and list((run.path / "checkpoints").glob("students-*")), STARTING)
    before, pid = run.status, run.status.pid
    cluster.remove_node(cluster.node, allow_graceful=False)
    wait_until(lambda: run.status.attempt == 2, STARTING)
    assert made().status(run.id).state == QUEUED, "it waits for another node, and nobody may resume it"
    wait_until(lambda: run.status.waiting, STARTING)
    assert "no node has so much now" in run.status.waiting
    assert not os.path.exists(f"/proc/{pid}"), "its worker went with its node"
    cluster.node = cluster.add()
    wait_until(lambda: not run.alive(), STARTING)
    whole, _ = complete(Store(tmp_path / "alone"), wanted)
    assert_equal(run, whole)
    told = events(run)
    assert [event["attempt"] for event in told if event["event"] == "retried"] == [2]
    assert len({event["ray_node"] for event in told if event["event"] == "placed"}) == 2
    assert [event["event"] for event in told].count(FINISHED) == 1
    assert 0 < before.progress < 1, "it was in the middle"


def test_a_job_that_is_stopped_in_the_dashboard_can_be_resumed(made, cluster, config, wait_until):
    from ray.job_submission import JobSubmissionClient

    run = made().store.get(made().submit(config(10_000)))
    wait_until(lambda: learning(run), STARTING)
    assert JobSubmissionClient(f"http://{cluster.head_node.webui_url}").stop_job(record(run.path)["job"])
    wait_until(lambda: not run.alive(), STARTING)
    assert (run.status.state, run.status.error) == (STOPPED, "Its job in the Ray cluster was stopped.")
    made().resume(run.id)
    wait_until(lambda: learning(run), STARTING)
    assert run.status.attempt == 2
    assert made().stop_and_wait(run.id).state == STOPPED


def test_a_table_is_trained_as_wide_as_the_cluster(made, config):
    from iekd.runs import grid

    wanted, width, seen = config(1, teacher="resnet8", methods=("ie-ft",)), made().width(config(1)), []
    assert width == 1
    cells = grid.cells([("resnet8", "resnet8")], wanted.model_copy(update={"seeds": (0, 1)}), together=False)
    done = grid.run_grid_at_once(cells, made(), 2, lambda: False, lambda runs: seen.append(len(runs)))
    assert [cell.state for cell in done] == [FINISHED, FINISHED]
    sources = [cell.report["teacher"]["from"] for cell in done]
    assert len(set(sources)) == 2, f"the second found the teacher that the first had trained: {sources}"


def test_two_runs_share_a_gpu(cluster, config, tmp_path, wait_until):
    """Ray takes a node's word for its GPUs; the runs find none and train on the CPU."""
    launcher = make_launcher(tmp_path / "runs", "ray", address=cluster.head_node.webui_url, cpus=0.5, gpus=0.5)
    node = cluster.add_node(
        num_cpus=2, num_gpus=1, object_store_memory=STORE, dashboard_agent_listen_port=0, **HERE
    )  # fmt: skip
    long = config(10_000, device="auto")
    wait_until(lambda: launcher.width(long) == 2, STARTING)
    first, second, third = (launcher.store.get(launcher.submit(long)) for _ in range(3))
    wait_until(lambda: sum(map(learning, filter(lambda run: run.status.pid, (first, second, third)))) == 2, STARTING)
    (waits,) = (run for run in (first, second, third) if run.status.pid is None)
    wait_until(lambda: waits.status.waiting, STARTING)
    assert waits.status.waiting == "Waiting for 0.5 CPU and 0.5 GPU in the Ray cluster."
    (one, _) = trains = [run for run in (first, second, third) if run is not waits]
    assert len({event["ray_node"] for run in trains for event in events(run) if event["event"] == "placed"}) == 1
    assert launcher.stop_and_wait(one.id).state == STOPPED
    wait_until(lambda: learning(waits), STARTING)
    for run in (*trains[1:], waits):
        assert launcher.stop_and_wait(run.id).state == STOPPED
    cluster.remove_node(node)


def test_runs_of_a_cluster_that_is_gone_are_shown_as_they_were(made, cluster, config, wait_until):
    """The last test: the cluster is gone."""
    run = made().store.get(made().submit(config(10_000)))
    wait_until(lambda: learning(run), STARTING)
    cluster.shutdown()
    found = make_launcher(run.path.parent)
    assert found.status(run.id).state == RUNNING
    assert "does not answer" in found.status(run.id).doubt
    wait_until(lambda: not os.path.exists(f"/proc/{run.status.pid}"))
    found.give_up(run.id)
    assert found.status(run.id).resumable
