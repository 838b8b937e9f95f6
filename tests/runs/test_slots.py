"""Several GPUs, or a shared CPU: one run at each slot, in the order in which they were asked for."""

from __future__ import annotations

import fcntl
import os
import sys
import types

import pytest

from iekd.config.run import make_config
from iekd.errors import RunError, UserError
from iekd.runs import slots as places
from iekd.runs.gpus import Gpu
from iekd.runs.queue import ahead_of, ahead_of_new, device_free, device_turn, slot_lock
from iekd.runs.shared_teacher import SharedTeacher
from iekd.runs.slots import Slot, check_device, slots
from iekd.runs.status import QUEUED, RUNNING, Status
from iekd.runs.store import Store


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("IEKD_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr(places, "gpus", lambda: (Gpu("0", "a"), Gpu("3", "b")))
    monkeypatch.setattr(places, "DRIVERS", ("/dev/null",))  # there is a driver


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def queued(store):
    """`queued(created, device)` -> a living run that waits since `created`."""
    handles = []

    def make(created, device="auto", **status):
        run, handle = store.create(make_config(device=device, teacher="none", methods=("baseline",)))
        run.write_status(Status(**{"state": QUEUED, "created": created, **status}))
        handles.append(handle)
        return run

    yield make
    for handle in handles:
        os.close(handle)


def never() -> bool:
    return False


def soon():
    """A stop() that says no three times."""
    left = iter([False] * 3)
    return lambda: next(left, True)


def turn(run, store, stop=never):
    return device_turn(run, store, stop, poll=0.01)


@pytest.mark.usefixtures("two_gpus")
def test_each_gpu_is_a_slot():
    first, second = slots("auto")
    assert (first.name, second.name) == ("cuda", "cuda:1"), "older versions know the first one as cuda"
    assert (first.lock, second.lock) == ("gpu-a", "gpu-b")
    assert slots("cuda") == (first, second)
    assert slots("cuda:0") == (first,)
    assert slots("cuda:1") == (second,)
    assert [slot.name for slot in slots("cpu")] == ["cpu"]


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_refused(refuses, store, queued):
    check_device("cuda:1")
    refuses(lambda: check_device("cuda:2"), "cuda:2", "'cuda:0' to 'cuda:1'", "auto")
    run = queued(1, "cuda:2")  # begun where there are more

    def train():
        with turn(run, store):
            pytest.fail("there is no such GPU")

    refuses(train, "cuda:2")


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "cuda:100", "cpu:1", "gpu", "CUDA:1"])
def test_names_that_no_device_has(refuses, name):
    refuses(lambda: make_config(device=name), name, "cuda")


@pytest.mark.usefixtures("two_gpus")
def test_a_worker_sees_its_own_gpu_only(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    _, second = slots("auto")
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=types.SimpleNamespace(is_initialized=never)))
    second.use()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3", "the entry of the user's own list"
    assert slots("auto")[1] == second, "the queue still knows both"
    monkeypatch.setattr(sys.modules["torch"].cuda, "is_initialized", lambda: True)
    second.use()  # the same again
    with pytest.raises(RunError, match="already uses a GPU"):
        slots("auto")[0].use()


def test_gpus_that_differ_share_no_lock(monkeypatch, store):
    """For processes over one folder that see other GPUs each."""

    def locks(*found):
        monkeypatch.setattr(places, "gpus", lambda: tuple(Gpu(*one) for one in found))
        return [slot_lock(slot, store).name for slot in slots("cuda")]

    assert locks(("0", "a"), ("1", "b")) == ["cuda", "cuda:1"]  # as always
    assert locks(("1", "b")) == ["gpu-b"] != locks(("0", "a"))
    assert locks(("1", "b"), ("0", "a")) == ["gpu-b", "gpu-a"]


