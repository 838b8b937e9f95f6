"""The measurement behind the page's estimate: in the background, once, and never beside a run."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from iekd.config.run import make_config
from iekd.estimate.speeds import Speeds
from iekd.runs import probes
from iekd.runs.estimate import estimate
from iekd.runs.probes import IRRELEVANT, Probes
from iekd.runs.queue import slot_lock
from iekd.runs.slots import Slot
from iekd.runs.store import Store

SPEEDS = Speeds("cpu", "fp32", 1e-3, 2e-3, 5e-4, 6e-3)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def config(tiny_config):
    return lambda **values: tiny_config(**{"batch_size": 8, **values})


@pytest.fixture
def started(monkeypatch):
    """Processes that would have been started, instead of starting them."""
    commands = []

    class Recorded:
        def __init__(self, command, **options):
            commands.append(command)
            self.kept = os.dup(options["pass_fds"][0])  # the process holds the lock

    monkeypatch.setattr(probes.subprocess, "Popen", Recorded)
    return commands


def measuring(asked: Probes) -> bool:
    """Whether a measurement is under way, of any configuration."""
    with open(asked.folder / "lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_measurement_ends_with_speeds(store, config):
    asked = Probes(store)
    assert asked.known(config()) is None
    assert asked.ask(config())
    deadline = time.monotonic() + 120
    while measuring(asked) and time.monotonic() < deadline:
        time.sleep(0.2)
    found = asked.known(config())
    assert found is not None, (store.root / ".speeds" / "log.txt").read_text()
    assert found.device == "cpu"
    assert not asked.ask(config()), "it is known now"


def test_what_cannot_matter_is_not_measured_again(store, config, started):
    known = Probes(store)
    known.folder.mkdir()
    probes.write_json(known._result(config()), SPEEDS.to_json())
    assert known.known(config(epochs=99, lr=0.5, seeds=(5,), name="another")) == SPEEDS
    assert not known.ask(config(epochs=99))
    assert not started
    for other in ({"batch_size": 16}, {"seeds": (0, 1)}, {"student": "resnet14"}, {"methods": ("baseline",)}):
        assert known.known(config(**other)) is None


def test_what_was_measured_on_a_busy_machine_says_so_and_is_measured_again(store, config, started, monkeypatch):
    known, wanted = Probes(store), config(dataset="fashion-mnist-sample")
    known.folder.mkdir()
    result = known._result(wanted)
    probes.write_json(result, {**SPEEDS.to_json(), probes.OTHERS: 0.9})
    assert known.known(wanted) == SPEEDS
    assert "other programs" in estimate(wanted, store, True).basis
    assert not known.ask(wanted), "not at once"
    os.utime(result, (time.time() - 2 * probes.AGAIN,) * 2)
    assert known.ask(wanted)
    assert known.known(wanted) == SPEEDS, "until there is a better one"
    monkeypatch.setattr("sys.argv", ["probes", *started[0][3:]])
    monkeypatch.setattr(probes.os, "nice", lambda by: by)
    monkeypatch.setattr(probes.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    monkeypatch.setattr("iekd.estimate.probe.probe", lambda config: replace(SPEEDS, together=1e-3))
    for others, basis in ((0.9, "other programs"), (0.0, "measured on this machine")):
        monkeypatch.setattr("iekd.engine.threads.Load", lambda others=others: lambda: others)
        assert probes.main() == 0
        assert known.known(wanted).together == 1e-3
        assert estimate(wanted, store, True).basis.endswith(basis if others == 0 else f"{basis} used it")
    os.utime(result, (time.time() - 2 * probes.AGAIN,) * 2)
    assert not known.ask(wanted)


def test_another_machine_is_measured_again(store, config, monkeypatch):
    known = Probes(store)
    known.folder.mkdir()
    probes.write_json(known._result(config()), SPEEDS.to_json())
    monkeypatch.setattr(probes.platform, "node", lambda: "elsewhere")
    assert known.known(config()) is None


def test_what_was_measured_before_is_still_known():
    """The settings of commit 84ff71c, where these were listed by hand; later ones may be either."""
    without = {
        "name", "epochs", "seeds", "lr", "momentum", "weight_decay", "nesterov", "schedule", "milestones",
        "inheritance_weight", "exploration_weight", "weight_schedule", "temperature", "kd_weight", "attention_weight",
        "factor_weight", "overhaul_weight", "mutual_weight", "dkd_target_weight", "dkd_other_weight", "dist_weight",
        "auto_encoder_epochs", "teacher_epochs", "teacher_from", "teacher_mean", "teacher_std", "limit_train",
        "validation_fraction", "test_fraction", "data_seed",
    }  # fmt: skip
    within = {
        "dataset", "teacher", "student", "methods", "batch_size", "inheritance_share", "channel_split", "distance",
        "ie_stages", "auto_encoder", "peer", "resolution", "augmentation", "cutout", "device", "precision",
        "image_memory", "eager", "graph", "stack", "compile",
    }  # fmt: skip
    assert without <= IRRELEVANT
    assert not within & IRRELEVANT


def test_one_measurement_at_a_time(store, config, started):
    asked = Probes(store)
    assert asked.ask(config())
    assert asked.ask(config(student="resnet14")), "under way, of another configuration"
    assert measuring(asked)
    assert len(started) == 1


def test_nothing_is_measured_beside_a_run(store, config, started):
    with open(slot_lock(Slot("cpu"), store), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not Probes(store).ask(config())
    assert not started
    assert Probes(store).ask(config())


def test_what_may_not_fit_into_memory_is_not_tried(store, config, started, monkeypatch):
    monkeypatch.setattr(probes, "free_memory", lambda: 1e8)
    assert not Probes(store).ask(config())
    monkeypatch.setattr(probes, "free_memory", lambda: 100e9)
    assert not Probes(store).ask(config(batch_size=65_536, resolution=512)), "hundreds of GB"
    assert not started


def test_a_process_that_was_killed_is_not_started_again(store, config, tmp_path, monkeypatch):
    """What it leaves says that it failed."""
    request, result = tmp_path / "request.json", Probes(store)._result(config())
    result.parent.mkdir()
    probes.write_json(request, config().model_dump(mode="json"))
    monkeypatch.setattr(probes.sys, "argv", ["probes", str(store.root), str(request), str(result)])
    monkeypatch.setattr(probes.os, "nice", lambda _: 0)
    monkeypatch.setattr(probes, "_give_way", lambda *_: None)

    def killed(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("iekd.estimate.probe.probe", killed)
    with pytest.raises(KeyboardInterrupt):
        probes.main()
    assert not Probes(store).ask(config())
    assert Probes(store).known(config()) is None


def test_it_can_be_switched_off(store, config, started, monkeypatch):
    monkeypatch.setenv("IEKD_PROBE", "0")
    assert not Probes(store).ask(config())
    assert not started


@pytest.mark.parametrize("content", ['{"failed": "out of memory"}', '{"device": "cpu"}'])
def test_what_failed_or_is_of_another_version_is_left_alone(store, config, started, content):
    asked = Probes(store)
    asked.folder.mkdir()
    asked._result(config()).write_text(content)
    assert asked.known(config()) is None
    assert not asked.ask(config())


def test_a_measurement_gives_way_to_a_run(store, config, monkeypatch):
    """It looks for one twice a second, and leaves without a result."""

    class LeftError(Exception):
        pass

    def leave(code):
        raise LeftError

    monkeypatch.setattr(probes.os, "_exit", leave)
    result = store.root / "result.json"
    with open(slot_lock(Slot("cpu"), store), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LeftError):
            probes._give_way(config(), store, result)
    assert not result.exists()
    monkeypatch.setattr(probes, "LONGEST", 0.0)
    with pytest.raises(LeftError):
        probes._give_way(config(), store, result)
    assert "failed" in json.loads(result.read_text()), "not tried for ever"


def test_a_configuration_that_cannot_be_measured_is_not_asked_for_again(store, tmp_path, monkeypatch):
    request, result = tmp_path / "request.json", tmp_path / "result.json"
    config = make_config(device="cuda", dataset="cifar10")
    probes.write_json(request, config.model_dump(mode="json"))
    monkeypatch.setattr(probes.sys, "argv", ["probes", str(store.root), str(request), str(result)])
    monkeypatch.setattr(probes.os, "nice", lambda _: 0)
    monkeypatch.setattr(probes, "_give_way", lambda *_: None)
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    assert probes.main() == 0
    assert "cuda" in json.loads(result.read_text())["failed"]
