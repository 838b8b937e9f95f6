"""What is said of results, without a run; the reports of real runs are in test_worker.py."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from iekd.results.report import _skipped, remarks, summaries, verdict
from iekd.results.significance import OverImages
from iekd.runs.outcome import commit

CHECKOUT = Path(__file__).parents[2]


def results(**accuracies: list[float]) -> dict:
    learners = [
        {"method": m.replace("_", "-"), "seed": s, "accuracy_last": a}
        for m, values in accuracies.items()
        for s, a in enumerate(values)
    ]
    return {"learners": learners}


CHANCE = "with one seed, so chance may have a part in it."


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (results(baseline=[80.0], ie_ft=[82.5]), f"ie-ft is 2.5 points above the baseline, {CHANCE}"),
        (results(baseline=[80.0], kd=[80.01]), f"kd is level with the baseline, {CHANCE}"),
        (results(baseline=[80.0], kd=[81.0], ft=[83.0]), f"ft is 3.0 points above the baseline, {CHANCE}"),
        (results(baseline=[80.0]), ""),
        (results(kd=[80.0]), ""),
    ],
)
def test_the_verdict_is_honest(report, sentence):
    assert verdict(report) == sentence


def test_accuracies_are_summarised_by_method():
    found = summaries(results(baseline=[1.0, 2.0], kd=[3.0]))
    assert [(s.method, s.n, s.mean) for s in found] == [("baseline", 2, 1.5), ("kd", 1, 3.0)]


def test_what_test_images_leave_open_is_read_from_the_report():
    report = results(baseline=[80.0], kd=[81.0])
    assert summaries(report)[1].difference.over_images is None, "reports of earlier versions do not know"
    tested = {"low": -2.0, "high": 4.0, "n": 100}
    report["summary"] = [
        {"method": "baseline", "difference": None}, {"method": "kd", "difference": {"mean": 1.0, "over_images": tested}}
    ]  # fmt: skip
    assert summaries(report)[1].difference.over_images == OverImages(**tested)
    assert "-2.0 to +4.0" in verdict(report)


def test_of_many_files_that_cannot_be_read_the_first_are_named():
    report = {"dataset": "folder:/some/pictures", "skipped_files": [f"/some/pictures/a/{i}.png" for i in range(1021)]}
    said = [line for line in _skipped(report) if line]
    assert said[0] == "1,021 files that cannot be read were left out:"
    assert said[1] == "- `a/0.png`"
    assert len(said) == 1 + 20 + 1
    assert said[-1] == "- and 1,001 more, which report.json names"
    assert _skipped({"dataset": "cifar10"}) == []
    assert _skipped({"dataset": "folder:/a", "skipped_files": ["/a/x\n# y.png"]})[2] == "- `x # y.png`"


def whole(guess: float | None, teacher: float | None, **accuracies: list[float]) -> dict:
    report = {**results(**accuracies), "teacher": teacher and {"accuracy": teacher}, "test_images": 400}
    return report if guess is None else {**report, "guess": guess}


def test_a_run_that_learned_nothing_says_so_and_compares_nothing():
    said = verdict(whole(10.0, None, baseline=[10.0], ie_ft=[11.5]))
    assert said == (
        "Baseline and ie-ft are not clearly better than always predicting the majority class, which is right for "
        "10.0 % of the test images. Train longer, lower the learning rate, or test on more images."
    )
    assert "above the baseline" in verdict(whole(None, None, baseline=[10.0], ie_ft=[11.5])), "of an earlier version"


def test_one_that_learned_is_still_compared():
    said = verdict(whole(10.0, 80.0, baseline=[10.0], kd=[60.0]))
    assert said.startswith("kd is 50.0 points above the baseline")
    assert "Baseline is not clearly better" in said


@pytest.mark.parametrize(("teacher", "warned"), [(50.0, True), (67.6, False), (90.0, False), (None, False)])
def test_a_teacher_that_knows_less_than_the_baseline_is_named(teacher, warned):
    said = remarks(whole(33.3, teacher, baseline=[67.6], kd=[60.0]))
    assert (said == []) is not warned
    if warned:
        assert "The teacher (50.00 %) knows less than the plain student (67.60 %)" in said[0]


def test_a_teacher_that_guesses_is_named_before_its_students():
    assert remarks(whole(33.3, 33.3, baseline=[34.0], kd=[33.0]))[0].startswith("The teacher, baseline and kd")


def test_the_commit_is_the_checkouts(tmp_path, monkeypatch):
    head = subprocess.run(["git", "-C", CHECKOUT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("no checkout")
    assert commit().removesuffix("+") == head.stdout.strip()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == "", "without git there is no commit to name"