def test_the_only_gpu_stays_visible_as_it_was(monkeypatch):
    monkeypatch.setattr(places, "gpus", lambda: (Gpu("0", None),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (only,) = slots("cuda")
    only.use()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert only.lock == "cuda"


@pytest.mark.usefixtures("two_gpus")
def test_two_runs_train_at_once_and_a_third_waits(store, queued):
    runs = [queued(i) for i in range(3)]
    with turn(runs[0], store) as first:
        runs[0].write_status(Status(state=RUNNING, created=0, slot=first.name))
        with turn(runs[1], store) as second:
            assert {first.name, second.name} == {"cuda", "cuda:1"}
            runs[1].write_status(Status(state=RUNNING, created=1, slot=second.name))
            with turn(runs[2], store, soon()) as none:
                assert none is None
        with turn(runs[2], store) as freed:
            assert freed == second


@pytest.mark.usefixtures("two_gpus")
def test_a_run_for_one_gpu_does_not_hold_up_those_for_others(store, queued):
    with turn(queued(1, "cuda:1"), store) as busy:
        assert busy.index == 1
        picky, later = queued(2, "cuda:1"), queued(3)
        assert [run.id for run in ahead_of(later, store)][-1] == picky.id
        with turn(picky, store, soon()) as none:
            assert none is None
        with turn(later, store) as slot:
            assert slot.index == 0


@pytest.mark.usefixtures("two_gpus")
def test_an_earlier_run_that_may_use_a_slot_has_it(store, queued):
    queued(1)
    with turn(queued(2), store, soon()) as none:
        assert none is None


@pytest.mark.usefixtures("two_gpus")
def test_what_a_new_run_would_wait_for(store, queued):
    config = make_config(device="auto")
    assert ahead_of_new(config, store) == []
    training = [queued(1, state=RUNNING, slot="cuda")]
    assert ahead_of_new(config, store) == [], "a GPU is free"
    assert [run.id for run in ahead_of_new(make_config(device="cuda:0"), store)] == [training[0].id]
    assert ahead_of_new(make_config(device="cuda:1"), store) == []
    training.append(queued(2, state=RUNNING, slot="cuda:1"))
    waiting = queued(0)
    assert [run.id for run in ahead_of_new(config, store)] == [*(run.id for run in training), waiting.id]


@pytest.mark.usefixtures("two_gpus")
def test_a_run_on_both_gpus_leaves_none_free(store, queued):
    both = queued(1, state=RUNNING, slot="cuda,cuda:1")
    for device in ("auto", "cuda:0", "cuda:1"):
        assert [run.id for run in ahead_of_new(make_config(device=device), store)] == [both.id]


@pytest.mark.usefixtures("two_gpus")
def test_an_older_worker_has_the_first_gpu(store, queued):
    """It holds the folder's lock "cuda", and its status names no slot."""
    with open(slot_lock(Slot("cuda"), store), "w") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        old_run = queued(1, state=RUNNING)
        assert [run.id for run in ahead_of_new(make_config(device="cuda:0"), store)] == [old_run.id]
        with turn(queued(2), store) as slot:
            assert slot.index == 1


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_free_while_another_is_busy(store, queued):
    with turn(queued(1, "cuda:0"), store):
        assert device_free(make_config(device="auto"), store)
        assert not device_free(make_config(device="cuda:0"), store)
        with turn(queued(2, "cuda:1"), store):
            assert not device_free(make_config(device="auto"), store)


@pytest.mark.usefixtures("two_gpus")
def test_who_waits_for_several_gpus_is_told_of_both(store, queued, tmp_path):
    others, told = Store(tmp_path / "others"), []
    strangers = [others.create(make_config(device=f"cuda:{i}")) for i in (0, 1)]
    with (
        turn(strangers[0][0], others),
        turn(strangers[1][0], others),
        device_turn(queued(1), store, soon(), poll=0.01, tell=told.append),
    ):
        assert len(told) == 1
        assert "one of 2 GPUs" in told[0]
        assert all(run.id in told[0] for run, _ in strangers)
    for _, handle in strangers:
        os.close(handle)


# the CPU


def test_the_cpu_is_one_slot_unless_it_is_shared(monkeypatch):
    monkeypatch.delenv("IEKD_CPU_SLOTS", raising=False)
    assert slots("cpu") == (Slot("cpu"),)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setenv("IEKD_CPU_SLOTS", "3")
    assert [slot.name for slot in slots("cpu")] == ["cpu", "cpu:1", "cpu:2"]
    for wrong in ("0", "5", "-1", "two", ""):
        monkeypatch.setenv("IEKD_CPU_SLOTS", wrong)
        with pytest.raises(UserError, match="from 1 to 4"):
            slots("cpu")


def test_nothing_is_measured_beside_a_run_on_a_shared_cpu(monkeypatch, store, queued):
    monkeypatch.setenv("IEKD_CPU_SLOTS", "2")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert device_free(make_config(device="cpu"), store)
    with turn(queued(1, "cpu"), store):
        assert not device_free(make_config(device="cpu"), store)


# a teacher that several runs need


@pytest.fixture
def taught(store, tiny_config):
    handles = []

    def make(**settings):
        run, handle = store.create(tiny_config(**{"methods": ("kd",), **settings}))
        handles.append(handle)
        return run

    yield make
    for handle in handles:
        os.close(handle)


def test_one_run_trains_the_teacher_and_the_others_wait(taught):
    with SharedTeacher(taught()) as first, SharedTeacher(taught(seeds=(1,))) as second:
        assert first.ready()
        assert first.ready(), "it has the right already"
        assert not second.ready()
        with SharedTeacher(taught(teacher_epochs=2)) as another:
            assert another.ready(), "that is another teacher"
        with SharedTeacher(taught(teacher="none", methods=("baseline",))) as without:
            assert without.ready()
        with SharedTeacher(taught(teacher_from="train")) as own:
            assert own.ready(), "it is asked to train one of its own"
        first.__exit__(None, None, None)
        assert second.ready(), "the first has ended without a teacher"


def test_a_run_that_waits_for_a_teacher_lets_others_go_first(store, queued):
    waiting, other = queued(1, yields=True), queued(2)
    assert ahead_of(other, store) == []
    with device_turn(waiting, store, soon(), poll=0.01, ready=never) as none:
        assert none is None
    with turn(other, store) as slot:
        assert slot
