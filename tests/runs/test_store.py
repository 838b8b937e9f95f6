from __future__ import annotations

import contextlib
import json
import os
import threading
import time

import pytest

from iekd.config.run import make_config
from iekd.errors import RunError
from iekd.models import hub_configs
from iekd.runs import store as store_module
from iekd.runs.status import FAILED, FINISHED, LOST, QUEUED, RUNNING, Status
from iekd.runs.store import Run, Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def create(store):
    """`create(**config)` -> a run whose worker is this test; its lock is let go at the end."""
    handles = []

    def make(key=None, **values):
        run, handle = store.create(make_config(**values), key)
        if handle is not None:
            handles.append(handle)
        run.handle = handle
        return run

    yield make
    for handle in handles:
        with contextlib.suppress(OSError):
            os.close(handle)


def end(run: Run, state: str = FINISHED) -> Run:
    run.write_status(Status(state=state, created=1.0))
    os.close(run.handle)
    return run


def test_a_new_run_is_queued_and_says_what_was_asked(store, create):
    config = make_config(epochs=3, seeds=(1, 2), lr=0.123456789, name="ünï")
    run = create(epochs=3, seeds=(1, 2), lr=0.123456789, name="ünï")
    assert run.config == config
    assert run.status.state == QUEUED
    assert run.status.created == pytest.approx(time.time(), abs=3600)
    assert run.path.parent == store.root
    assert [json.loads(line)["event"] for line in (run.path / "events.jsonl").read_text().splitlines()] == ["queued"]


@pytest.mark.parametrize("field", ["teacher_from", "student_from"])
def test_networks_that_weights_come_from_are_known_wherever_the_run_is(store, create, monkeypatch, field):
    monkeypatch.setattr(hub_configs, "_known", {})
    name = f"hf:ann/net@{'0' * 40}"
    hub_configs.remember({name: {"architecture": "test_resnet"}})
    run = create(**{field: name})
    monkeypatch.setattr(hub_configs, "_known", {})
    assert not hub_configs.is_known(name)
    assert getattr(run.config, field) == name
    assert hub_configs.config_of(name) == {"architecture": "test_resnet"}


def test_a_folder_gets_its_name_when_it_is_complete(store, create, monkeypatch):
    """Whoever lists at any moment sees runs with configuration and status, or none."""
    seen = []
    original = store_module.write_json

    def watched(path, value):
        original(path, value)
        seen.append([run.id for run in store.list()])

    monkeypatch.setattr(store_module, "write_json", watched)
    create()
    assert seen == [[], []]
    assert len(store.list()) == 1
    assert not [p for p in store.root.iterdir() if p.name.endswith(".part")]


def test_a_run_is_got_by_its_id(store, create):
    run = create()
    assert store.get(run.id).path == run.path


def test_the_name_of_a_run_leads_to_its_id(store, create, refuses):
    """People remember what they called a run."""
    *named, damaged = (create(name=name) for name in ("photos", "photos", "other"))
    (damaged.path / "config.json").write_text("[1]")
    refuses(lambda: store.get("photos"), "the name of a run", *(run.id for run in named), kind=RunError)


def test_an_unknown_id_gets_the_closest(store, create, refuses):
    run = create()
    nearly = run.id[:-1] + ("0" if run.id[-1] != "0" else "1")
    refuses(lambda: store.get(nearly), nearly, f"Did you mean '{run.id}'", kind=RunError)
    refuses(lambda: store.get("zebra"), "zebra", "iekd runs list", kind=RunError)


def test_no_run_at_all(store, refuses):
    assert store.list() == []
    refuses(lambda: store.get("20250101-000000-abcd"), "20250101-000000-abcd", kind=RunError)


@pytest.mark.parametrize(
    "bad",
    ["", ".", "..", "../x", "../../etc", "/", "/etc", "a/b", "x/../{id}", "./{id}", "{id}/", ".keys", "\0", "x" * 300],
)
def test_an_id_that_is_a_path_is_refused(store, create, refuses, bad):
    run = create()
    (store.root / "x").mkdir()
    outside = store.root.parent / "x"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    bad = bad.format(id=run.id)
    refuses(lambda: store.get(bad), kind=RunError)
    refuses(lambda: store.delete(bad), kind=RunError)
    assert (outside / "config.json").exists()
    assert run.path.is_dir()


def test_half_made_and_deleted_runs_are_not_listed(store, create, refuses):
    run = create()
    for name in (f".{run.id}.part", f".{run.id}.deleted"):
        (store.root / name).mkdir()
        (store.root / name / "config.json").write_text("{}")
        refuses(lambda name=name: store.get(name), name, kind=RunError)
    assert [r.id for r in store.list()] == [run.id]


