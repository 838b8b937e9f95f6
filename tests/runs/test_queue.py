from __future__ import annotations

import itertools
import os
import threading

import pytest

from iekd.config.run import make_config
from iekd.runs import slots
from iekd.runs.queue import ahead_of, device_turn
from iekd.runs.slots import check_device, device_name
from iekd.runs.status import FINISHED, QUEUED, RUNNING, Status
from iekd.runs.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def queued(store):
    """`queued(created, device)` -> a living run that waits since `created`."""
    handles = []

    def make(created, device="cpu", state=QUEUED, alive=True):
        run, handle = store.create(make_config(device=device))
        run.write_status(Status(state=state, created=created))
        if alive:
            handles.append(handle)
        else:
            os.close(handle)
        return run

    yield make
    for handle in handles:
        os.close(handle)


def never() -> bool:
    return False


def test_earlier_runs_come_first(store, queued):
    second, first, third = queued(2), queued(1), queued(3)
    assert [r.id for r in ahead_of(third, store)] == [first.id, second.id]
    assert [r.id for r in ahead_of(second, store)] == [first.id]
    assert ahead_of(first, store) == []


def test_runs_of_one_moment_have_an_order_too(store, queued):
    a, b = queued(1), queued(1)
    assert len(ahead_of(a, store)) + len(ahead_of(b, store)) == 1


def test_only_living_runs_that_wait_for_the_same_device_are_ahead(store, queued):
    queued(1, state=RUNNING)
    queued(1, state=FINISHED)
    queued(1, alive=False)
    queued(1, device="mps")
    assert ahead_of(queued(5), store) == []


def test_a_broken_run_does_not_delay_others(store, queued):
    broken = queued(1)
    (broken.path / "config.json").write_text("{")
    assert ahead_of(queued(5), store) == []


def test_the_device_has_one_user_at_a_time(store, queued):
    first, second = queued(1), queued(2)
    with device_turn(first, store, never) as mine:
        assert mine
        first.write_status(Status(state=RUNNING, created=1))
        asked = iter([False, False, True])
        with device_turn(second, store, lambda: next(asked), poll=0.01) as also_mine:
            assert not also_mine
    with device_turn(second, store, never, poll=0.01) as mine:
        assert mine


def test_other_devices_are_free(store, queued):
    with device_turn(queued(1), store, never) as a, device_turn(queued(2, device="mps"), store, never) as b:
        assert a
        assert b


def test_an_error_gives_the_device_back(store, queued):
    run = queued(1)
    with pytest.raises(KeyError), device_turn(run, store, never):
        raise KeyError
    with device_turn(run, store, never, poll=0.01) as mine:
        assert mine


def test_turns_come_in_order(store, queued):
    runs, order = [queued(i) for i in (3, 1, 2)], []

    polls = itertools.count()  # so that a queue that blocks for ever fails instead of hanging

    def work(run):
        with device_turn(run, store, lambda: next(polls) > 20_000, poll=0.01) as mine:
            assert mine
            order.append(run.status.created)
            run.write_status(Status(state=FINISHED, created=run.status.created))

    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == [1, 2, 3]


def test_a_device_that_is_not_here_is_refused_before_there_is_a_run(monkeypatch, tmp_path, refuses):
    monkeypatch.setattr(slots, "DRIVERS", ())
    monkeypatch.setattr(slots.platform, "system", lambda: "Linux")
    for name in ("cuda", "mps"):
        refuses(lambda name=name: check_device(name), name, "auto", "cpu")
    for name in ("auto", "cpu"):
        check_device(name)
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(slots, "DRIVERS", (str(tmp_path / "nvidiactl"),))
    check_device("cuda")
    refuses(lambda: check_device("mps"), "mps")


@pytest.mark.parametrize("name", ["cpu", "cuda", "mps"])
def test_a_named_device_is_itself(name):
    assert device_name(name) == name


def test_the_automatic_device_is_one_of_the_three():
    assert device_name("auto") in ("cpu", "cuda", "mps")
