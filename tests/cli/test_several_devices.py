"""`iekd table` and `iekd train --devices` where several runs can train at a time; here at two slots of the CPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from iekd.cli.common import INTERRUPTED
from iekd.cli.main import app
from iekd.cli.messages import say_how_it_ended
from iekd.cli.progress import Board
from iekd.hub_errors import HubError
from iekd.paths import python_path
from iekd.results.predictions import ANSWERS, read_right
from iekd.runs import grid, side_by_side, slots
from iekd.runs.gpus import Gpu
from iekd.runs.owner import set_owner
from iekd.runs.siblings import family_of
from iekd.runs.side_by_side import spread, train_all
from iekd.runs.status import FAILED, FINISHED, LOST, QUEUED, RUNNING, STOPPED, Status
from iekd.runs.store import Store

two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")


@pytest.fixture
def two_slots(monkeypatch):
    monkeypatch.setenv("IEKD_CPU_SLOTS", "2")


@pytest.fixture
def options(tiny_options) -> list[str]:
    return [text for name, value in tiny_options.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def iekd(*words, fails=0):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == fails, done.output
    return done


def learners(report):
    return {(r["method"], r["seed"]): r["accuracy_last"] for r in report["learners"]}


@two_cores
def test_seeds_spread_over_two_slots_are_as_those_of_one_run(two_slots, monkeypatch, options, tmp_path):
    common = [*options, "--methods", "baseline,kd", "--seeds", "0,1", "--json"]
    many = json.loads(iekd("train", *common, "--devices", "auto", "--runs-dir", tmp_path / "many").stdout)
    monkeypatch.delenv("IEKD_CPU_SLOTS")
    one = json.loads(iekd("train", *common, "--runs-dir", tmp_path / "one").stdout)

    assert learners(many) == learners(one)
    assert len(many["runs"]) == 2
    store = Store(tmp_path / "many")
    first, second = map(store.get, many["runs"])
    assert (first.config.seeds, second.config.seeds) == ((0,), (1,))
    # the second waits for the teacher; where the first is over soon after that, it may take the first's
    assert {first.status.slot, second.status.slot} <= {"cpu", "cpu:1"}
    stages = [{row["stage"] for row in run.metrics(0)[0]} for run in (first, second)]
    assert sorted("teacher" in found for found in stages) == [False, True], "one of them trained the teacher"
    whole = read_right(Store(tmp_path / "one").get(one["run"]).path / ANSWERS)
    for run in (first, second):
        part = read_right(run.path / ANSWERS)
        for name in part.right:
            assert (part.right[name] == whole.right[name]).all(), f"other predictions of {name}"
    family = family_of(store, first)
    assert [sibling.pooled for sibling in family.siblings] == [True]
    assert family.note == "", "these seeds were planned from the start: nobody looked at a result before"


MEETING = """
import sys, time, torch
from pathlib import Path
from torch import nn
from iekd.models.features import Features
from iekd.models.registry import register

HERE = Path(__file__).parent

class Net(nn.Module):
    def __init__(self, num_classes, channels, arrived):
        super().__init__()
        self.conv, self.fc, self.arrived = nn.Conv2d(channels, 8, 3, 2, 1), nn.Linear(8, num_classes), arrived

    def forward(self, images):
        if self.training and torch.is_grad_enabled() and "worker" in sys.argv[0] and self.arrived:
            (HERE / self.arrived).touch()
            until = time.monotonic() + 200
            while len(list(HERE.glob("arrived-*"))) < 2:
                if time.monotonic() > until:
                    raise RuntimeError("the other run did not come while this one trained")
                time.sleep(0.02)
            self.arrived = ""
        last = torch.relu(self.conv(images))
        pooled = last.mean((2, 3))
        return Features(self.fc(pooled), (last,), None, pooled)

@register
def first_to_meet(num_classes, channels):
    return Net(num_classes, channels, "arrived-1")

@register
def second_to_meet(num_classes, channels):
    return Net(num_classes, channels, "arrived-2")
