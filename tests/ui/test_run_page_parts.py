"""What follows the headline on a run's page, over a run folder that nobody trained."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import ARGUMENTS, find_browser
from PIL import Image
from ui_helpers import PATIENCE, serving

from iekd.config.run import make_config
from iekd.data.base import Dataset, Split
from iekd.engine.metrics import Watched
from iekd.results.card import make_card
from iekd.results.significance import OverImages, summarise
from iekd.runs.files import write_json
from iekd.runs.index import Index
from iekd.runs.status import FINISHED, RUNNING
from iekd.runs.store import Run, Store
from iekd.runs.watched import WatchedWriter, go_back_to
from iekd.ui.render.result import result_html
from iekd.ui.render.run import head_html
from iekd.ui.render.run_parts import certainty_html, classes_html, watched_html
from iekd.ui.render.runs import Query, list_html
from iekd.ui.render.so_far import so_far
from iekd.ui.render.sparkline import Sparklines
from iekd.ui.tabs.run import look

NAMES = tuple(f"kind {k}" for k in range(10))
PLAIN = {name: 50.0 + 3 * k for k, name in enumerate(NAMES)}
GAINS = dict(zip(NAMES, (4.0, -3.0, 6.0, 0.0, 1.0, 2.0, -1.0, 5.0, 3.0, 0.5), strict=True))


def made_run(root: Path, live: bool = False, classes: int = 10, **settings: Any) -> Run:
    """A run of three methods with curves, watched images and, unless it is live, a report."""
    config = make_config(**{"methods": ("baseline", "ft", "ie-ft"), "epochs": 6, "teacher": "resnet20", **settings})
    run, handle = Store(root).create(config)
    assert handle is not None
    os.close(handle)
    write_curves(run)
    write_watched(run)
    names = NAMES if classes == len(NAMES) else tuple(f"kind {k}" for k in range(classes))
    if not live:
        write_json(run.path / "report.json", made_report(run, names))
    state = RUNNING if live else FINISHED
    run.write_status(replace(run.status, state=state, stage="students", started=1.0, ended=None if live else 76.0))
    return run


def write_curves(run: Run) -> None:
    writer = run.metrics_writer()
    for epoch in range(1, run.config.epochs + 1):
        for method, seed in run.config.learner_names:
            row = {"stage": "students", "learner": f"{method}-seed{seed}", "epoch": epoch, "step": epoch, "time": epoch}
            values = {"loss": 1.0, "cross_entropy": 2 / epoch, "inheritance": 0.5 / epoch, "exploration": -0.1}
            writer.append({**row, "kind": "train", "values": values})
            writer.append({**row, "kind": "test", "values": {"accuracy": 40 + 5 * epoch + seed, "loss": 1.0}})
    writer.close()


def write_watched(run: Run, epochs: int = 6) -> None:
    """Eight images; the IE student is wrong about them in every other epoch, the others never."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 255, (20, 28, 28, 1), np.uint8), np.arange(20) % 10)
    writer = WatchedWriter(run, Dataset("made", NAMES, split, split), "test", tuple(range(8)))
    for epoch in range(1, epochs + 1):
        for method, seed in run.config.learner_names:
            wrong = method == "ie-ft" and epoch % 2 == 0
            said = tuple((k + wrong) % 10 for k in range(8))
            writer.append(Watched("students", f"{method}-seed{seed}", epoch, epoch, said, (0.1 * epoch + 0.2,) * 8))
    writer.close()


