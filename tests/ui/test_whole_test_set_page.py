"""The section of the Compare tab about the whole test set: escaped, private where it has to be, usable with a phone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ui_helpers import PATIENCE, call

from iekd.results.test_set import TestSetPredictions, analyse
from iekd.runs.store import TEST_SET, Store
from iekd.ui.render.test_set import MOST_CLASSES, cell_html, details_html, overview_html
from iekd.ui.tabs.test_set import HIDDEN, NOT_LOOKED_AT, section

EVIL = "<img src=x onerror=alert(1)>"


def analysis(classes: int = 3, sure: bool = True) -> Any:
    labels = np.arange(4 * classes) % classes
    plain, ie = np.roll(labels, 1), labels.copy()
    ie[:2] = plain[:2]
    names = (EVIL, *(f"class {k}" for k in range(1, classes)))
    said = {"teacher": plain, "baseline": plain, "ie-ft": ie}
    confidences = {name: np.full(len(labels), 0.9, np.float32) for name in said} if sure else {}
    images = tuple(f"{k}/{EVIL}.png" for k in range(len(labels)))
    return analyse(TestSetPredictions(names, labels, images, said, confidences, "" if sure else EVIL))


def read(rows: Any) -> list[np.ndarray | None]:
    return [np.zeros((200, 300, 3), np.uint8) if row % 2 else None for row in rows]


def test_names_of_classes_and_images_are_escaped_and_images_small() -> None:
    found = analysis()
    pages = [
        overview_html(found), cell_html(found, 0, 2, read), details_html(found, read),
        details_html(analysis(sure=False), read), details_html(found, read, waiting=True),
    ]  # fmt: skip
    for html in pages:
        assert "<img src=x" not in html
        assert "&lt;img src=x" in html
    assert "gone:" in pages[1]
    assert "data:image/png" in pages[1]
    assert "The probabilities are not known" in pages[3]
    assert "placeholder" in pages[4]
    assert "data:image" not in pages[4]


def test_every_number_of_the_matrices_is_there() -> None:
    found = analysis()
    html = overview_html(found)
    for i in range(3):
        for j in range(3):
            cell = re.search(rf'data-cell="{i},{j}".*?</button>', html)
            a, b = found.matrices["baseline"][i, j], found.matrices["ie-ft"][i, j]
            assert (cell is not None) == bool(a or b)
            if cell:
                assert f'class="first">{a}<' in cell.group()
                assert f'class="second">{b}<' in cell.group()
    assert html.count('tabindex="0"') == 1, "one stop for the tab key; arrows do the rest"


def test_many_classes_are_a_list_of_pairs() -> None:
    assert "matrix-box" in overview_html(analysis(MOST_CLASSES))
    html = overview_html(analysis(MOST_CLASSES + 1))
    assert "matrix-box" not in html
    assert html.count("data-cell") > 10


def test_the_endpoint_counts_every_image_and_names_no_folder(server: str, finished_run: str, pictures: Path) -> None:
    kind, (said,) = call(server, "test_set", finished_run, "teacher", "ie-ft")
    assert kind == "complete"
    assert (said["first"], said["second"], said["images"]) == ("teacher", "ie-ft", 27)
    assert np.array(said["confusion"]["ie-ft"]).sum() == 27
    assert sum(one["images"] for one in said["calibration"]["ie-ft"]["bins"]) == 27
    assert str(pictures) not in json.dumps(said)
    assert call(server, "test_set", finished_run, "nobody")[0] == "error"


def test_a_stranger_sees_numbers_and_none_of_somebodys_images(
    runs_dir: Path, finished_run: str, pictures: Path, tmp_path: Path
) -> None:
    def nobody(run: Any, what: str) -> bool:
        return False

    shutil.copytree(runs_dir / finished_run, tmp_path / finished_run, ignore=shutil.ignore_patterns(TEST_SET))
    store = Store(tmp_path)
    for compute in (False, True):
        found = section(store, finished_run, "", "", nobody, compute)
        assert "confusion matrix" in found.overview.lower()
        assert "not been computed" in found.details
        assert "data:image" not in found.details
        assert str(pictures) not in found.details
        assert not found.waiting
    assert not (tmp_path / finished_run / TEST_SET).exists()
    shown = section(store, finished_run, "", "", lambda run, what: True, True)
    assert "not been computed" not in shown.details
    hidden = section(store, finished_run, "", "", nobody, False)
    assert "data:image" not in hidden.details
    if "data:image" in shown.details:
        assert f"{HIDDEN}:" in hidden.details
    shutil.rmtree(tmp_path / finished_run / TEST_SET)
    (tmp_path / finished_run / "answers.csv").unlink()
    assert NOT_LOOKED_AT in section(store, finished_run, "", "", nobody, True).overview


@pytest.mark.browser
@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_a_cell_opens_its_images(browser: Any, server: str, finished_run: str, width: int, theme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(1000 * PATIENCE)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(f"{server}/?run={finished_run}&tab=compare&__theme={theme}")
    page.locator("#look-at-test-set").click()
    page.wait_for_selector("#test-set-details .diagrams")
    assert page.locator("#test-set-first input").input_value() == "Plain student"
    assert page.locator(".matrix").is_visible() == (width == 1440)
    shown = page.locator(f"#test-set {'.matrix' if width == 1440 else '.pairs'} [data-cell]:visible")
    if width == 1440:
        page.get_by_role("button", name="IE-FT", exact=True).click()
        assert page.locator(".matrix .second:visible").count() == shown.count()
        shown.first.focus()
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.dataset.cell") != shown.first.get_attribute("data-cell")
        counts = [int(shown.nth(k).locator(".first").text_content()) for k in range(shown.count())]
        assert sum(counts) == 27
        chosen = max(range(len(counts)), key=counts.__getitem__)
        shown.nth(chosen).click()
    elif shown.count():
        shown.first.click()
    if shown.count():
        page.wait_for_selector("#test-set-cell figure img")
        label = page.locator("#test-set .picked").first.get_attribute("title") or ""
        assert label.partition(" ")[0] in page.locator("#test-set-cell h3").inner_text()
        assert page.evaluate("[...document.querySelectorAll('#test-set-cell img')].every((i) => i.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert errors == []
    page.close()
