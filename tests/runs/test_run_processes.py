"""Runs that several processes of this machine train: stopped, resumed by another number of them, and broken in the
middle. Each of these tests starts a second process, which takes seconds."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from iekd import data
from iekd.cli.main import app
from iekd.cli.train import torchrun_place
from iekd.config import methods
from iekd.config.methods import MethodSpec
from iekd.engine.parallel import Processes
from iekd.models.artifact import ModelCard, save_model
from iekd.models.registry import build
from iekd.paths import checkpoints_dir, python_path
from iekd.runs import processes, worker
from iekd.runs.processes import Place, check_processes, nproc, place_here
from iekd.runs.queue import several_slots, slot_lock
from iekd.runs.slots import Slot
from iekd.runs.status import FAILED, FINISHED, LOST, STOPPED
from iekd.runs.status_writer import StatusWriter
from iekd.runs.store import Store
from iekd.runs.teachers import as_heard, as_told, teacher_folder
from iekd.runs.variables import NPROC
from iekd.runs.worker import execute

pytestmark = pytest.mark.usefixtures("checkpoints_everywhere")
EQUAL = 1e-5
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def never() -> bool:
    return False


@pytest.fixture
def config(tiny_config):
    """Four epochs of three steps, after a teacher and an auto-encoder; rounding stays rounding with so low a rate."""
    return lambda **values: tiny_config(**{
        "methods": ("baseline", "ie-ft"), "epochs": 4, "threads": 1, "lr": 1e-4, "inheritance_weight": 5.0,
        "exploration_weight": 0.5, **values,
    })  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setenv(NPROC, "2")


def train(run, handle, stop_after=None):
    """One attempt in this process, asked to stop once a row of the students after that step is written."""
    seen = []

    def watch(status, row):
        if row and row["stage"] == "students" and stop_after is not None and row["step"] >= stop_after:
            seen.append(row["step"])

    try:
        return execute(run, lambda: bool(seen), watch)
    finally:
        os.close(handle)


def followers() -> list[psutil.Process]:
    """Processes that this one, or one of its children, has started to train along."""
    return [p for p in psutil.Process().children(recursive=True) if follows(p)]


def follows(process: psutil.Process) -> bool:
    try:
        return "iekd.runs.follower" in process.cmdline()
    except psutil.Error:  # it has ended
        return False


def final_states(run) -> list[str]:
    events = [json.loads(line)["event"] for line in (run.path / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event in (FINISHED, STOPPED, FAILED)]


def assert_same(run, whole):
    """Of runs that one process and several have trained."""
    assert run.status.state == FINISHED, run.log_tail(40)
    for name, folder in whole.model_folders.items():
        found = load_file(run.model_folders[name] / "model.safetensors")
        for key, wanted in load_file(folder / "model.safetensors").items():
            torch.testing.assert_close(found[key], wanted, rtol=EQUAL, atol=EQUAL, msg=f"{name}: {key}")
    rows, wanted = ([(r["learner"], r["kind"], r["step"]) for r in one.metrics()[0]] for one in (run, whole))
    assert rows == wanted
    answers, known = (list(csv.reader((one.path / "answers.csv").open())) for one in (run, whole))
    assert len(answers) == 61
    assert [row[:2] for row in answers] == [row[:2] for row in known]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_config):
    """The run of `config`, trained by one process."""
    store = Store(tmp_path_factory.mktemp("whole"))
    run, handle = store.create(tiny_config(
        methods=("baseline", "ie-ft"), epochs=4, threads=1, lr=1e-4, inheritance_weight=5.0, exploration_weight=0.5
    ))  # fmt: skip
    train(run, handle)
    assert run.status.state == FINISHED
    return run


def test_two_processes_stop_and_one_goes_on(store, config, whole, two, monkeypatch):
    run, handle = store.create(config())
    status = train(run, handle, stop_after=6)
    assert status.state == STOPPED, run.log_tail(40)
    assert final_states(run) == [STOPPED]
    assert not followers()
    assert "2 processes share each batch" in (run.path / "log.txt").read_text()
    assert run.model_folders.keys() == whole.model_folders.keys()
    monkeypatch.setenv(NPROC, "1")
    handle = run.reopen()
    train(run, handle)
    assert "Continuing after step" in (run.path / "log.txt").read_text()
    assert_same(run, whole)
    assert final_states(run) == [STOPPED, FINISHED]


def by_command(store, *words):
    """What `iekd` prints."""
    done = subprocess.run(
        [sys.executable, *words, "--runs-dir", str(store.root)], capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": python_path(), "GLOO_SOCKET_IFNAME": "lo"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + "".join(run.log_tail(60) for run in store.list())
    return done.stdout


WITH_TORCHRUN = [
    "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", "0",
    "--rdzv-endpoint", "127.0.0.1:0", "--rdzv-backend", "c10d", "--local-addr", "127.0.0.1",
]  # fmt: skip


def test_one_process_stops_and_torchrun_goes_on(store, config, whole, tmp_path):
    run, handle = store.create(config())
    assert train(run, handle, stop_after=6).state == STOPPED
    said = by_command(store, *WITH_TORCHRUN, "-m", "iekd", "runs", "resume", run.id)
    assert said.count("is finished") == 1, "the second process prints nothing"
    assert_same(run, whole)
    assert final_states(run) == [STOPPED, FINISHED]


@pytest.mark.parametrize("torchrun", [False, True])
def test_two_processes_train_by_command_from_files(store, config, whole, torchrun):
    """Each has processes of its own that read its part of the images."""
    wanted = json.loads(config(image_memory=0).model_dump_json())
    given = config().model_fields_set | {"image_memory"}
    words = [word for name in given for word in as_options(name, wanted[name])]
    start = WITH_TORCHRUN if torchrun else []
    said = by_command(store, *start, "-m", "iekd", "train", *words, *([] if torchrun else ["--nproc", "2"]))
    (run,) = store.list()
    assert said.count("is finished") == 1
    told = (run.path / "log.txt").read_text()
    assert "2 processes share each batch" in told
    assert "streamed" in told
    assert_same(run, whole)


def test_torchrun_is_ended_from_outside(store, config, wait_until):
    """As a cluster does that needs its machines back: the run is stopped, and can be resumed."""
    values = config(epochs=4000, methods=("baseline",), teacher="none")
    stored = json.loads(values.model_dump_json())
    words = [word for name in values.model_fields_set for word in as_options(name, stored[name])]
    agent = subprocess.Popen(
        [sys.executable, *WITH_TORCHRUN, "-m", "iekd", "train", *words, "--runs-dir", str(store.root)],
        env={**os.environ, "PYTHONPATH": python_path(), "GLOO_SOCKET_IFNAME": "lo"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: store.list() and len(store.list()[0].metrics()[0]) > 3)
        agent.terminate()
        agent.wait(120)
    finally:
        agent.kill()
    (run,) = store.list()
    wait_until(lambda: not run.alive())
    assert run.status.state == STOPPED, run.log_tail(40)
    assert run.status.resumable
    assert final_states(run) == [STOPPED]


def as_options(name, value):
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, list):
        return [option, ",".join(map(str, value))]
    return [option, str(value)]


def test_norms_of_their_own_go_on_as_they_were(store, config, two):
    """Without --sync-bn no other number of processes has the same result, but the same number does."""
    runs = []
    for stop_after in (None, 3):
        run, handle = store.create(config(epochs=2, sync_bn=False))
        train(run, handle, stop_after)
        if stop_after:
            assert run.status.state == STOPPED
            train(run, run.reopen())
        assert run.status.state == FINISHED, run.log_tail(40)
        runs.append(run)
    for name, folder in runs[0].model_folders.items():
        found = load_file(runs[1].model_folders[name] / "model.safetensors")
        for key, wanted in load_file(folder / "model.safetensors").items():
            assert torch.equal(found[key], wanted), (name, key)


def test_the_others_take_the_teacher_that_the_worker_has_found_or_not(store, config, two, monkeypatch):
    """Another run may save the teacher after the worker has looked, and before the others do."""
    run, handle = store.create(config(epochs=1))
    folder = teacher_folder(run.config, store.root)
    dataset = data.load(run.config.dataset, resolution=run.config.resolution)
    card = ModelCard(
        model="resnet8", datasets=(run.config.dataset,), class_names=dataset.class_names, channels=3, resolution=16,
        mean=dataset.statistics[0], std=dataset.statistics[1], accuracy=50.0, params=1,
    )  # fmt: skip
    save_model(folder, build("resnet8", 3), card)
    monkeypatch.setattr("iekd.runs.training.find_teacher", lambda config, runs_dir: None)  # in the worker only
    train(run, handle)
    assert run.status.state == FINISHED, run.log_tail(40)
    assert "teacher" in {row["stage"] for row in run.metrics()[0]}


def test_a_teacher_is_named_to_the_other_processes(tmp_path, monkeypatch, tiny_config):
    """A shipped one by its name: the program may lie elsewhere on their machines."""
    monkeypatch.chdir(tmp_path)
    of_run = tiny_config(), tmp_path
    assert as_heard(as_told(None), *of_run) is None
    assert as_heard(as_told(Path("runs/teachers/a")), *of_run) == tmp_path.resolve() / "runs/teachers/a"
    told = as_told(checkpoints_dir() / "resnet56")
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(tmp_path / "elsewhere"))
    assert as_heard(told, *of_run) == tmp_path / "elsewhere" / "resnet56"


def test_a_process_that_dies_fails_the_run_which_can_be_resumed(store, config, two):
    run, handle = store.create(config(epochs=40, methods=("baseline",), teacher="none"))
    killed = []

    def watch(status, row):
        if row and row["step"] >= 6 and not killed:
            (one,) = followers()
            one.kill()
            killed.append(one)

    try:
        status = execute(run, never, watch)
    finally:
        os.close(handle)
    assert status.state == FAILED
    assert "Process 1 of 2 was ended by SIGKILL" in status.error
    assert final_states(run) == [FAILED]
    assert run.status.resumable
    assert not followers()


def test_nobody_outlives_a_worker_that_is_killed(launcher, config, two, wait_until):
    run = launcher.store.get(launcher.submit(config(epochs=400, methods=("baseline",), teacher="none")))
    wait_until(lambda: len(run.metrics()[0]) > 3)
    assert run.status.live, run.log_tail(40)
    first = psutil.Process(run.status.pid)
    (other,) = filter(follows, first.children())
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(other.pid) or other.status() == psutil.STATUS_ZOMBIE, limit=60)
    assert run.status.state == LOST


def test_a_stop_while_the_others_are_still_loading(store, config, two):
    """Nothing of torch is connected yet."""
    run, handle = store.create(config(epochs=40, methods=("baseline",), teacher="none"))
    try:
        status = execute(run, lambda: bool(followers()))
    finally:
        os.close(handle)
    assert status.state == STOPPED
    assert not followers()
    assert final_states(run) == [STOPPED]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells which signals a process ignores")
def test_a_signal_that_comes_before_it_is_ignored_ends_no_process(store, config, tmp_path):
    """A terminal sends Ctrl-C to all of its processes, also to one that was started a moment ago; only the worker is to
    act on it. SIGTERM here, because a suite in the background, and what it starts, ignores SIGINT."""
    run, handle = store.create(config(epochs=1, methods=("baseline",), teacher="none"))
    child = processes._start(run, 1, 2, tmp_path, "")
    try:
        child.send_signal(signal.SIGTERM)

        def ignores() -> bool:
            (line,) = [one for one in Path(f"/proc/{child.pid}/status").read_text().splitlines() if "SigIgn" in one]
            return bool(int(line.split()[1], 16) & 1 << signal.SIGTERM - 1)

        deadline = time.monotonic() + 120
        while child.poll() is None and not ignores() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert child.poll() is None, run.log_tail()
        assert ignores()
    finally:
        child.kill()
        child.wait()
        os.close(handle)


def test_ctrl_c_while_the_others_still_start(launcher, config, two, wait_until):
    """A terminal sends it to all of its processes."""
    run = launcher.store.get(launcher.submit(config(epochs=400, methods=("baseline",), teacher="none")))
    wait_until(lambda: run.status.pid and any(map(follows, psutil.Process(run.status.pid).children())))
    os.killpg(run.status.pid, signal.SIGINT)
    wait_until(lambda: not run.alive())
    assert run.status.state == STOPPED, run.log_tail(40)


@pytest.mark.parametrize(
    ("given", "words"), [("0", "1 to 1,024"), ("-1", "1 to 1,024"), ("5000", "1 to 1,024"), ("two", "'two'")]
)
def test_a_number_of_processes_that_cannot_be(monkeypatch, refuses, given, words):
    monkeypatch.setenv(NPROC, given)
    refuses(nproc, given, words, "--nproc")


def test_what_several_processes_cannot_train_is_said_before_the_start(tiny_config, monkeypatch, refuses):
    check_processes(tiny_config(), 2)
    check_processes(tiny_config(batch_size=3), 1)
    refuses(lambda: check_processes(tiny_config(batch_size=3), 4), "Batch size '3'", "4 processes", "4 or more")
    refuses(lambda: check_processes(tiny_config(batch_size=7, sync_bn=False), 4), "two images", "8 or more")
    spec = MethodSpec("whole-batch", "a plugin's, of which nothing is known", ("#111111", "#eeeeee"))
    monkeypatch.setitem(methods.METHODS, spec.name, spec)
    refuses(lambda: check_processes(tiny_config(methods=("whole-batch",)), 2), "'whole-batch'", "baseline, kd")
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    refuses(lambda: check_processes(tiny_config(), 2), "without gloo", "one process")


def test_there_is_a_gpu_for_each_process(tiny_config, monkeypatch, refuses):
    cuda = tiny_config().model_copy(update={"device": "cuda"})
    monkeypatch.setattr(processes, "slots", lambda device: (Slot("cuda", 0), Slot("cuda", 1)))
    refuses(lambda: check_processes(cuda, 4), "4 processes need 4 GPUs", "there are 2 here")
    refuses(lambda: check_processes(cuda, 8, Place(0, 8, 0, 4)), "4 processes need 4 GPUs")
    monkeypatch.setattr(processes, "slots", lambda device: (Slot("cuda", 1),))
    second = cuda.model_copy(update={"device": "cuda:1"})
    refuses(lambda: check_processes(second, 2), "there is 1 here", "'cuda:1' is one")
    monkeypatch.setattr(processes, "device_name", lambda device: "mps")
    refuses(lambda: check_processes(cuda, 2), "Apple", "--device cpu")


@pytest.mark.parametrize("by_torchrun", [False, True])
def test_each_process_computes_on_its_gpu(tiny_config, monkeypatch, by_torchrun):
    """Those that the worker starts see one GPU each, and torchrun's all of them. CUDA is faked up to its last call."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if by_torchrun else 1)
    chosen = []
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)
    monkeypatch.setattr(torch.cuda, "_check_stray_context", lambda *_: None, raising=False)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    device = processes.Team(Place(1, 2, 1, 2), None, by_torchrun).device(tiny_config(device="auto"))
    Processes.join(None, 1, 2, torch.device(device))
    assert chosen == [1 if by_torchrun else 0]