def made_report(run: Run, names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    plain = {name: PLAIN.get(name, 60.0) for name in names}
    better = {name: plain[name] + GAINS.get(name, float(k % 7 - 3)) for k, name in enumerate(names)}
    columns = {"baseline": plain, "ft": plain, "ie-ft": better}
    means = {"baseline": 70.0, "ft": 71.0, "ie-ft": 72.25}
    config = run.config
    accuracies = {m: {seed: means[m] + 0.1 * seed for seed in config.seeds} for m in config.methods}
    over = {m: OverImages(means[m] - 71, means[m] - 69, 1000) for m in config.methods}
    summary = [found.to_json() for found in summarise(accuracies, images=over)]
    counts = dict.fromkeys(names, 100)
    return {
        "run": run.id, "path": str(run.path), "state": FINISHED, "seconds": 75.0, "device": "cpu", "guess": 10.0,
        "dataset": config.dataset, "test_images": 100 * len(names), "train_images": 6000, "diverged": {},
        "class_counts": {"train": counts, "test": counts}, "config": config.model_dump(mode="json"),
        "teacher": {"model": "resnet20", "accuracy": 80.0, "params": 272_474,
                    "class_accuracy": dict.fromkeys(names, 80.0)},
        "learners": [{"method": m, "seed": seed, "accuracy_last": value, "accuracy_best": value, "params": 78_042,
                      "class_accuracy": columns[m]} for m, of in accuracies.items() for seed, value in of.items()],
        "summary": summary, "versions": {}, "command": "iekd train", "speed": None,
    }  # fmt: skip


# adds up how far things move without anybody having touched the page, as browsers measure it
WATCH_SHIFTS = """() => { window.shifts = 0; new PerformanceObserver((list) => list.getEntries().forEach(
    (one) => { if (!one.hadRecentInput) window.shifts += one.value; })).observe({type: 'layout-shift'}); }"""


def names_in(shown: str) -> list[str]:
    return re.findall(r'<span class="name" title="([^"]*)"', shown)


def test_classes_are_sorted_by_their_gain_and_said_in_words(tmp_path: Path) -> None:
    shown = unescape(classes_html(made_report(made_run(tmp_path))))
    assert names_in(shown) == sorted(NAMES, key=lambda name: -GAINS[name])
    assert "is better than the plain student on 7 of 10 classes, worse on 2, the same on 1." in shown
    assert "Largest gain: kind 2, 56.0 to 62.0 % (+6.0 points). Largest loss: kind 1, 53.0 to 50.0 % (−3.0" in shown
    assert "100 test images in a class; one more or less is 1.0 points." in shown
    assert "<table" in shown


def test_of_a_hundred_classes_both_ends_are_shown_and_the_middle_is_folded(tmp_path: Path) -> None:
    shown = unescape(classes_html(made_report(made_run(tmp_path), tuple(f"kind {k}" for k in range(100)))))
    assert len(names_in(shown)) == 100
    fold = shown[shown.index("<summary>85 more classes") :]
    assert names_in(shown)[0] == "kind 2"  # the largest gain
    assert names_in(fold)[-1] == "kind 98"  # of those that lose most, the last by name
    assert len(names_in(shown[: -len(fold)])) == 10


def test_it_does_without_teacher_baseline_or_a_second_method(tmp_path: Path) -> None:
    whole = made_report(made_run(tmp_path))

    def of(*methods: str) -> dict[str, Any]:
        learners = [one for one in whole["learners"] if one["method"] in methods]
        summary = [one for one in whole["summary"] if one["method"] in methods]
        return {**whole, "teacher": None, "learners": learners, "summary": summary}

    assert "at-teacher" not in classes_html(of("baseline", "ie-ft"))
    for methods, missing in ((("ft", "ie-ft"), "no plain student"), (("baseline",), "no other student")):
        alone = classes_html(of(*methods))
        assert names_in(alone) == []
        assert "<table" in alone
        assert missing in certainty_html(of(*methods))
    assert "when the run has finished" in certainty_html(None)
    assert "IE-FT</th>" in certainty_html(whole)


def test_the_main_number_of_the_card_and_the_classes_is_of_one_student(tmp_path: Path) -> None:
    """Of the method that was first among those that explore, not of the one that came out best."""
    report = made_report(made_run(tmp_path))
    for learner in report["learners"]:
        learner["accuracy_last"] = {"baseline": 70.0, "ft": 75.0, "ie-ft": 72.0}[learner["method"]]
    card = make_card(report, "id", "", "made")
    assert [one.label for one in card.numbers] == ["Teacher", "Plain student", "IE student (IE-FT)"]
    assert card.gain == "+2.0 points over the plain student"
    assert "Plain student to IE student (IE-FT)" in classes_html(report)


def test_names_of_classes_are_text(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    assert "<img" not in classes_html(made_report(run, ("<img src=x>", '"onload=x')))
    (run.path / "watched" / "images.json").write_text(
        (run.path / "watched" / "images.json").read_text().replace("kind 1", "<script>")
    )
    assert "<script>" not in watched_html(run, run.config, run.status, True)


def test_watched_images_have_each_networks_newest_prediction(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    shown = unescape(watched_html(run, run.config, run.status, True))
    assert shown.count("<img") == 8
    assert "8 images of the test split" in shown
    assert "so they are test images" in shown
    first = shown[: shown.index("Image 2")]
    assert first.count('class="prediction yes"') == 2
    assert first.count('class="prediction no"') == 1
    assert "kind 1</span><b>80 %</b>" in first
    assert first.count("changed 5 times") == 2  # said and read aloud
    assert first.count("never changed") == 4
    go_back_to(run, 3)
    assert "kind 0</span><b>30 %</b>" in watched_html(run, run.config, run.status, True)


def test_what_there_is_not_is_said_in_words(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    over, live = run.status, replace(run.status, state=RUNNING)
    predictions, images = run.path / "watched" / "predictions.jsonl", run.path / "watched" / "images.json"
    refused = watched_html(run, run.config, over, False)
    assert "shown only to those who" in refused
    assert "<img" not in refused
    predictions.write_text("no JSON\n")
    assert "comes without them" in watched_html(run, run.config, over, True)
    predictions.unlink()
    assert "not yet" in watched_html(run, run.config, live, True)  # their place is held while it trains
    assert "The run ended before" in watched_html(run, run.config, replace(over, state="failed"), True)
    images.unlink()
    assert "when training begins" in watched_html(run, run.config, live, True)
    assert "earlier versions of the program" in watched_html(run, run.config, over, True)
    report = made_report(run)
    for network in (*report["learners"], report["teacher"]):
        del network["class_accuracy"]
    assert "no accuracy by class" in classes_html(report)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "cpu", "threads": 1}, "on the processor (CPU), 1 thread<"),
        ({"device": "cpu"}, "on the processor (CPU)<"),  # a run of an earlier version
        ({"gpu_memory_used": 3 * 2**30, "gpu_utilisation": 87}, "on Fast, 3.0 of 8.0 GiB, utilisation 87&nbsp;%<"),
        ({"gpu_memory_used": 2**29}, "on Fast, 0.5 of 8.0 GiB<"),
        ({"state": FINISHED, "gpu_memory_used": 2**29, "gpu_utilisation": 87}, "on Fast, 8.0 GiB<"),
    ],
)
def test_the_head_names_what_it_computes_on(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    run = made_run(tmp_path)
    gpu = {} if changes.get("device") == "cpu" else {"device": "cuda:0", "gpu": "Fast", "gpu_memory": 8 * 2**30}
    status = replace(run.status, **{"state": RUNNING, **gpu, **changes})
    assert said in head_html(run, run.config, status, Store(tmp_path))


def test_sizes_and_the_teachers_accuracy_are_known_while_it_trains(tmp_path: Path) -> None:
    run = made_run(tmp_path, live=True)
    handle = run.lock()
    shown = result_html(run, run.config, run.status)
    assert shown.count('"Parameters"><span>0.27 M<') == 1
    assert shown.count('"Parameters"><span>0.08 M<') == len(run.config.methods)
    accuracy = so_far(run, run.config, run.status).teacher
    listed = list_html(Index(Store(tmp_path)), Sparklines(), Query(), lambda run, what: False)
    assert accuracy is not None
    assert f'data-label="Teacher" class="number"><div>{accuracy:.1f}</div>' in listed
    assert handle is not None
    os.close(handle)
    missing = run.config.model_copy(update={"dataset": "folder:/nowhere"})  # what it learns from is not here
    assert '"Parameters"><span>–<' in result_html(run, missing, replace(run.status, state=RUNNING))


def test_one_button_of_a_stopped_run_is_the_primary_one(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    (run.path / "models" / "ft-seed0").mkdir(parents=True)
    (run.path / "models" / "ft-seed0" / "model.json").write_text("{}")
    for state, primary in (("stopped", "secondary"), (FINISHED, "primary")):
        run.write_status(replace(run.status, state=state))
        looked = look(Store(tmp_path), run.id, {}, lambda run, what: True)
        assert looked["resume"].visible == (state == "stopped")
        assert looked["compare"].variant == primary


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """One that is over, with a name; and two that train as far as their locks tell."""
    root = tmp_path_factory.mktemp("parts")
    return [made_run(root, name="Clothes & shoes"), made_run(root, live=True), made_run(root, live=True)]


@pytest.fixture(scope="module")
def opened(runs: list[Run]) -> Iterator[Any]:
    """`opened(run, query="", width=1440)` -> a page with that run on view."""
    from playwright.sync_api import sync_playwright

    handles = [run.lock() for run in runs[1:]]
    with serving(runs[0].path.parent) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)

        def show(run: Run, query: str = "", width: int = 1440) -> Any:
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.set_default_timeout(1000 * PATIENCE)
            page.goto(f"{url}/?run={run.id}{query}")
            page.wait_for_selector(".watched img", state="attached")
            return page

        yield show
        browser.close()
    for handle in handles:
        os.close(handle)


@pytest.fixture(scope="module")
def page(opened: Any, runs: list[Run]) -> Any:
    """The finished run, for all tests."""
    return opened(runs[0])


@pytest.mark.browser
def test_dumbbells_are_there_and_sorted_and_folds_start_closed(page: Any) -> None:
    changes = [float(text.replace("−", "-")) for text in page.locator(".dumbbells .change").all_inner_texts()]
    assert changes == sorted(GAINS.values(), reverse=True)
    for fold, inside in (("losses", "#curves svg"), ("certainty", "#certainty table"), ("log", "#log pre")):
        assert not page.locator(inside).first.is_visible()
        page.locator(f"#{fold} > button").click()
        page.locator(inside).first.wait_for()


@pytest.mark.browser
def test_what_is_open_stays_open_and_in_place_while_it_trains(opened: Any, runs: list[Run]) -> None:
    training = opened(runs[1])
    training.locator("#certainty > button").click()
    training.locator("#certainty p").wait_for()
    before = training.locator("#certainty").bounding_box()
    training.evaluate(WATCH_SHIFTS)
    line = json.loads((runs[1].path / "watched" / "predictions.jsonl").read_text().splitlines()[-1])
    with open(runs[1].path / "watched" / "predictions.jsonl", "a") as file:
        file.write(json.dumps({**line, "epoch": 7, "predictions": [9] * 8, "probabilities": [0.99] * 8}) + "\n")
    training.locator(".watched", has_text="99 %").wait_for()
    assert training.locator("#certainty p").is_visible()
    assert not training.locator("#log pre").is_visible()
    assert training.locator("#certainty").bounding_box() == before
    assert training.evaluate("window.shifts") < 0.01
    assert training.locator("[data-card]").count() == 0
    training.close()


@pytest.mark.browser
def test_a_phone_shows_all_that_can_be_done_with_a_run(opened: Any, runs: list[Run]) -> None:
    phone = opened(runs[0], "", 390)
    phone.locator("#again").wait_for()
    buttons = phone.locator("#actions button:visible")
    boxes = [one.bounding_box() for one in buttons.all()]
    assert len(boxes) >= 2
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes), boxes
    assert len({box["height"] for box in boxes}) == 1, boxes
    phone.close()


