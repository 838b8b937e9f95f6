from __future__ import annotations

import json
import logging

import pytest

from iekd.errors import RunError
from iekd.runs.notes import MOST_NAME, MOST_NOTE, NOTES, Notes, name_of, read_notes, write_notes
from iekd.runs.store import Store


@pytest.fixture
def run(tmp_path, written_run):
    return written_run(Store(tmp_path), name="first")


def test_each_is_changed_alone_and_the_configuration_never(run):
    before = (run.path / "config.json").read_bytes()
    assert read_notes(run) == Notes()
    write_notes(run, name=" Shirts,\n again ")
    write_notes(run, starred=True)
    assert write_notes(run, note="lower lr\nhelped") == Notes("Shirts, again", True, "lower lr\nhelped")
    assert read_notes(run) == Notes("Shirts, again", True, "lower lr\nhelped")
    assert name_of(run, run.config) == "Shirts, again"
    write_notes(run, name="", note="", starred=False)
    assert name_of(run, run.config) == "first", "without a name of its own it has that of the configuration again"
    assert (run.path / "config.json").read_bytes() == before


@pytest.mark.parametrize("text", ["{", "", "[1]", '"name"', "\0"])
def test_a_damaged_file_counts_as_none_and_the_log_says_so(run, caplog, text):
    (run.path / NOTES).write_text(text)
    with caplog.at_level(logging.WARNING):
        assert read_notes(run) == Notes()
    assert NOTES in caplog.text
    assert run.id in caplog.text
    assert write_notes(run, name="mended").name == "mended"
    assert read_notes(run).name == "mended"


def test_values_of_another_kind_do_no_harm(run):
    """A file of somebody else's comes in with an imported run."""
    (run.path / NOTES).write_text(json.dumps({"name": ["x" * 999], "starred": "yes", "note": {"a": "\ud800"}}))
    found = read_notes(run)
    assert len(found.name) == MOST_NAME
    assert found.starred is False
    found.note.encode()


def test_what_is_too_long_is_refused_and_nothing_changes(run, refuses):
    write_notes(run, name="kept")
    refuses(lambda: write_notes(run, name="x" * (MOST_NAME + 1)), "name", "81", kind=RunError)
    refuses(lambda: write_notes(run, name="new", note="x" * (MOST_NOTE + 1)), "note", "2,001", kind=RunError)
    assert read_notes(run) == Notes("kept")
