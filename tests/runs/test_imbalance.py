"""A dataset whose classes have different numbers of images: balanced accuracy and counts wherever a result is shown."""

from __future__ import annotations

import csv
import json
import shutil
from html import unescape

import pytest
from rich.console import Console
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.cli.messages import print_results, results_table
from iekd.results.report import imbalance, is_imbalanced, summary, to_markdown, verdict
from iekd.results.table import to_csv
from iekd.runs.grid import Cell
from iekd.runs.store import Store
from iekd.ui.render.result import result_html
from iekd.ui.render.run_parts import classes_html


@pytest.fixture(scope="module")
def uneven(tmp_path_factory, picture_folder):
    """20, 10 and 4 training images and 12, 6 and 3 test images of the classes."""
    folder = tmp_path_factory.mktemp("uneven") / "pictures"
    for split, counts in (("train", (20, 10, 4)), ("test", (12, 6, 3))):
        for own, count in zip(sorted((picture_folder / split).iterdir()), counts, strict=True):
            (folder / split / own.name).mkdir(parents=True)
            for file in sorted(own.iterdir())[:count]:
                shutil.copy(file, folder / split / own.name)
    return folder


@pytest.fixture(scope="module")
def trained(uneven, tmp_path_factory, tiny_config, complete):
    config = tiny_config(dataset=f"folder:{uneven}", methods=("baseline", "kd"), batch_size=8)
    return complete(Store(tmp_path_factory.mktemp("runs")), config)[0]


def test_the_balanced_accuracy_is_the_mean_of_the_recalls(trained):
    rows = list(csv.DictReader((trained.path / "answers.csv").read_text().splitlines()))
    for learner in trained.report["learners"]:
        name = f"{learner['method']}-seed{learner['seed']}"
        recalls = []
        for known in {row["class"] for row in rows}:
            own = [row[name] == known for row in rows if row["class"] == known]
            recalls.append(100 * sum(own) / len(own))
        assert len(recalls) == 3
        assert learner["balanced_accuracy"] == pytest.approx(sum(recalls) / 3)


def test_every_place_that_shows_a_result_shows_it(trained):
    report = trained.report
    (balanced, other) = (learner["balanced_accuracy"] for learner in report["learners"])
    written = (trained.path / "report.md").read_text()
    assert f"| {report['learners'][0]['accuracy_last']:.2f} | {balanced:.2f} |" in written
    assert written.count("balanced accuracy (%)") == 1
    counts = report["class_counts"]
    assert sorted(counts["train"].values()) == [4, 10, 20]
    first = next(iter(counts["train"]))
    assert f"| {counts['train'][first]} | {counts['test'][first]} |" in written
    shown = unescape(result_html(trained, trained.config, trained.status))
    assert f'data-label="Balanced accuracy"><span>{other:.2f} %' in shown
    assert imbalance(report) in shown
    assert "Training images" in classes_html(report)
    console = Console(record=True, width=200)
    console.print(results_table(report))
    assert f"{balanced:.2f} %" in console.export_text()
    assert summary(report)["learners"][1]["balanced_accuracy"] == other
    line = to_csv([Cell(trained.config, trained.id, report, trained.status.state, False)]).splitlines()[1]
    assert line.endswith(f",{round(balanced, 4)}")


def test_the_sentence_says_what_guessing_gives_and_what_to_do(trained):
    said = imbalance(trained.report)
    assert "20 of" in said
    assert "4 of" in said
    assert "always predicting one class gives 33.3 %" in said
    assert "class weights 'balanced'" in said
    assert said in verdict(trained.report)
    weighed = {**trained.report, "config": {**trained.report["config"], "class_weights": "balanced"}}
    assert "class weights" not in imbalance(weighed)


def test_a_balanced_dataset_is_not_bothered_with_it(finished):
    report = finished[0].report
    assert not is_imbalanced(report)
    assert imbalance(report) == ""
    assert "alanced" not in to_markdown(report)
    assert "alanced" not in result_html(finished[0], finished[0].config, finished[0].status)


def test_reports_of_earlier_versions_have_no_counts(finished):
    report = {key: value for key, value in finished[0].report.items() if key != "class_counts"}
    assert imbalance(report) == ""
    to_markdown(report)


def test_notes_on_the_images_are_said_after_the_table_too(finished, capsys):
    """Where test images are copies of training images, nobody is to read the accuracy alone."""
    note = "2 of 4 test images are equal to training images ('[red]1.png')."
    print_results({**finished[0].report, "data_notes": [note]})
    assert capsys.readouterr().out.endswith(f"Note: {note}\n")


def test_the_epoch_that_did_best_is_no_result(finished):
    """Its weights are gone, and without validation images the test images themselves would choose it."""
    run = finished[0]
    console = Console(record=True, width=200)
    console.print(results_table(run.report))
    shown = [to_markdown(run.report), result_html(run, run.config, run.status), console.export_text()]
    assert not any("est epoch" in text for text in shown)


def test_eval_says_it_too(trained, uneven):
    words = ["eval", "--checkpoint", str(trained.model_folders["baseline-seed0"]), "--dataset", f"folder:{uneven}"]
    result = CliRunner().invoke(app, words)
    balanced = trained.report["learners"][0]["balanced_accuracy"]
    assert f"balanced accuracy: {balanced:.2f} %" in result.stdout
    assert "of 12 images" in result.stdout
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    assert sum(found["class_counts"].values()) == 21