@pytest.mark.browser
def test_nothing_jumps_when_a_run_ends(opened: Any, runs: list[Run]) -> None:
    """At the top of the page on a wide screen, and at its end on a phone."""
    run, pages = runs[2], []
    for width, where in ((1440, 0), (390, 99_999)):
        watching = opened(run, "", width)
        watching.locator("#stop").wait_for()
        watching.locator(".dumbbells .name").first.wait_for()
        watching.evaluate("y => scrollTo(0, y)", where)
        watching.wait_for_timeout(100)  # until it is drawn there
        watching.evaluate(WATCH_SHIFTS)
        pages.append(watching)
    write_json(run.path / "report.json", made_report(run))
    run.write_status(replace(run.status, state=FINISHED, stage="evaluation", progress=1.0, ended=76.0))
    for watching in pages:
        watching.locator("#result .finished").wait_for()
        watching.locator("[data-card]").wait_for()
        assert not watching.locator("#stop").is_visible()
    moved = [
        watching.evaluate("new Promise((done) => setTimeout(() => done(window.shifts), 300))") for watching in pages
    ]
    assert max(moved) < 0.1, moved
    for watching in pages:
        watching.close()


@pytest.mark.browser
def test_present_is_entered_and_left_by_keyboard(page: Any) -> None:
    page.locator("button[data-present]").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("location.search.includes('present=1')")
    for selector, seen in (
        ("#run-head h2", True), ("#chart canvas", True), (".dumbbells", True), ("#header", False), ("#watched", False),
        ("#actions", False), ("[role=tab]", False), (".results", False), ("[data-leave]", True),
    ):  # fmt: skip
        assert page.locator(selector).first.is_visible() == seen, selector
    assert page.evaluate("document.activeElement.hasAttribute('data-leave')")
    page.keyboard.press("Escape")
    page.wait_for_function("!location.search.includes('present')")
    page.locator("#watched").wait_for()
    assert page.evaluate("document.activeElement.hasAttribute('data-present')")


