"""What is said of results, without a run; the reports of real runs are in test_worker.py."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from iekd.runs.report import commit, summaries, verdict
from iekd.significance import OverImages

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


def test_the_commit_is_the_checkouts(tmp_path, monkeypatch):
    head = subprocess.run(["git", "-C", CHECKOUT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("no checkout")
    assert commit().removesuffix("+") == head.stdout.strip()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == "", "without git there is no commit to name"
