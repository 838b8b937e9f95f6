from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.errors import RunError
from iekd.runs.compare import compare_runs
from iekd.runs.notes import write_notes
from iekd.runs.store import Store


def iekd_(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def runs(tmp_path, written_run):
    """(folder, first, second): the second has another learning rate and a gain of half a point."""
    store = Store(tmp_path)
    return tmp_path, written_run(store, name="usual"), written_run(store, taught=86.5, lr=0.05)


def test_runs_side_by_side(runs, written_run):
    folder, first, second = runs
    write_notes(second, name="slower")
    weak = written_run(Store(folder), plain=10.0, taught=10.2)
    table = iekd_("runs", "compare", first.id, second.id, weak.id, "--runs-dir", folder)
    assert table.exit_code == 0, table.stderr
    for words in ("usual", "slower", "+2.00 (+1.00 to +3.00 over test images)", "+0.50 (-0.50", "lr", "0.05"):
        assert words in table.stdout, words
    assert "epochs" not in table.stdout, "what is the same is not shown"
    assert f"{weak.id} is too weak to judge" in table.stdout
    assert f"{first.id} is too weak" not in table.stdout
    Store(folder).delete(weak.id)
    answer = iekd_("runs", "compare", second.id, first.id, "--runs-dir", folder, "--json")
    found = json.loads(answer.stdout.splitlines()[-1])
    assert [run["run"] for run in found["runs"]] == [second.id, first.id]
    assert found["settings"] == [{"name": "lr", "values": [0.05, 0.1]}]
    assert found["runs"][0]["gain"] == pytest.approx(0.5)
    assert found["runs"][1]["interval"] == [1.0, 3.0]
    listed = json.loads(iekd_("runs", "list", "--runs-dir", folder, "--json").stdout.splitlines()[-1])["runs"]
    assert {row["name"] for row in listed} == {"usual", "slower"}


def test_one_run_many_runs_and_unknown_ones_are_refused(runs, refuses):
    folder, first, second = runs
    store = Store(folder)
    (second.path / "config.json").write_text("{")
    for ids, said in (
        ([first.id], "1 different"), ([first.id, first.id], "1 different"), ([first.id, *"abcdefgh"], "2 to 8"),
        ([first.id, "nothing"], "no run 'nothing'"), ([first.id, second.id], "cannot be read"),
    ):  # fmt: skip
        refuses(lambda ids=ids: compare_runs(store, ids), said, kind=RunError)
    answer = iekd_("runs", "compare", first.id, "--runs-dir", folder)
    assert (answer.exit_code, answer.stdout) == (2, "")