def test_an_absolute_path_is_not_an_id(store, create, refuses):
    run = create()
    refuses(lambda: store.get(str(run.path)), kind=RunError)


def test_the_key_of_a_deleted_run_starts_a_new_one(tmp_path, tiny_config):
    store = Store(tmp_path)
    first, handle = store.create(tiny_config(), key="click")
    os.close(handle)
    first.write_status(Status(FINISHED, time.time()))
    store.delete(first.id)
    again, handle = store.create(tiny_config(), key="click")
    assert handle is not None
    os.close(handle)
    assert again.path.is_dir()


def test_runs_are_listed_newest_first(store, create, monkeypatch):
    """Also those of one second, whose random endings say nothing about which came first."""
    monkeypatch.setattr(time, "strftime", lambda *_: "20250101-000000-")
    endings = iter(["ffff", "0000", "8888"])
    monkeypatch.setattr(store_module.secrets, "token_hex", lambda _: next(endings))
    made = []
    for _ in range(3):
        made.append(create().id)
        time.sleep(0.002)
    assert [run.id for run in store.list()] == made[::-1]


def test_other_folders_are_not_listed(store, create):
    run = create()
    (store.root / "notes.txt").write_text("")
    (store.root / "empty").mkdir()
    (store.root / "teachers").mkdir()
    assert [r.id for r in store.list()] == [run.id]


def test_a_deleted_run_is_gone_and_nothing_else(store, create, refuses):
    run, other = end(create()), end(create())
    store.delete(run.id)
    assert [r.id for r in store.list()] == [other.id]
    assert not run.path.exists()
    assert not [p for p in store.root.iterdir() if run.id in p.name]
    refuses(lambda: store.delete(run.id), run.id, kind=RunError)


def test_a_run_that_is_going_cannot_be_deleted(store, create, refuses):
    run = create()
    refuses(lambda: store.delete(run.id), run.id, "queued", "Stop it first", kind=RunError)
    assert run.path.is_dir()


def test_a_run_is_deleted_once_its_process_has_ended(store, written_run, refuses, monkeypatch):
    run = written_run(store)
    handle = run.lock()
    monkeypatch.setattr(store_module, "LAST_MOMENTS", 0)
    refuses(lambda: store.delete(run.id), run.id, run.status.state, "not ended yet", kind=RunError)
    assert run.path.is_dir()
    monkeypatch.setattr(store_module, "LAST_MOMENTS", 60)
    monkeypatch.setattr(store_module.time, "sleep", lambda seconds: os.close(handle))  # it ends during the first wait
    store.delete(run.id)
    assert not run.path.exists()


@pytest.mark.parametrize("name", ["file", "file/runs", "file/a/b"])
@pytest.mark.parametrize("key", [None, "k"])
def test_an_unwritable_folder_is_a_sentence(tmp_path, refuses, name, key):
    """At or below a regular file, because the super-user may write anywhere else."""
    (tmp_path / "file").write_text("")
    unwritable = Store(tmp_path / name)
    refuses(lambda: unwritable.create(make_config(), key), tmp_path / name, "--runs-dir", kind=RunError)
    assert unwritable.list() == []


def test_a_full_disk_is_a_sentence(store, monkeypatch, refuses):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "write_json", full)
    refuses(lambda: store.create(make_config()), "No space left", kind=RunError)
    assert store.list() == []


def test_a_key_whose_run_could_not_be_made_is_free_again(store, create, monkeypatch, refuses):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_json", full)
        refuses(lambda: store.create(make_config(), "click"), "No space left", kind=RunError)
    assert create("click").handle is not None


def test_events_of_several_writers_are_numbered_without_gap_or_repetition(create):
    run = create()
    path, before = run.path / "events.jsonl", len((run.path / "events.jsonl").read_text().splitlines())
    writers = [threading.Thread(target=lambda: [run.event("x") for _ in range(50)]) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    numbers = [json.loads(line)["seq"] for line in path.read_text().splitlines()]
    assert numbers == list(range(before + 200))


def test_the_same_key_is_the_same_run(store, create):
    first, again, other = create("click 1"), create("click 1"), create("click 2")
    assert first.id == again.id != other.id
    assert first.handle is not None
    assert again.handle is None
    assert len(store.list()) == 2


@pytest.mark.parametrize("key", ["", "../../x", "a/b", "x" * 5000, "\0", "ünï"])
def test_any_text_is_a_key(store, create, key):
    assert create(key).id == create(key).id


def test_twenty_clicks_at_once_start_one_run(store):
    results, start = [], threading.Barrier(8)

    def click():
        start.wait()
        results.append(store.create(make_config(), "one"))

    threads = [threading.Thread(target=click) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.id for run, _ in results}) == 1
    handles = [handle for _, handle in results if handle is not None]
    assert len(handles) == 1
    os.close(handles[0])
    assert len(store.list()) == 1