def test_several_gpus_are_taken_at_once_or_not_at_all(store, tiny_config, monkeypatch):
    places = tuple(Slot("cuda", i) for i in range(3))
    for module in ("iekd.runs.queue.slots", "iekd.runs.slots.slots"):
        monkeypatch.setattr(module, lambda device: places)
    monkeypatch.setattr("iekd.runs.queue.check_device", lambda device: None)
    run, handle = store.create(tiny_config().model_copy(update={"device": "cuda"}))
    said, asked = [], []

    def take(count, stop=never):
        return several_slots(run, store, stop, count, said.append, lambda: True, poll=0.01)

    with take(2) as first:
        assert [slot.index for slot in first] == [0, 1]
        with take(2, stop=lambda: len(asked) > 3 or asked.append(1)) as none:
            assert none is None
        with take(1) as third:
            assert [slot.index for slot in third] == [2]
    assert said == ["Waiting for 2 GPUs at once."]
    with take(3) as every:
        assert len(every) == 3
    os.close(handle)
    for place in places:  # they are free again
        with open(slot_lock(place, store)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_place_that_torchrun_gives(monkeypatch, refuses):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    assert place_here() is None
    for name, value in zip(TORCHRUN, ("3", "4", "1", "2", "localhost", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    assert place_here() == Place(3, 4, 1, 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    refuses(place_here, "RANK '3'", "torchrun")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert place_here() is None, "one process of torchrun's trains alone"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nproc", "0"], "'0' processes"),
        (["--nproc", "64", "--batch-size", "32"], "Batch size '32' is too small for 64 processes"),
        (["--nproc", "2", "--devices", "0,1"], "Choose one"),
    ],
)
def test_the_command_says_what_cannot_be(options, words, tmp_path, monkeypatch):
    monkeypatch.setenv(NPROC, "1")
    done = CliRunner().invoke(app, ["train", *options, "--device", "cpu", "--runs-dir", str(tmp_path / "runs")])
    assert done.exit_code == 2
    assert words in done.stderr.replace("\n", " ")
    assert not list(Path(tmp_path).glob("runs/2*"))


@pytest.mark.parametrize(
    ("command", "words"),
    [(["table"], "iekd table"), (["train", "--detach"], "--detach"), (["train", "--nproc", "2"], "--nproc")],
)
def test_what_torchrun_cannot_start(command, words, monkeypatch, tmp_path):
    for name, value in zip(TORCHRUN, ("0", "2", "0", "2", "localhost", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(NPROC, "1")
    done = CliRunner().invoke(app, [*command, "--runs-dir", str(tmp_path)])
    assert (done.exit_code, "torchrun" in done.stderr, words in done.stderr) == (2, True, True)


@pytest.mark.parametrize("torchrun", [False, True])
def test_tasks_of_slurm_that_train_apart_are_warned_of(monkeypatch, capsys, torchrun):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    if torchrun:
        for name, value in zip(TORCHRUN, ("0", "4", "0", "4", "localhost", "29500"), strict=True):
            monkeypatch.setenv(name, value)
    assert (torchrun_place() is not None) == torchrun
    assert ("srun has started 4 processes" in capsys.readouterr().err) == (not torchrun)


def test_processes_with_other_files_are_told(refuses, tmp_path):
    """As on a machine of a cluster with another copy of the images."""
    store = processes.file_store(tmp_path, 2)
    team = processes.Team(Place(0, 2, 0, 2), store)
    store.set("iekd/here/1", json.dumps({"set of images": "b", "machine": "node7"}))
    refuses(lambda: team._compare({"set of images": "a"}, 1, time.time), "Process 1 on node7", "another set of images")
    team.failure = "Process 1 of 2 failed: the disk is full."
    refuses(lambda: team.wait_for("iekd/nothing"), "the disk is full")


def test_a_worker_that_hangs_because_another_is_gone_is_ended(store, tiny_config, tmp_path, monkeypatch):
    """As with NCCL, whose operations wait for ever: a thread leaves the one final state."""
    monkeypatch.setattr(processes, "GRACE", 0.1)
    run, handle = store.create(tiny_config())
    team = processes.Team(Place(0, 2, 0, 2), processes.file_store(tmp_path, 2))
    processes.Team(Place(1, 2, 1, 2), team.store).say_failed("The disk is full.")
    ended = []
    monkeypatch.setattr(worker.os, "_exit", ended.append)
    processes._watch(team, [], partial(worker._abandon, run, StatusWriter(run, run.status, None)))
    os.close(handle)
    assert ended == [1]
    assert run.status.error == team.failure == "Process 1 of 2 failed: The disk is full."
    assert final_states(run) == [FAILED]


def test_a_worker_that_notices_by_itself_is_left_alone(tmp_path):
    team = processes.Team(Place(0, 2, 0, 2), processes.file_store(tmp_path, 2))
    team.left.set()
    processes._watch(team, [], pytest.fail)
