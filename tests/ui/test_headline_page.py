"""The main number at the top of a run's page, and the button that adds seeds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from browser import ARGUMENTS, find_browser
from ui_helpers import PATIENCE, serving, wait_until

from iekd.export.check import Latency
from iekd.launchers.local import LocalLauncher
from iekd.runs.siblings import extended_by, family_of
from iekd.runs.status import RUNNING, STOPPED
from iekd.runs.store import Store
from iekd.ui.render.headline import headline_html
from iekd.ui.render.run import head_html
from iekd.ui.rights.access import Access, AccessError
from iekd.ui.shared.actions import add_seeds
from iekd.ui.tabs.run import look


@pytest.fixture
def shown(tmp_path: Path, written_run: Any) -> Any:
    """`shown(**values)`: the block of an invented finished run, as text without tags' line breaks."""

    def show(change: Any = None, **values: Any) -> str:
        store = Store(tmp_path)
        run = written_run(store, **values)
        report = run.report
        if change:
            change(report)
            (run.path / "report.json").write_text(json.dumps(report))
        return headline_html(run, run.config, run.status, family_of(store, run))

    return show


def test_the_number_its_gain_and_what_the_interval_is_of(shown: Any) -> None:
    text = shown(plain=86.0, taught=88.0, teacher=94.0)
    for said in (
        "88.0 %", "+2.0 points", "over the plain student (86.0 %)", "95 %: +1.0 to +3.0 on other test images, 1 seed",
        "<b>3.0×</b> smaller than the teacher", "<b>25 %</b> of the gap between plain student and the teacher (94.0 %)",
    ):  # fmt: skip
        assert text.count(said) == 1, said
    assert "faster" not in text, "nobody has measured it"


@pytest.mark.parametrize(
    ("values", "there", "absent"),
    [
        (
            {"plain": 88.0, "taught": 86.0},
            "<b>94.0 %</b> accuracy of the teacher; the plain student comes closer",
            "−−",
        ),
        ({"taught": 95.0}, "it is above the teacher", ""),
        ({"plain": 90.0, "taught": 91.0, "teacher": 80.0}, "knows less than the plain student", "of the gap"),
        ({"plain": 10.0, "taught": 10.5}, "Too weak to judge", "of the gap"),
        ({"methods": ("baseline",)}, "No other student to compare it with", "points"),
        ({"methods": ("ft", "ie-ft")}, "No plain student to compare it with", "points"),
        ({"methods": ("baseline", "kd", "ie-at", "ie-ft")}, "IE-AT", "KD: test images"),
    ],
)
def test_what_is_said_of_unusual_runs(shown: Any, values: dict[str, Any], there: str, absent: str) -> None:
    text = shown(**values)
    assert there in text
    assert not absent or absent not in text


def test_a_run_at_chance_level_says_why_once_and_judges_nothing(shown: Any) -> None:
    text = shown(plain=10.0, taught=10.5)
    assert text.count("majority class") == 1
    assert "points" not in text
    assert "judgement" not in text


def test_a_larger_student_and_a_diverged_one(shown: Any) -> None:
    def change(report: dict[str, Any]) -> None:
        report["learners"] = [r for r in report["learners"] if r["method"] != "ie-ft"]
        report["learners"][0]["params"] = 18
        report["diverged"] = {"ie-ft-seed0": "It became nan."}

    text = shown(change)
    assert "<b>2.0×</b> larger than the teacher" in text
    assert "ie-ft-seed0 diverged and is left out of all numbers. It became nan." in text
    assert "Plain student: test images" in text


def test_a_report_of_an_earlier_version_without_teacher_or_summary(shown: Any) -> None:
    def change(report: dict[str, Any]) -> None:
        for key in ("summary", "guess"):
            del report[key]
        report["teacher"] = None

    text = shown(change)
    assert "+2.0 points" in text
    assert "1 seed, no interval" in text
    assert "smaller" not in text


