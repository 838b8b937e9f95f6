from __future__ import annotations

import os

import pytest

from iekd.config.run import make_config
from iekd.runs import index as index_module
from iekd.runs.index import Index
from iekd.runs.notes import write_notes
from iekd.runs.status import FINISHED, LOST, QUEUED, STOPPED
from iekd.runs.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def reads(monkeypatch):
    """Ids of the runs that were read."""
    found = []
    read = index_module.read_entry
    monkeypatch.setattr(index_module, "read_entry", lambda run: found.append(run.id) or read(run))
    return found


def test_a_run_is_read_again_only_when_one_of_its_files_was_replaced(store, written_run, reads):
    first, second = written_run(store), written_run(store)
    index = Index(store)
    assert [entry.run.id for entry in index.entries()] == [run.id for run in store.list()]
    reads.clear()
    index.entries()
    assert reads == []
    write_notes(first, name="renamed")
    assert {entry.name for entry in index.entries()} == {"renamed", ""}
    assert reads == [first.id]
    status = second.status
    status.state = STOPPED
    second.write_status(status)
    assert {entry.status.state for entry in index.entries()} == {FINISHED, STOPPED}


def test_a_run_that_dies_is_noticed_though_no_file_changes(store):
    _, handle = store.create(make_config())
    index = Index(store)
    assert [entry.status.state for entry in index.entries()] == [QUEUED]
    os.close(handle)
    assert [entry.status.state for entry in index.entries()] == [LOST]


def test_what_comes_and_goes_and_what_is_damaged(store, written_run):
    index = Index(store)
    assert index.entries() == []
    run, gone = written_run(store), written_run(store)
    (store.root / "no-run").mkdir()
    assert len(index.entries()) == 2
    store.delete(gone.id)
    (run.path / "config.json").write_text("{")
    (entry,) = index.entries()
    assert entry.config is None
    assert entry.run.id == run.id
    (run.path / "report.json").write_text('{"learners": [{}]}')
    assert index.entries()[0].brief is None