"""


@pytest.fixture
def meeting(tmp_path, monkeypatch):
    """Two networks that train on only when the other is in training too: however busy the machine, both overlap."""
    (tmp_path / "plugin").mkdir()
    path = tmp_path / "plugin" / "meeting_nets.py"
    path.write_text(MEETING)
    monkeypatch.setenv("IEKD_PLUGINS", str(path))
    return "first-to-meet", "second-to-meet"


@two_cores
@pytest.mark.usefixtures("two_slots")
def test_a_table_trains_its_cells_at_once(options, tmp_path, meeting):
    pairs = ",".join(f"none:{name}" for name in meeting)
    words = [
        "table", *options[:4], *options[8:], "--pairs", pairs, "--methods", "baseline",
        "--runs-dir", tmp_path / "runs", "--json",
    ]  # fmt: skip
    first = json.loads(iekd(*words).stdout)
    assert first["missing"] == 0
    runs = Store(tmp_path / "runs").list()
    assert {run.status.slot for run in runs} == {"cpu", "cpu:1"}
    begun, ended = ([getattr(run.status, when) for run in runs] for when in ("started", "ended"))
    assert max(begun) < min(ended), "both trained at the same time"
    assert json.loads(iekd(*words).stdout)["missing"] == 0
    assert len(Store(tmp_path / "runs").list()) == 2, "nothing is trained twice"


@two_cores
def test_the_pages_queue_uses_both_slots(tiny_options, tmp_path, meeting):
    from gradio_client import Client

    server = subprocess.Popen(
        [
            sys.executable, "-m", "iekd", "serve", "--port", "0", "--runs-dir", str(tmp_path / "runs"),
            "--cpu-slots", "2",
        ],
        text=True, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        client = Client(re.search(r"http://\S+", server.stdout.readline())[0], verbose=False)
        asked = {**tiny_options, "methods": ["baseline"], "teacher": "none"}
        ids = [client.predict({**asked, "student": name}, name, api_name="/start") for name in meeting]
        runs = [Store(tmp_path / "runs").get(run_id) for run_id in ids]
        while any(run.status.live for run in runs):
            time.sleep(0.1)
        assert [run.status.state for run in runs] == [FINISHED, FINISHED], [run.log_tail() for run in runs]
        assert {run.status.slot for run in runs} == {"cpu", "cpu:1"}
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


# without training


class Quick:
    """A launcher whose runs do as the test says."""

    def __init__(self, store):
        self.store, self.handles, self.asked = store, {}, []

    def submit(self, config, key=None, visitor=""):
        run, self.handles[run.id] = self.store.create(config)
        return run.id

    def resume(self, run_id):
        raise AssertionError(run_id)

    def request_stop(self, run_id):
        self.asked.append(run_id)
        self.end(run_id, STOPPED)

    def end_stuck(self):
        """All of them stop."""

    def end(self, run_id, state=FINISHED):
        self.store.get(run_id).write_status(Status(state=state, created=1))
        os.close(self.handles.pop(run_id))


@pytest.fixture
def quick(tmp_path):
    launcher = Quick(Store(tmp_path))
    yield launcher
    for handle in launcher.handles.values():
        os.close(handle)


def jobs(quick, tiny_config, count):
    def start(seed):
        run = quick.store.get(quick.submit(tiny_config(seeds=(seed,))))
        run.write_status(Status(state=RUNNING if seed < 2 else QUEUED, created=1))
        return run

    return [lambda seed=seed: start(seed) for seed in range(count)]


def test_no_more_runs_than_there_is_room_for(quick, tiny_config):
    seen = []

    def follow(training):
        seen.append(len(training))
        if training:
            quick.end(training[min(training)].id)

    runs = train_all(jobs(quick, tiny_config, 3), quick, 2, lambda: False, follow)
    assert [run.config.seeds for run in runs] == [(0,), (1,), (2,)]
    assert max(seen) == 2
    assert seen[-1] == 0, "a bar that is over is taken away"


def test_a_stop_ends_all_and_starts_no_more(quick, tiny_config):
    asked = []
    runs = train_all(
        jobs(quick, tiny_config, 4), quick, 2, lambda: bool(asked), lambda training: asked.append(len(training))
    )
    assert [run is None for run in runs] == [False, False, True, True]
    assert quick.asked == [run.id for run in runs if run]


def test_one_that_cannot_be_asked_to_stop_keeps_no_other_from_it(quick, tiny_config):
    request, tried, seen = quick.request_stop, [], []

    def once_unreachable(run_id):
        tried.append(run_id)
        if len(tried) == 1:
            raise HubError("The Hub cannot be reached.")
        request(run_id)

    quick.request_stop = once_unreachable
    runs = train_all(
        jobs(quick, tiny_config, 2), quick, 2, lambda: bool(seen), lambda training: seen.append(len(training))
    )
    assert sorted(quick.asked) == sorted(run.id for run in runs)
    assert tried.count(tried[0]) == 2


def test_a_launcher_that_cannot_stop_a_run_which_has_just_ended(quick, tiny_config):
    def too_late(run_id):
        quick.end(run_id)
        quick.store.get("no such run")

    quick.request_stop = too_late
    (run,) = train_all(jobs(quick, tiny_config, 1), quick, 1, iter([False, False, True, True, True]).__next__, len)
    assert run.status.state == FINISHED


@pytest.mark.parametrize("reached", [True, False])
def test_a_place_that_does_not_answer_is_not_waited_for_after_a_stop(
    quick, tiny_config, monkeypatch, caplog, capsys, reached
):
    """Its runs may train for hours; whether they stopped can be asked later."""
    monkeypatch.setattr(side_by_side, "PATIENCE", 0.5)
    why, asked, seen = "The cluster cannot be reached.", [], []
    quick.doubt = lambda run_id: why if seen else ""
    quick.alive = lambda run_id: True
    quick.name = "quick"
    quick.store.owners["quick"] = quick

    def ask(run_id):
        asked.append(run_id)
        if not reached:
            raise HubError("The Hub cannot be reached.")

    def start():
        run = quick.store.get(quick.submit(tiny_config()))
        set_owner(run.path, "quick")
        run.write_status(Status(state=RUNNING, created=1))
        return run

    quick.request_stop = ask
    with Board(Console(stderr=True, width=200), ["the run"]) as board:

        def follow(training):
            board.update(training)
            seen.append(len(training))

        (run,) = train_all([start], quick, 1, lambda: len(seen) > 1, follow)
    assert run.status.state == RUNNING
    assert (len(asked) == 1) is reached
    assert ("It was asked to stop" in caplog.text) is reached
    assert caplog.text.count("The Hub cannot be reached.") == (0 if reached else 1), "said once"
    assert f"'iekd runs show {run.id}'" in caplog.text
    assert capsys.readouterr().err.count(why) == 1
    with pytest.raises(typer.Exit) as left:
        say_how_it_ended(run, False)
    assert left.value.exit_code == INTERRUPTED


def test_a_run_is_waited_for_while_it_may_still_be_copied(quick, tiny_config, monkeypatch):
    """Else a copy that fails after the result would be said by nobody."""
    monkeypatch.setenv("IEKD_COPY_TO", "/some/place")
    seen = []

    def follow(training):
        seen.append(len(training))
        for run in training.values():
            if len(seen) == 1:
                run.write_status(Status(state=FINISHED, created=1))  # its worker goes on
            elif len(seen) == 3:
                run.write_status(Status(state=FINISHED, created=1, copy_error="The disk is full."))
                os.close(quick.handles.pop(run.id))

    (run,) = train_all(jobs(quick, tiny_config, 1), quick, 1, lambda: False, follow)
    assert run.status.copy_error == "The disk is full."


@pytest.mark.parametrize(("state", "code"), [(LOST, 1), (FAILED, 1), (STOPPED, INTERRUPTED), (FINISHED, 0)])
def test_how_a_run_ended_is_said_with_the_reason_and_the_exit_status(quick, tiny_config, capsys, state, code):
    run = quick.store.get(quick.submit(tiny_config()))
    run.write_status(Status(state=RUNNING if state == LOST else state, created=1, error="The node is gone."))
    os.close(quick.handles.pop(run.id))
    assert run.status.state == state
    try:
        say_how_it_ended(run, False)
        found = 0
    except typer.Exit as left:
        found = left.exit_code
    assert found == code
    said = capsys.readouterr()
    assert ("The node is gone." in said.err) is (state in (FAILED, STOPPED))
    assert ("runs resume" in said.out) is (state in (LOST, STOPPED))


def test_another_launchers_cell_is_stopped_by_its_own(quick, tiny_config):
    """A table adopts runs that train elsewhere, such as jobs that a closed terminal has left."""
    run = quick.store.get(quick.submit(tiny_config(methods=("baseline",), teacher="none", seeds=(0,))))
    run.write_status(Status(state=RUNNING, created=1))
    other = Quick(quick.store)
    other.name, other.asked = "other", []
    other.request_stop = lambda run_id: pytest.fail("it is not that one's")
    seen = []
    cells = grid.run_grid_at_once(
        [run.config], other, 1, lambda: bool(seen), lambda training: seen.append(1), stopper=quick
    )
    assert quick.asked == [run.id]
    assert cells[0].state == STOPPED


@pytest.fixture
def three_gpus(monkeypatch):
    for module in (slots, side_by_side):
        monkeypatch.setattr(module, "gpus", lambda: tuple(Gpu(str(i), str(i)) for i in range(3)))
    monkeypatch.setattr(slots, "DRIVERS", ("/dev/null",))  # there is a driver


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("devices", "seeds", "parts"),
    [
        ("auto", 4, [("auto", 0), ("auto", 1), ("auto", 2, 3)]),
        ("auto", 2, [("auto", 0), ("auto", 1)]),
        ("2,0", 4, [("cuda:2", 0, 1), ("cuda:0", 2, 3)]),
        ("0 1 2", 5, [("cuda:0", 0), ("cuda:1", 1, 2), ("cuda:2", 3, 4)]),
    ],
)
def test_blocks_of_seeds(tiny_config, devices, seeds, parts):
    config = tiny_config(device="auto", seeds=tuple(range(seeds)))
    assert [(part.device, *part.seeds) for part in spread(config, devices)] == parts


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("devices", ["0,3", "x", "0,0", "-1,0", ",", "cuda:0,cuda:1"])
def test_devices_that_are_not_there(tiny_config, refuses, devices):
    refuses(lambda: spread(tiny_config(device="auto", seeds=(0, 1)), devices), devices, "0 to 2", "auto")


def test_one_device_is_nothing_to_spread_over(tiny_config, refuses, monkeypatch):
    monkeypatch.delenv("IEKD_CPU_SLOTS", raising=False)
    refuses(lambda: spread(tiny_config(seeds=(0, 1)), "auto"), "auto", "one")
    refuses(lambda: spread(tiny_config(device="auto", seeds=(0, 1)), "0,1"), "0,1", "none")


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("device", ["cpu", "cuda:2", "mps"])
def test_numbers_of_gpus_do_not_go_with_another_device(tiny_config, refuses, device):
    refuses(lambda: spread(tiny_config(device=device, seeds=(0, 1)), "0,1"), "0,1", device, "Leave one")
    assert [part.device for part in spread(tiny_config(device="cuda", seeds=(0, 1)), "0,1")] == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize("command", ["train", "table", "serve"])
def test_no_runs_at_all_cannot_share_the_cpu(command, tmp_path):
    done = iekd(command, "--cpu-slots", 0, "--runs-dir", tmp_path, fails=2)
    assert "'0' runs cannot share the CPU" in done.output