@pytest.mark.browser
def test_an_address_presents_a_run_that_keeps_streaming(opened: Any, runs: list[Run]) -> None:
    training = opened(runs[1], "&present=1")
    training.wait_for_selector("html[data-present]", state="attached")
    assert f"run={runs[1].id}" in training.url
    writer = runs[1].metrics_writer()
    row = {"stage": "students", "learner": "baseline-seed0", "epoch": 6.5, "step": 65, "kind": "test"}
    writer.append({**row, "time": 7, "values": {"accuracy": 77.7, "loss": 1.0}})
    writer.close()
    training.locator(".chart-legend", has_text="77.7").wait_for()
    training.locator("[data-leave]").click()
    training.wait_for_function("!location.search.includes('present')")
    training.close()


@pytest.mark.browser
def test_the_card_is_a_png_of_that_size_with_a_text_to_copy(page: Any, runs: list[Run]) -> None:
    with page.expect_download() as got:
        page.get_by_role("link", name="Share card").click()
    assert got.value.suggested_filename == f"{runs[0].id}-card.png"
    image = Image.open(io.BytesIO(Path(got.value.path()).read_bytes()))
    assert (image.format, image.size) == ("PNG", (1200, 630))
    page.locator(".take-home summary").click()
    words = page.locator(".take-home details p").inner_text()
    assert words.startswith("Clothes & shoes. ResNet-20 to ResNet-8, 3.5 times smaller")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_it_is_accessible_and_fits(page: Any, width: int, dark: bool) -> None:
    """With the folds open, as the tests before have left them."""
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": 900})
    page.add_style_tag(content="* { transition: none !important; }")  # else colours are measured half-way
    page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
    for state in ("page", "present"):
        if state == "present":
            page.locator("button[data-present]").click()
            page.wait_for_selector("html[data-present]", state="attached")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), state
        found = Axe().run(page, context={"include": [["#run-view"]]}).response["violations"]
        serious = [(one["id"], node["html"][:200]) for one in found for node in one["nodes"]
                   if one["impact"] in ("serious", "critical")]  # fmt: skip
        assert serious == [], state
    page.locator("[data-leave]").click()
