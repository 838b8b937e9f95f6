"""What a run needs is said before it starts, and one that cannot fit is not begun."""

from __future__ import annotations

import re

import pytest

from iekd import data
from iekd.config.run import make_config
from iekd.data.base import DatasetInfo
from iekd.runs import estimate as estimates
from iekd.runs.estimate import estimate, shortage, wait_for_room
from iekd.runs.prepare import Prepared
from iekd.runs.status import FAILED, FINISHED, STOPPED
from iekd.runs.store import Store

GB = 1e9


def per_image(config):
    return config.batch_size * 0.1 * GB  # 12.8 GB at a batch size of 128


def never():
    return False


def test_the_batch_size_that_is_offered_fits_and_the_next_would_not():
    said = str(shortage(make_config(batch_size=128), per_image, 5 * GB))
    assert "12.8 GB" in said
    assert "5.0 GB" in said
    assert "Batch size 32 fits." in said
    assert "Batch size 64 fits." in str(shortage(make_config(batch_size=100), per_image, 6.4 * GB))


def test_if_no_batch_size_fits_none_is_suggested():
    said = str(shortage(make_config(batch_size=128), per_image, 0.01 * GB))
    assert "Batch size" not in said
    assert "smaller" in said


@pytest.mark.parametrize(
    ("images", "room", "named"),
    # 8 makes ten steps, or 64 does; 16, none or everything fits into memory
    [(130, 1.7, {8}), (1000, 1.7, {16}), (1000, 0.5, set()), (1000, 100.0, {64})],
)
def test_both_warnings_name_one_batch_size(tmp_path, monkeypatch, images, room, named):
    config = make_config(dataset="folder:/x", batch_size=128, device="cpu", validation_fraction=0)
    info = DatasetInfo("folder:/x", "x", images, 500, 2, 3, 32)
    monkeypatch.setattr(estimates, "plan_of", lambda c, *_: type("Plan", (), {"memory": per_image(c)}))
    monkeypatch.setattr(estimates, "expected_seconds", lambda *_: (1.0, 1.0, "a guess"))
    monkeypatch.setattr(estimates, "free_memory", lambda: room * GB)
    said = " ".join(estimate(config, Store(tmp_path), True, info).warnings(Prepared(config, info, None)))
    assert "128 makes" in said
    assert ("of memory" in said) == (room < 12.8)
    assert {int(size) for size in re.findall(r"Batch size (\d+) (?:fits|makes)", said)} - {128} == named
    assert ("does not fit into memory either" in said) == (not named)


def test_what_fits_is_not_mentioned():
    assert shortage(make_config(batch_size=128), per_image, 12.8 * GB) is None


def test_a_run_is_stopped_only_where_not_even_its_least_is_free(monkeypatch, refuses):
    config = make_config(batch_size=128)
    monkeypatch.setattr(estimates.psutil, "swap_memory", lambda: type("Swap", (), {"free": 0}))
    monkeypatch.setattr(estimates, "free_memory", lambda: 12.8 * GB * 0.41)
    wait_for_room(config, per_image, "cpu", never, print)
    monkeypatch.setattr(estimates, "free_memory", lambda: 12.8 * GB * 0.39)
    refuses(lambda: wait_for_room(config, per_image, "cpu", never, print), "12.8 GB", "Batch size 32 fits.")
    monkeypatch.setattr(estimates.psutil, "swap_memory", lambda: type("Swap", (), {"free": GB}))
    wait_for_room(config, per_image, "cpu", never, print)


@pytest.fixture
def gpu(monkeypatch):
    """`gpu(total, *free)`: what a GPU has, and what of it is free at each look, the last for ever."""

    def use(total, *free):
        left = list(free)
        looks = []

        def look():
            looks.append(1)
            return (left.pop(0) if len(left) > 1 else left[0]) * GB, total * GB

        monkeypatch.setattr(estimates, "gpu_memory", look)
        return looks

    return use


def test_on_a_gpu_it_waits_while_others_hold_the_memory(gpu):
    told, looks = [], gpu(24, 1, 1, 1, 2.6)
    wait_for_room(make_config(batch_size=128), per_image, "cuda", never, told.append, poll=0)
    assert len(looks) == 4
    assert len(told) == 1
    assert "12.8 GB" in told[0]
    assert "1.0 GB" in told[0]


def test_a_run_that_waits_for_memory_can_be_stopped(gpu):
    looks = gpu(24, 1)
    asked = iter([False, False, True])
    wait_for_room(make_config(batch_size=128), per_image, "cuda", lambda: next(asked), print, poll=0)
    assert len(looks) == 3


def test_on_a_gpu_that_is_too_small_it_does_not_wait(gpu, refuses):
    gpu(2, 2)
    call = lambda: wait_for_room(make_config(batch_size=128), per_image, "cuda", never, print, poll=0)  # noqa: E731
    refuses(call, "2.0 GB is all that the GPU has", "Batch size 16 fits.")


def test_a_run_that_cannot_fit_fails_before_it_trains(tiny_config, complete, tmp_path, monkeypatch):
    monkeypatch.setattr(estimates, "free_memory", lambda: 1000)
    monkeypatch.setattr(estimates.psutil, "swap_memory", lambda: type("Swap", (), {"free": 0}))
    run, _ = complete(Store(tmp_path), tiny_config(methods=("baseline",), teacher="none"))
    assert run.status.state == FAILED
    assert "of memory" in run.status.error
    assert not (run.path / "metrics.jsonl").exists()
    monkeypatch.undo()


def test_a_run_that_waits_for_memory_says_so_and_then_trains(tiny_config, complete, tmp_path, monkeypatch, gpu):
    gpu(24, 1e-9, 20)
    wait = estimates.wait_for_room
    monkeypatch.setattr(
        "iekd.runs.training.wait_for_room",
        lambda config, needed, device, stop, tell: wait(config, needed, "cuda", stop, tell, poll=0),
    )
    run, _ = complete(Store(tmp_path), tiny_config(methods=("baseline",), teacher="none"))
    assert run.status.state == FINISHED
    assert run.status.waiting == ""
    assert "Waiting for other programs" in (run.path / "log.txt").read_text()


def test_a_run_that_is_stopped_while_it_waits_for_memory_is_stopped(tiny_config, complete, tmp_path, monkeypatch, gpu):
    gpu(24, 1e-9)
    wait, asked = estimates.wait_for_room, []
    monkeypatch.setattr(
        "iekd.runs.training.wait_for_room",
        lambda config, needed, device, stop, tell: wait(config, needed, "cuda", stop, asked.append, poll=0),
    )
    run, _ = complete(Store(tmp_path), tiny_config(methods=("baseline",), teacher="none"), stop=lambda: bool(asked))
    assert run.status.state == STOPPED


def test_the_estimate_warns_where_memory_is_short(tmp_path, monkeypatch):
    config, store = make_config(dataset="fashion-mnist-sample", batch_size=2048, device="cpu"), Store(tmp_path)
    monkeypatch.setattr(estimates, "free_memory", lambda: 500 * GB)
    assert estimate(config, store, True).warning is None
    monkeypatch.setattr(estimates, "free_memory", lambda: 3 * GB)
    found = estimate(config, store, True)
    assert found.memory in found.warning
    size = int(found.warning.split("Batch size ")[1].split()[0])
    smaller = estimate(config.model_copy(update={"batch_size": size}), store, True)
    assert smaller.warning is None
    assert data.describe(config.dataset).classes == 10