def test_the_speed_is_that_of_an_export(tmp_path: Path, written_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Measured:
        latencies = (Latency("teacher", "torch", 3.0, 3, 3, 9), Latency("student", "torch", 1.5, 1, 1, 9))

    monkeypatch.setattr("iekd.ui.render.headline.certificates_in", lambda folder: [Measured])
    store = Store(tmp_path)
    run = written_run(store)
    (run.path / "exports" / "ie-ft-seed0-onnx").mkdir(parents=True)
    assert "<b>2.0×</b> faster than the teacher" in headline_html(run, run.config, run.status, family_of(store, run))


def test_while_it_trains_the_numbers_are_those_of_the_epoch_that_all_have_reached(
    tmp_path: Path, written_run: Any
) -> None:
    store = Store(tmp_path)
    run = written_run(store, epochs=3)
    (run.path / "report.json").unlink()
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_text("".join(lines[:6]))  # of the second epoch only the baseline's
    status = replace(run.status, state=RUNNING, stage="students", stage_progress=0.5, progress=0.7)
    text = headline_html(run, run.config, status, family_of(store, run))
    assert "So far, after 1 of 3 epochs" in text
    assert "68.0 %" in text
    assert "1 seed so far" in text
    assert "95 %" not in text
    assert "Early numbers" not in text
    assert "Early numbers" in headline_html(
        run, run.config.model_copy(update={"epochs": 4}), status, family_of(store, run)
    )
    head = head_html(run, run.config, status, store)
    assert head.count(" %</b>") == 1, "one percentage"
    assert "<b>70 %</b>" in head
    assert "epoch 2 of 3" in head
    stopped = replace(status, state=STOPPED)
    assert "1 seed</span>" in headline_html(run, run.config, stopped, family_of(store, run))
    assert "after 1 of 3 epochs" in head_html(run, run.config, stopped, store), "as the numbers below it"


def test_before_the_first_epoch_there_is_room_and_no_number(tmp_path: Path, written_run: Any) -> None:
    store = Store(tmp_path)
    run = written_run(store)
    for name in ("report.json", "metrics.jsonl"):
        (run.path / name).unlink()
    family = family_of(store, run)
    assert "The first numbers come soon" in headline_html(run, run.config, replace(run.status, state=RUNNING), family)
    assert headline_html(run, run.config, replace(run.status, state=STOPPED), family) == ""


def test_two_clicks_start_one_run_and_both_pages_count_all_seeds(
    finished_run: str, runs_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs_dir / finished_run, tmp_path / finished_run)
    launcher = LocalLauncher(Store(tmp_path))
    run = launcher.store.get(finished_run)
    with pytest.raises(AccessError):
        add_seeds(launcher, Access(public=True), None, run.id, 1)
    started = {add_seeds(launcher, Access(), None, run.id, 1) for _ in range(2)}
    assert len(started) == 1
    new = launcher.store.get(started.pop())
    assert extended_by(new) == run.id
    looked = look(launcher.store, run.id, {}, lambda run, what: True)
    if looked["seen"]["family"][0][1] in ("queued", "running"):
        assert not looked["more"].visible
        assert looked["timer"].active
    status = wait_until(lambda: not new.status.live and new.status)
    assert status.state == "finished", (status.error, new.log_tail(40))
    assert new.config.seeds == (1,)
    weights = [one.path / "models" / "teacher" / "model.safetensors" for one in (run, new)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    for one in (run, new):
        family = family_of(launcher.store, one)
        assert [s.why_not for s in family.siblings] == [""]
        assert {r["seed"] for r in family.report["learners"]} == {0, 1}
        page = look(launcher.store, one.id, {}, lambda run, what: True)
        assert "mean of 2 seeds" in page["headline"]
        assert "added after a look" in page["headline"]
        assert isinstance(page["more"], gr.Button)
        assert page["more"].visible


@pytest.fixture
def page(tmp_path: Path, written_run: Any) -> Iterator[tuple[Any, str, Any]]:
    """(browser's page, address, run): an invented run, served."""
    from playwright.sync_api import sync_playwright

    run = written_run(Store(tmp_path), methods=("baseline", "ie-ft"))
    report = run.report
    classes = {"a": 50.0}
    for learner in report["learners"]:
        learner["class_accuracy"] = classes
    report["teacher"]["class_accuracy"] = classes
    (run.path / "report.json").write_text(json.dumps({**report, "speed": None}))
    with serving(tmp_path) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        opened = browser.new_page()
        opened.set_default_timeout(1000 * PATIENCE)
        yield opened, url, run
        browser.close()


@pytest.mark.browser
def test_the_block_stands_at_the_top_and_a_refusal_is_said(page: tuple[Any, str, Any]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened, url, run = page
    for width, scheme in ((1440, "light"), (390, "dark")):
        opened.set_viewport_size({"width": width, "height": 900})
        opened.goto(f"{url}/?run={run.id}&__theme={scheme}")
        opened.wait_for_selector("#headline section")
        opened.wait_for_selector("#add-seeds")
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tops = [opened.locator(name).bounding_box()["y"] for name in ("#headline", "#add-seeds", "#result")]
        assert tops == sorted(tops)
        found = Axe().run(opened, context="#headline").response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    opened.locator("#add-seeds").click()
    opened.wait_for_selector("text=no teacher in its folder")
    assert len(Store(run.path.parent).list()) == 1
