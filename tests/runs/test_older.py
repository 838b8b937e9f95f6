"""Runs that version 0.1 of this program has made, as it left them: they open, and the stopped one can be resumed.

`older/` was written by the first commit: `iekd train --dataset fashion-mnist-sample --limit-train 200 --student resnet8
--teacher none --methods baseline --epochs 2 --batch-size 50`, and the same with 400 epochs, interrupted. Only the
path in the report was shortened.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.config.run import make_config
from iekd.data import bundled
from iekd.inference.compare import compare
from iekd.results.report import to_markdown
from iekd.runs.grid import finished_run, interrupted_run
from iekd.runs.models import run_models
from iekd.runs.store import FINISHED, STOPPED, Store
from iekd.runs.transfer import export_run, import_run
from iekd.runs.worker import execute

FINISHED_RUN, STOPPED_RUN = "20261123-080138-5e03", "20261123-080242-7941"


@pytest.fixture
def store(tmp_path):
    shutil.copytree(Path(__file__).with_name("older"), tmp_path / "runs")
    return Store(tmp_path / "runs")


def command(*words):
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_the_command_line_lists_and_shows_them(store):
    listed = command("runs", "list", "--runs-dir", store.root)["runs"]
    assert [(r["run"], r["state"]) for r in listed] == [(STOPPED_RUN, STOPPED), (FINISHED_RUN, FINISHED)]
    shown = command("runs", "show", FINISHED_RUN, "--runs-dir", store.root)
    assert shown["report"]["learners"][0]["accuracy_last"] == pytest.approx(25.71, abs=0.01)
    said = CliRunner().invoke(app, ["runs", "show", FINISHED_RUN, "--runs-dir", str(store.root)])
    assert "25.71" in said.stdout


def test_their_settings_make_a_run_of_today(store):
    config = store.get(FINISHED_RUN).config
    again = make_config(**config.model_dump())
    assert (again.epochs, again.batch_size, again.inheritance_weight, again.validation_fraction) == (2, 50, 500, 0)
    assert finished_run(again, store) is None, "its report does not know all settings"
    assert interrupted_run(make_config(**store.get(STOPPED_RUN).config.model_dump()), store).id == STOPPED_RUN


def test_their_students_answer(store):
    picture = Path(__file__).parents[2] / "docs" / "app.png"
    for run_id in (FINISHED_RUN, STOPPED_RUN):
        (result,) = compare(run_models(store.get(run_id)), [("app.png", picture)])
        assert not result.error
        assert set(result.predictions) == {"baseline"}


def test_they_travel(store, tmp_path):
    export_run(store.get(FINISHED_RUN), tmp_path / "run.zip")
    elsewhere = Store(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    run = import_run(elsewhere, tmp_path / "run.zip")
    assert run.status.state == FINISHED
    assert "25.71" in to_markdown(run.report)


def test_the_stopped_one_begins_again(store, monkeypatch):
    whole = bundled._fashion()
    few = replace(whole, test=whole.test.take(range(500)))  # nobody asks how accurate it becomes
    monkeypatch.setattr(bundled, "_fashion", lambda: few)
    run = store.get(STOPPED_RUN)
    before, handle = len(run.metrics()[0]), run.reopen()
    log = run.path / "log.txt"
    execute(run, lambda: "begins again" in log.read_text() and len(run.metrics()[0]) >= 4)
    os.close(handle)
    assert run.status.state == STOPPED, run.status
    assert run.attempt == 2
    assert "training begins again" in log.read_text()
    found = run.metrics()[0]
    assert before > 4
    assert [row["seq"] for row in found] == list(range(len(found)))
    steps = [row["step"] for row in found if row["kind"] == "train"]
    assert steps == sorted(set(steps))


def test_the_page_draws_them(store):
    from iekd.ui.server.access import Access
    from iekd.ui.tabs.run import look
    from iekd.ui.tabs.runs import table_html

    may = Access().of(None)
    table = table_html(store, may)
    assert "cannot be read" not in table
    assert "25.7" in table
    for run_id in (FINISHED_RUN, STOPPED_RUN):
        looked = look(store, run_id, {}, may)
        assert "ResNet-8" in looked["head"]
        where, what = ("result", "Plain student") if run_id == FINISHED_RUN else ("headline", "You stopped this run")
        assert what in looked[where]
        assert "<svg" in looked["curves"]
        assert "Training on cpu" in looked["log"]