def test_a_run_is_alive_while_its_lock_is_held(create):
    run = create()
    assert run.alive()
    os.close(run.handle)
    assert not run.alive()


def test_a_lock_has_one_holder(create, refuses):
    run = create()
    refuses(run.lock, run.id, kind=RunError)
    os.close(run.handle)
    again = run.lock()
    assert run.alive()
    os.close(again)


def test_looking_does_not_take_the_lock(create):
    """Many readers look while a worker tries to take the lock."""
    run = create()
    os.close(run.handle)
    done = threading.Event()

    def look():
        while not done.is_set():
            run.alive()

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        os.close(run.lock())
    finally:
        done.set()
        for reader in readers:
            reader.join()


@pytest.mark.parametrize("state", [QUEUED, RUNNING, "stopping"])
def test_a_worker_that_is_gone_without_a_word_is_lost(create, state):
    run = end(create(), state)
    assert run.status.state == LOST
    assert run.status.error.endswith(".")
    assert not run.status.live


@pytest.mark.parametrize("state", [FINISHED, FAILED, "stopped"])
def test_a_final_state_stays(create, state):
    assert end(create(), state).status.state == state


def test_status_comes_back(create):
    run = create()
    status = Status("running", 1.0, 2.0, None, 7, 8.0, "students", 0.5, 0.4, 3.0, 100.0, "cpu", None)
    run.write_status(status)
    assert run.status == status


def test_a_status_of_a_later_version_is_read(create):
    run = create()
    stored = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**stored, "invented_later": 1}))
    assert run.status.state == QUEUED


@pytest.mark.parametrize(("started", "ended", "seconds"), [(None, None, None), (5.0, 9.0, 4.0)])
def test_seconds_are_from_start_to_end(started, ended, seconds):
    assert Status(started=started, ended=ended).seconds == seconds


def test_metrics_are_read_from_an_offset(create):
    run = create()
    writer = run.metrics_writer()
    writer.append({"a": 1})
    rows, offset = run.metrics()
    writer.append({"a": 2})
    writer.close()
    assert [r["a"] for r in rows] == [1]
    assert [r["a"] for r in run.metrics(offset)[0]] == [2]


def test_a_new_run_has_no_results(create):
    run = create()
    assert run.report is None
    assert run.metrics() == ([], 0)
    assert run.log_tail() == ""
    assert run.model_folders == {}
    assert not run.stop_requested


def test_a_broken_run_disturbs_no_other(store, create, refuses):
    """One folder with an unreadable config.json: the others are listed, and it can be deleted."""
    good, bad = create(), end(create())
    (bad.path / "config.json").write_text("{")
    assert {run.id for run in store.list()} >= {good.id}
    refuses(lambda: bad.config, bad.id, kind=RunError)
    store.delete(bad.id)
    assert [run.id for run in store.list()] == [good.id]


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_broken_status_is_a_lost_run(create, content):
    run = create()
    (run.path / "status.json").write_text(content)
    os.close(run.handle)
    assert run.status.state == LOST


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_broken_control_file_asks_for_nothing(create, content):
    run = create()
    (run.path / "control.json").write_text(content)
    assert not run.stop_requested


def test_a_run_whose_pictures_are_gone_can_still_be_shown(store, create, tmp_path):
    (tmp_path / "pictures").mkdir()
    run = create(dataset=f"folder:{tmp_path / 'pictures'}")
    (tmp_path / "pictures").rmdir()
    assert run.config.dataset == f"folder:{tmp_path / 'pictures'}"
    assert store.list()[0].config.command_line()


def test_a_run_of_a_version_without_validation_says_so(tmp_path):
    """Started again, it gives the same result as then."""
    run, handle = Store(tmp_path).create(make_config())
    os.close(handle)
    stored = json.loads((run.path / "config.json").read_text())
    assert run.config.validation_fraction == stored.pop("validation_fraction") == 0.1
    (run.path / "config.json").write_text(json.dumps(stored))
    assert run.config.validation_fraction == 0
    assert "--validation-fraction 0" in run.config.command_line()
