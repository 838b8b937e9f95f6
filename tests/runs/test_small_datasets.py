"""Six pictures, two of them for testing, are not ready to go: said by form, command line, endpoint and report."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.config.run import make_config
from iekd.data.base import DatasetInfo
from iekd.results.report import remarks
from iekd.runs.prepare import Prepared, prepare
from iekd.runs.status import Status
from iekd.runs.store import Store
from iekd.ui.api.methods import status_of
from iekd.ui.render.run import head_html
from iekd.ui.tabs.forecast import forecast_html


def test_the_form_says_it_before_start(tmp_path):
    info = DatasetInfo("fashion-mnist-sample", "six", 4, 2, 2, 1, 28)
    prepared = Prepared(make_config(methods=("baseline",), teacher="none"), info, None)
    shown = forecast_html(prepared, Store(tmp_path))
    assert "<dt>Warning</dt><dd><b>With 2 test images the test accuracy means nothing" in shown
    assert any(caution.serious for caution in prepared.cautions())


def test_the_shipped_sample_has_nothing_to_be_said(tmp_path):
    assert prepare(make_config(), tmp_path).cautions() == []


@pytest.fixture(scope="module")
def small(tmp_path_factory, tiny_config, complete):
    """96 training and 60 test images at batch 64: one step an epoch."""
    config = tiny_config(methods=("baseline",), teacher="none", batch_size=64)
    return complete(Store(tmp_path_factory.mktemp("runs")), config)[0]


def test_a_run_and_its_endpoint_say_it(small):
    said = status_of(small, lambda run, action: True)["warnings"]
    assert len(said) == 2
    assert "Batch size 64 makes 1 step an epoch of 96 training images and leaves out 32" in said[0]
    assert said[0] in (small.path / "log.txt").read_text()
    live = Status(state="running", created=1.0, cautions=said)
    assert "Batch size 8 makes 12." in head_html(small, small.config, live, Store(small.path.parent))
    assert Status().cautions == []


def test_the_command_line_says_it_and_changes_nothing(tiny_options, tmp_path, monkeypatch):
    import iekd.cli.train as cli

    seen = []
    monkeypatch.setattr(cli, "train_here", lambda run, *_: seen.append(run.config))
    monkeypatch.setattr(cli, "say_how_it_ended", lambda run, as_json: None)
    words = ["--dataset", tiny_options["dataset"], "--methods", "baseline", "--teacher", "none", "--resolution", "16"]
    result = CliRunner().invoke(app, ["train", *words, "--runs-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "Warning: Batch size 128 makes 1 step" in result.stderr
    assert seen[0].batch_size == 128


def test_the_report_says_that_two_test_images_tell_nothing():
    report = {"learners": [{"method": "baseline", "seed": 0, "accuracy_last": 100.0}], "test_images": 2}
    assert "With 2 test images the test accuracy means nothing" in " ".join(remarks(report))
