from __future__ import annotations

import json
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iekd.runs.files import LineWriter, read_json, read_lines, read_tail, write_json

ROWS = [{"a": 1}, {"text": 'ünï\n"x"'}, {"list": [1.5, None, True]}]


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "x.json", ROWS)
    assert read_json(tmp_path / "x.json") == ROWS
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_failed_write_leaves_the_old_value_and_no_rubbish(tmp_path):
    write_json(tmp_path / "x.json", {"old": 1})

    class Unwritable:
        def __str__(self):
            raise RuntimeError("cannot be written")

    with pytest.raises(RuntimeError):
        write_json(tmp_path / "x.json", {"a": 1, "b": Unwritable()})
    assert read_json(tmp_path / "x.json") == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_power_cut_before_the_rename_leaves_the_old_value(tmp_path, monkeypatch):
    write_json(tmp_path / "x.json", {"old": 1})

    def cut(*_):
        raise OSError("power")

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(OSError, match="power"):
        write_json(tmp_path / "x.json", {"new": 1})
    assert read_json(tmp_path / "x.json") == {"old": 1}


def test_content_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    write_json(tmp_path / "x.json", 1)
    assert order == ["fsync", "replace"]


def test_readers_never_see_half_a_file(tmp_path):
    path, done, seen = tmp_path / "x.json", threading.Event(), []
    values = [list(range(n)) for n in (1, 20_000)]
    write_json(path, values[0])

    def read():
        while not done.is_set():
            seen.append(read_json(path))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        write_json(path, values[i % 2])
    done.set()
    reader.join()
    assert seen
    assert all(value in values for value in seen)


@pytest.mark.parametrize("content", ["", "{", "\x00", '{"a": 1'])
def test_other_files_than_json_are_none(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    assert read_json(tmp_path / "x.json") is None
    assert read_json(tmp_path / "missing.json") is None


def test_lines_come_back_numbered(tmp_path):
    writer = LineWriter(tmp_path / "x.jsonl")
    for row in ROWS:
        writer.append(row)
    writer.close()
    rows, offset = read_lines(tmp_path / "x.jsonl")
    assert rows == [{"seq": i, **row} for i, row in enumerate(ROWS)]
    assert offset == (tmp_path / "x.jsonl").stat().st_size


def test_numbering_continues_where_the_file_ends(tmp_path):
    for row in ROWS:
        writer = LineWriter(tmp_path / "x.jsonl")
        writer.append(row)
        writer.close()
    assert [row["seq"] for row in read_lines(tmp_path / "x.jsonl")[0]] == [0, 1, 2]


def test_each_line_is_one_write(tmp_path, monkeypatch):
    writer, written = LineWriter(tmp_path / "x.jsonl"), []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(data) or write(fd, data))
    writer.append({"a": "x" * 10_000})
    writer.close()
    assert len(written) == 1
    assert written[0].endswith(b"\n")
    assert written[0].count(b"\n") == 1


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "x.jsonl") == ([], 0)
    assert read_lines(tmp_path / "x.jsonl", 7) == ([], 7)


def test_an_unfinished_line_waits(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":')
    rows, offset = read_lines(path)
    assert rows == [{"a": 1}]
    assert offset == 8
    assert read_lines(path, offset) == ([], 8)
    with open(path, "ab") as file:
        file.write(b'2}\n{"a":3}\n')
    rows, offset = read_lines(path, offset)
    assert rows == [{"a": 2}, {"a": 3}]
    assert read_lines(path, offset) == ([], offset)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=20) | st.integers()), max_size=6), st.data())
def test_however_a_file_grows_every_line_is_read_once(tmp_path_factory, rows, data):
    path = tmp_path_factory.mktemp("grow") / "x.jsonl"
    content = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    seen, offset = [], 0
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        with open(path, "ab") as file:
            file.write(content[start:end])
        new, offset = read_lines(path, offset)
        seen += new
    assert seen == rows


def test_the_tail_is_the_last_lines(tmp_path):
    (tmp_path / "log").write_text("\n".join(f"line {i}" for i in range(10_000)))
    assert read_tail(tmp_path / "log", 3) == "line 9997\nline 9998\nline 9999"
    assert read_tail(tmp_path / "missing", 3) == ""
