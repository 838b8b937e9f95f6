"""Runs that versions 0.1 and 0.2 of this program have made, as they left them: they open, and a stopped one can be
resumed.

`older/` was written by `iekd train --dataset fashion-mnist-sample --limit-train 200 --student resnet8 --batch-size 50`:

- by the first commit with `--teacher none --methods baseline --epochs 2`, and the same with 400 epochs, interrupted;
- by commit a94391b, of version 0.2, with `--methods baseline,ie-ft --teacher resnet8 --auto-encoder-epochs 1`: a
  finished run with `--teacher-from train --teacher-epochs 2 --epochs 2`, and one with 400 epochs and the first one's
  teacher, interrupted.

Only the path in the reports was shortened, and the last but one checkpoint of the students left out.
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
from iekd.runs.status import FINISHED, STOPPED
from iekd.runs.store import Store
from iekd.runs.transfer import export_run, import_run
from iekd.runs.worker import execute

FINISHED_01, STOPPED_01 = "20261123-080138-5e03", "20261123-080242-7941"
FINISHED_02, STOPPED_02 = "20261130-214138-77de77", "20261130-214931-02b9e5"
MODELS = {
    FINISHED_01: {"baseline"}, STOPPED_01: {"baseline"},
    FINISHED_02: {"teacher", "baseline", "ie-ft"}, STOPPED_02: {"teacher", "baseline", "ie-ft"},
}  # fmt: skip
ACCURACY = {FINISHED_01: 25.71, FINISHED_02: 20.37}  # of the last student
by_version = pytest.mark.parametrize("finished", [FINISHED_01, FINISHED_02], ids=["0.1", "0.2"])


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
    ended = [(STOPPED_02, STOPPED), (FINISHED_02, FINISHED), (STOPPED_01, STOPPED), (FINISHED_01, FINISHED)]
    assert [(r["run"], r["state"]) for r in listed] == ended
    for run_id, accuracy in ACCURACY.items():
        shown = command("runs", "show", run_id, "--runs-dir", store.root)
        assert shown["report"]["learners"][-1]["accuracy_last"] == pytest.approx(accuracy, abs=0.01)
        said = CliRunner().invoke(app, ["runs", "show", run_id, "--runs-dir", str(store.root)])
        assert str(accuracy) in said.stdout


@pytest.mark.parametrize(
    ("finished", "stopped", "weight", "held_out"),
    [(FINISHED_01, STOPPED_01, 500, 0), (FINISHED_02, STOPPED_02, None, 0.1)],
    ids=["0.1", "0.2"],
)
def test_their_settings_make_a_run_of_today(store, finished, stopped, weight, held_out):
    again = make_config(**store.get(finished).config.model_dump())
    found = again.epochs, again.batch_size, again.inheritance_weight, again.validation_fraction
    assert found == (2, 50, weight, held_out)
    assert interrupted_run(make_config(**store.get(stopped).config.model_dump()), store).id == stopped


def test_a_report_that_does_not_know_all_settings_is_no_result_of_today(store):
    assert finished_run(make_config(**store.get(FINISHED_01).config.model_dump()), store) is None


@pytest.mark.parametrize("run_id", MODELS)
def test_their_models_predict(store, run_id):
    picture = Path(__file__).parents[2] / "docs" / "app.png"
    (result,) = compare(run_models(store.get(run_id)), [("app.png", picture)])
    assert not result.error
    assert set(result.predictions) == MODELS[run_id]


@by_version
def test_they_travel(store, tmp_path, finished):
    export_run(store.get(finished), tmp_path / "run.zip")
    elsewhere = Store(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    run = import_run(elsewhere, tmp_path / "run.zip")
    assert run.status.state == FINISHED
    assert str(ACCURACY[finished]) in to_markdown(run.report)


def test_the_stopped_one_of_0_2_continues_from_its_checkpoint(store):
    run = store.get(STOPPED_02)
    before, handle = run.metrics()[0], run.reopen()
    execute(run, lambda: len(run.metrics()[0]) >= len(before) + 2)
    os.close(handle)
    assert (run.status.state, run.attempt) == (STOPPED, 2), run.status
    assert "Continuing after step 9 of stage students." in (run.path / "log.txt").read_text()
    found = run.metrics()[0]
    assert found[: len(before)] == before
    assert [row["seq"] for row in found] == list(range(len(found)))
    assert {row["step"] for row in before} == {3, 6, 9}
    assert {(row["learner"], row["step"]) for row in found[len(before) :]} == {
        ("baseline-seed0", 12), ("ie-ft-seed0", 12),
    }  # fmt: skip


def test_the_stopped_one_of_0_1_begins_again(store, monkeypatch):
    whole = bundled._fashion()
    few = replace(whole, test=whole.test.take(range(500)))  # nobody asks how accurate it becomes
    monkeypatch.setattr(bundled, "_fashion", lambda: few)
    run = store.get(STOPPED_01)
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
    from iekd.ui.rights.access import Access
    from iekd.ui.tabs.run import look
    from iekd.ui.tabs.runs import table_html

    may = Access().of(None)
    table = table_html(store, may)
    assert "cannot be read" not in table
    assert "25.7" in table
    assert "20.4" in table
    for run_id in MODELS:
        looked = look(store, run_id, {}, may)
        assert "ResNet-8" in looked["head"]
        where, what = ("result", "Plain student") if run_id in ACCURACY else ("headline", "You stopped this run")
        assert what in looked[where]
        assert "<svg" in looked["curves"]
        assert "Training on cpu" in looked["log"]
