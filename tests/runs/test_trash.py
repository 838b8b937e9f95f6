from __future__ import annotations

import os
import time

import pytest

from iekd.config.run import make_config
from iekd.errors import RunError
from iekd.runs import trash
from iekd.runs.doctor import leftovers
from iekd.runs.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def contents(run):
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}


def test_deleted_runs_are_listed_nowhere_and_come_back_as_they_were(store, written_run, refuses):
    first, second, other = (written_run(store, name=name) for name in ("a", "b", "c"))
    before = contents(first)
    assert trash.delete(store, [first.id, second.id, first.id]) == ([first.id, second.id], [])
    assert [run.id for run in store.list()] == [other.id]
    refuses(lambda: store.get(first.id), first.id, kind=RunError)
    (deletion,) = trash.deletions(store)
    assert {run.id for run in deletion.runs} == {first.id, second.id}
    assert set(trash.undo(store, deletion.name)) == {first.id, second.id}
    assert {run.id for run in store.list()} == {first.id, second.id, other.id}
    assert contents(first) == before
    assert trash.deletions(store) == []
    refuses(lambda: trash.undo(store, deletion.name), "cannot be brought back", kind=RunError)


def test_a_live_run_stays_and_is_named_while_the_others_go(store, written_run):
    live, handle = store.create(make_config())
    done = written_run(store)
    moved, (sentence,) = trash.delete(
        store,
        [
            live.id,
            done.id,
        ],
    )
    os.close(handle)
    assert moved == [done.id]
    assert live.id in sentence
    assert "Stop it first" in sentence
    assert [run.id for run in store.list()] == [live.id]


@pytest.mark.parametrize("name", ["../elsewhere", "..", "", ".", "/etc", "1-nothing"])
def test_only_what_was_deleted_is_brought_back(store, written_run, refuses, name):
    run = written_run(store)
    (store.root.parent / "elsewhere").mkdir(exist_ok=True)
    trash.delete(store, [run.id])
    refuses(lambda: trash.undo(store, name), "cannot be brought back", kind=RunError)
    moved, refused = trash.delete(store, [name])
    assert moved == []
    assert len(refused) == 1
    assert len(trash.deletions(store)) == 1, "an attempt leaves no empty folder"


def test_nothing_is_overwritten(store, written_run, refuses):
    run = written_run(store)
    trash.delete(store, [run.id])
    run.path.mkdir()
    (run.path / "config.json").write_text("{}")
    (deletion,) = trash.deletions(store)
    refuses(lambda: trash.undo(store, deletion.name), run.id, "Delete it first", kind=RunError)
    assert (run.path / "config.json").read_text() == "{}"


def test_it_is_emptied_of_what_is_old_or_of_everything(store, written_run, monkeypatch):
    old, new = written_run(store), written_run(store)
    now = time.time()
    monkeypatch.setattr(trash.time, "time", lambda: now - trash.KEPT - 1)
    trash.delete(store, [old.id])
    monkeypatch.setattr(trash.time, "time", lambda: now)
    trash.delete(store, [new.id])
    newest, oldest = trash.deletions(store)
    assert leftovers(store) == [store.root / trash.TRASH / oldest.name]
    trash.empty(store, trash.KEPT)
    assert [run.id for run in trash.deletions(store)[0].runs] == [new.id]
    assert [deletion.name for deletion in trash.deletions(store)] == [newest.name]
    trash.empty(store)
    assert list((store.root / trash.TRASH).iterdir()) == []


def test_the_key_of_a_run_in_the_trash_starts_a_new_one(store, written_run):
    first, handle = store.create(make_config(), key="click")
    os.close(handle)
    trash.delete(store, [first.id])
    again, handle = store.create(make_config(), key="click")
    os.close(handle)
    assert again.id != first.id
