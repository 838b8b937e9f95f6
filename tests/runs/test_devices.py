"""One GPU, several folders of runs, several users: they meet on the machine's lock."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys

import pytest

from iekd.config.run import make_config
from iekd.runs import devices, slots
from iekd.runs.devices import DeviceLock
from iekd.runs.gpus import Gpu
from iekd.runs.queue import device_free, device_turn, slot_lock
from iekd.runs.slots import Slot
from iekd.runs.store import Store

A, B = "12345678-1234-1234-1234-123456789abc", "87654321-4321-4321-4321-cba987654321"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder that all users share."""
    monkeypatch.setenv("IEKD_LOCK_DIR", str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(slots, "gpus", lambda: (Gpu("0", A),))
    monkeypatch.setattr(slots, "DRIVERS", ("/dev/null",))  # there is a driver


@pytest.fixture
def waiting(tmp_path):
    """`waiting(folder, device)` -> (run, store), a living run that waits in a folder of its own."""
    handles = []

    def make(folder, device="cuda"):
        store = Store(tmp_path / folder)
        run, handle = store.create(make_config(device=device))
        handles.append(handle)
        return run, store

    yield make
    for handle in handles:
        os.close(handle)


def times(n):
    """A stop() that says no n times."""
    left = iter([False] * n)
    return lambda: next(left, True)


@pytest.mark.usefixtures("place", "gpu")
def test_two_folders_take_turns_on_one_gpu(waiting):
    told, yours = [], waiting("yours")
    with device_turn(*waiting("mine"), times(3)) as first:
        assert first
        with device_turn(*yours, times(3), poll=0.01, tell=told.append) as second:
            assert not second
    with device_turn(*yours, times(3), poll=0.01) as second:
        assert second
    assert len(told) == 1, "once, however often it looks"


@pytest.mark.usefixtures("place", "gpu")
def test_who_waits_is_told_for_whom_but_no_private_path(waiting, tmp_path):
    told, (run, store) = [], waiting("mine")
    with device_turn(run, store, times(3)), device_turn(*waiting("yours"), times(3), poll=0.01, tell=told.append):
        pass
    for word in (run.id, "'mine'", str(os.getpid()), devices._user()):
        assert word in told[0]
    assert str(tmp_path) not in told[0]


@pytest.mark.usefixtures("place", "gpu")
def test_two_folders_train_side_by_side_on_the_cpu(waiting):
    with device_turn(*waiting("mine", "cpu"), times(3)) as a, device_turn(*waiting("yours", "cpu"), times(3)) as b:
        assert a
        assert b


@pytest.mark.usefixtures("place", "gpu")
def test_a_worker_of_an_older_version_is_met_too(waiting):
    """It holds the lock of the runs' folder only; and while a new one waits for strangers, it leaves that one alone."""
    run, store = waiting("mine")
    with open(slot_lock(Slot("cuda"), store), "w") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        with device_turn(run, store, times(3), poll=0.01) as mine:
            assert not mine
    with device_turn(run, store, times(3)), open(slot_lock(Slot("cuda"), store)) as old, pytest.raises(BlockingIOError):
        fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.usefixtures("place", "gpu")
def test_the_device_is_not_free_while_another_folder_has_it(waiting):
    (run, store), (_, other) = waiting("mine"), waiting("yours")
    assert device_free(run.config, other)
    with device_turn(run, store, times(3)):
        assert not device_free(run.config, other)
        assert device_free(make_config(device="cpu"), other)
    assert device_free(run.config, other)


def test_a_lock_ends_with_its_process(place, tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from iekd.runs.devices import DeviceLock\n"
        "assert DeviceLock('cuda', Path(sys.argv[1])).take('run', 'folder'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert json.loads((place / "cuda").read_text())["run"] == "run", "the test says something"
    assert DeviceLock("cuda", tmp_path).take("next", "folder")


def test_everyone_may_use_what_one_user_has_made_whatever_the_umask(place, tmp_path):
    before = os.umask(0o077)
    try:
        lock = DeviceLock("cuda", tmp_path / "own")
        assert lock.take("run", "folder")
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o1777
    assert stat.S_IMODE((place / "cuda").stat().st_mode) == 0o666
    lock.give_back()
    assert (place / "cuda").read_text() == ""


@pytest.mark.parametrize("trap", ["link", "second name", "pipe", "folder"])
def test_what_somebody_has_put_in_its_place_is_not_touched(place, tmp_path, trap):
    place.mkdir()
    precious, there = tmp_path / "precious", place / "cuda"
    precious.write_text("mine")
    if trap == "link":
        there.symlink_to(precious)
    elif trap == "second name":
        os.link(precious, there)
    elif trap == "pipe":
        os.mkfifo(there)
    else:
        there.mkdir()
    lock = DeviceLock("cuda", tmp_path / "own")
    assert lock.take("run", "folder")
    lock.give_back()
    assert precious.read_text() == "mine"
    assert (tmp_path / "own" / "cuda").is_file()


def test_a_shared_folder_that_is_a_link_is_not_used(place, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    assert DeviceLock("cuda", tmp_path / "own").take("run", "folder")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_where_there_is_no_shared_folder_the_log_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("IEKD_LOCK_DIR", str(tmp_path / "no" / "folder"))
    first, second = DeviceLock("cuda", tmp_path / "own"), DeviceLock("cuda", tmp_path / "own")
    assert first.take("run", "folder")
    assert not second.take("run", "folder"), "in one folder of runs they still meet"
    assert caplog.text.count("cannot be used") == 1
    assert str(tmp_path / "no" / "folder") in caplog.text


def test_a_file_that_a_cleaner_removed_is_made_again(place, tmp_path):
    assert DeviceLock("cuda", tmp_path / "own").take("run", "folder")
    (place / "cuda").unlink()
    lock = DeviceLock("cuda", tmp_path / "own")
    handle = lock._open()
    (place / "cuda").unlink()
    lock._open = lambda: handle  # opened just before it was removed
    assert not lock.take("run", "folder"), "the next one would lock another file"


@pytest.mark.parametrize("said", ["", "{", "[1]", "\x00" * 50, json.dumps({"run": "<b>\n\x1b[31m" * 500})])
def test_what_a_lock_says_is_only_words(place, tmp_path, said):
    place.mkdir()
    (place / "cuda").write_text(said)
    text = DeviceLock("cuda", tmp_path / "own").holder()
    assert not set(text) & set("<>\n\x1b\x00")
    assert len(text) < 400


@pytest.mark.usefixtures("place", "gpu")
def test_a_run_that_waits_for_another_folder_shows_it(waiting, place, tmp_path):
    """In its log and its status, and no longer once it has ended."""
    from iekd.runs.worker import execute

    (run, _), (held, holders) = waiting("mine"), waiting("others")
    seen = []
    with device_turn(held, holders, times(3)):
        status = execute(run, lambda: bool(seen), lambda status, row: seen.append(status.waiting))
    assert held.id in seen[0]
    assert seen[0] in (run.path / "log.txt").read_text()
    assert status.waiting == "" == run.status.waiting
