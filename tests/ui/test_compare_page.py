"""The Compare tab in a browser, on a screen and on a phone: from a zip to the images on which two runs differ."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ui_helpers import PATIENCE

from iekd import data

pytestmark = pytest.mark.browser
COUNT = 45  # images: three pages
FIRST = "#comparison .answer:first-child"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test images of the shipped networks' dataset in folders of their classes, and two files that are no images."""
    test, path = data.load("fashion-mnist-sample"), tmp_path_factory.mktemp("packed") / "clothes.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(COUNT):
            content = io.BytesIO()
            Image.fromarray(test.test.images[i].squeeze()).save(content, "PNG")
            folder = test.class_names[test.test.labels[i]].replace("/", "_")
            archive.writestr(f"{folder}/{i:02}.png", content.getvalue())
        archive.writestr("Bag/broken.png", b"nothing")
    return path


def opened(browser: Any, address: str, width: int) -> tuple[Any, list[str]]:
    page, errors = browser.new_page(viewport={"width": width, "height": 900}), []
    page.set_default_timeout(1000 * PATIENCE)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.wait_for_selector("#examples [data-example]")
    return page, errors


def give(page: Any, *files: Path) -> None:
    page.locator("#upload input[type=file]").set_input_files(list(map(str, files)))
    page.wait_for_selector("#comparison .totals")


def settled(page: Any, condition: str) -> None:
    page.wait_for_function(f"() => {{ const at = document.querySelector('#comparison'); return {condition}; }}")


# what waits may not be pale
WATCH = """() => {
  window.opacities = [];
  const look = () => {
    const waiting = document.querySelector('#comparison .placeholder[role=status]');
    if (waiting) window.opacities.push(getComputedStyle(waiting.closest('.html-container')).opacity);
    requestAnimationFrame(look);
  };
  look();
}"""


def test_what_waits_can_be_read_and_the_boxes_keep_their_height(browser: Any, server: str, packed: Path) -> None:
    page, _errors = opened(browser, f"{server}/?tab=compare", 390)
    page.evaluate(WATCH)
    give(page, packed)
    assert set(page.evaluate("window.opacities")) == {"1"}
    heights = [page.locator(of).bounding_box()["height"] for of in ("#upload", "#camera")]
    assert abs(heights[0] - heights[1]) < 4, heights
    page.close()


def test_a_zip_of_class_folders_is_paged_filtered_and_corrected(browser: Any, server: str, packed: Path) -> None:
    page, errors = opened(browser, f"{server}/?tab=compare", 1440)
    give(page, packed)
    totals = page.locator("#comparison .totals").inner_text()
    assert totals.startswith(f"{COUNT} images: the models agree on")
    assert f"1 could not be read. Right of {COUNT} labelled: Teacher" in totals
    assert page.locator("#comparison .answer").count() == 20
    assert page.locator("#comparison").bounding_box()["height"] < 3000

    more = page.locator(f"{FIRST} .more")
    more.focus()
    page.keyboard.press("Enter")
    settled(page, "[...at.querySelector('.answer').querySelectorAll('figure img')].every((i) => i.naturalWidth === 28)")
    rows = page.locator(f"{FIRST} .shares tbody tr")
    assert rows.count() >= 5
    assert rows.first.locator("td").count() == 3, "one column for each network, with the same classes in each row"
    assert more.get_attribute("aria-expanded") == "true"

    truth = page.locator(f"{FIRST} select")
    key, right = truth.get_attribute("data-right"), truth.input_value()
    other = "Bag" if right != "Bag" else "Coat"
    marks = page.locator(f"{FIRST} .mark.yes").count()
    assert marks >= 1
    truth.focus()
    truth.select_option(other)
    settled(page, "at.querySelector('.answer').querySelector('.mark.no')")
    page.wait_for_function("key => document.activeElement.dataset?.right === key", arg=key)
    assert page.locator(f"{FIRST} .panel-of-image").is_visible(), "what was open stays open"

    wrong = page.locator('#comparison [data-show="all-wrong"]')
    count = int(wrong.locator("b").inner_text())
    assert count >= 1
    wrong.click()
    settled(page, "at.querySelector('[data-show=\"all-wrong\"]').ariaPressed === 'true'")
    page.wait_for_function("() => document.activeElement.dataset?.show === 'all-wrong'")
    assert page.locator("#comparison .answer").count() == count
    assert page.locator("#comparison .mark.yes").count() == 0
    page.locator('#comparison [data-show="all"]').click()
    settled(page, "at.querySelectorAll('.answer').length === 20")
    page.locator("#comparison .pages [data-turn='1']").click()
    settled(page, "at.querySelector('.pages span').textContent.startsWith('21 to 40')")
    with page.expect_download() as taken:
        page.locator("#comparison a.download:has-text('PNG')").click()
    assert Image.open(taken.value.path()).height > 20 * 60
    assert errors == []
    page.close()


def test_models_of_another_dataset_are_refused_by_name_and_one_that_fits_is_added(
    browser: Any, server: str, finished_run: str, pictures: Path
) -> None:
    page, errors = opened(browser, f"{server}/?run={finished_run}&tab=compare", 1440)
    give(page, pictures / "test" / "disc" / "0.png")
    assert page.locator(f"{FIRST} .said").count() == 3
    disabled = page.locator("#comparison .filters button:disabled small").all_inner_texts()
    assert disabled == ["needs right answers"] * 3
    page.locator("#models input").fill("88.0")
    page.get_by_role("option", name="shipped").first.click()
    page.wait_for_selector("#comparison .problem:has-text('shipped')")
    assert "do not know the same classes" in page.locator("#comparison .problem").inner_text()
    assert page.locator(f"{FIRST} .said").count() == 3
    page.locator("#models .token-remove, #models .remove-all").last.click()
    page.wait_for_selector("#comparison .problem:has-text('No model is chosen')")
    assert errors == []
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_answers_at_once_and_nothing_is_hard_to_read(
    browser: Any, server: str, packed: Path, theme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, errors = opened(browser, f"{server}/?tab=compare&__theme={theme}", 390)
    give(page, packed)
    settled(page, "at.querySelector('.answer').getBoundingClientRect().top < innerHeight / 2 && scrollY > 0")
    assert page.locator(FIRST).bounding_box()["height"] < 240
    page.locator(f"{FIRST} .more").click()
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = axe.run(page, context="#comparison").response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(width, one["id"], one["nodes"][0]["html"]) for one in serious] == []
    assert errors == []
    page.close()
