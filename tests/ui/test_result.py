"""The result of a run as the page says it."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

from iekd.runs.siblings import Family
from iekd.runs.store import Store
from iekd.ui.render.headline import headline_html
from iekd.ui.render.result import result_html


def test_both_intervals_of_a_difference_are_named(finished_run: str, runs_dir: Path) -> None:
    run = Store(runs_dir).get(finished_run)
    report = run.report
    (tested,) = [s["difference"]["over_images"] for s in report["summary"] if s["difference"]]
    shown = unescape(result_html(run, run.config, run.status))
    said = f"images {tested['low']:+.2f} to {tested['high']:+.2f}".replace("-", "−")
    assert f"<small>{said}</small>" in shown
    assert "Images: what other images like those of the test" in shown
    head = unescape(headline_html(run, run.config, run.status, Family(report)))
    said = f"95 %: {tested['low']:+.1f} to {tested['high']:+.1f} on other test images, 1 seed".replace("-", "−")
    assert said in head
    assert "one seed" in head or "Not decided" in head or "Too weak" in head
    assert not re.search(r"[ >]-\d", head), "minus signs are no hyphens"


def test_results_of_earlier_versions_are_shown_without(finished_run: str, runs_dir: Path) -> None:
    run = Store(runs_dir).get(finished_run)
    path = run.path / "report.json"
    whole = path.read_text()
    report = json.loads(whole)
    for summary in report["summary"]:
        if summary["difference"]:
            del summary["difference"]["over_images"]
    try:
        for earlier in (report, {key: value for key, value in report.items() if key != "summary"}):
            path.write_text(json.dumps(earlier))
            shown = result_html(run, run.config, run.status)
            head = headline_html(run, run.config, run.status, Family(run.report))
            assert "1 seed, no interval" in head or "Too weak" in head
            assert "Images: " not in shown
            assert "<small>images" not in shown
    finally:
        path.write_text(whole)
