"""The form of the tab Train in a browser: choices, what is wrong, the search of settings, Start always in view."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from ui_helpers import PATIENCE, serving

pytestmark = pytest.mark.browser
SIZES = [(1440, 900), (390, 844)]
IN_VIEW = """() => { const place = document.querySelector('#start').getBoundingClientRect();
  return place.height > 0 && place.top >= 0 && place.bottom <= innerHeight; }"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("runs")) as url:
        yield url


@pytest.fixture
def form(browser: Any, address: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(f"{address}/?tab=train")
    page.wait_for_selector("#forecast dl")
    yield page
    page.close()


def command(page: Any, words: str) -> None:
    """Wait until the command has these words."""
    page.wait_for_function("words => document.querySelector('#command textarea').value.includes(words)", arg=words)


def test_the_first_screen_says_what_to_do_in_three_steps(form: Any) -> None:
    steps = [" ".join(text.split()) for text in form.locator("#steps h2.step").all_inner_texts()]
    assert steps[:3] == ["1 Images", "2 Networks", "3 Methods"]
    levels = form.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].filter(h => h.offsetParent).map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels
    assert form.evaluate(IN_VIEW)
    assert "ResNet-20 → ResNet-8" in form.locator("#pair-in-short").inner_text()
    assert "about" in form.locator("#estimate").inner_text()
    assert not form.locator("#f-methods").is_visible()


def test_a_card_changes_the_methods_and_a_value_of_ones_own_leaves_the_card(form: Any) -> None:
    form.locator("#method-choice label", has_text="All IE methods").click()
    command(form, "--methods baseline,at,ft,od,dml,ie-at,ie-ft,ie-od,ie-dml")
    form.locator("#rigour label", has_text="3 seeds").first.click()
    command(form, "--seeds 0,1,2")
    assert form.locator("#f-seeds textarea, #f-seeds input").first.input_value() == "0, 1, 2"
    form.locator("#f-epochs input").fill("7")
    command(form, "--epochs 7")
    assert form.locator("#rigour label:has(input:checked)").inner_text().startswith("Your own values")
    form.locator("#method-choice label", has_text="Pick").click()
    form.locator("#f-methods label", has_text="ie-od:").click()
    form.wait_for_function("() => !document.querySelector('#command textarea').value.includes('ie-od')")
    command(form, "ie-ft,ie-dml")
    form.locator("#rigour label", has_text="Paper").click()
    command(form, "--epochs 160")
    form.wait_for_selector(".group-head[data-group=optimiser] .changed:text('1 changed')")


@pytest.mark.parametrize(("name", "value"), [("lr", "1000"), ("seeds", "1, 1")])
def test_what_is_wrong_is_marked_at_its_field_and_start_refused(form: Any, name: str, value: str) -> None:
    control = form.locator(f"#f-{name} input, #f-{name} textarea").first
    if name == "lr":
        form.locator(".group-head[data-group=optimiser]").click()
    control.fill(value)
    form.wait_for_selector(f"#f-{name}[data-wrong] .field-problem")
    assert control.get_attribute("aria-invalid") == "true"
    described = form.locator(f"#{control.get_attribute('aria-describedby')}")
    assert described.inner_text() == form.locator("#error .what").inner_text()
    if name == "lr":  # closed by hand, the group opens again at the link
        form.locator(".group-head[data-group=optimiser]").click()
        assert not control.is_visible()
    form.locator("#start").click()
    form.locator("#error [data-goto]").click()
    assert form.evaluate(f"document.activeElement.closest('#f-{name}') !== null")
    assert "run=" not in form.url
    control.fill("0.1" if name == "lr" else "1")
    form.wait_for_selector(f"#f-{name}:not([data-wrong])")
    assert control.get_attribute("aria-invalid") is None


def test_a_wrong_folder_is_marked(form: Any) -> None:
    form.locator("#f-dataset label", has_text="Your own images").click()
    form.locator("#f-folder input, #f-folder textarea").first.fill("/nowhere/at/all")
    form.wait_for_selector("#f-folder[data-wrong] .field-problem:has-text('/nowhere/at/all')")


def test_settings_are_found_by_their_words_and_one_group_is_open_at_a_time(form: Any) -> None:
    shown = form.locator("#advanced .block[id^='f-']:visible")
    assert shown.count() == 0
    search = form.locator("#setting-search")
    search.fill("weight decay")  # a label
    form.wait_for_selector("#f-weight_decay:visible")
    assert shown.count() < 5
    search.fill("validation_fraction")  # a name
    form.wait_for_selector("#f-validation_fraction:visible")
    assert shown.count() == 1
    search.fill("arrows to the left")  # a help text
    form.wait_for_selector("#f-flip:visible")
    search.fill("xyz")
    form.wait_for_selector("#setting-found:has-text(\"No setting matches 'xyz'\")")
    assert shown.count() == 0
    search.fill("")
    form.wait_for_selector(".group-head[data-group=teacher]:visible")
    form.locator(".group-head[data-group=teacher]").focus()
    form.keyboard.press("Enter")
    form.wait_for_selector("#f-teacher_from:visible")
    form.locator(".group-head[data-group=optimiser]").click()
    form.wait_for_selector("#f-lr:visible")
    assert form.locator(".group-head[aria-expanded=true]").count() == 1
    assert not form.locator("#f-teacher_from").is_visible()


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_start_stays_in_view_and_nothing_is_cut_off(form: Any, width: int, height: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    form.emulate_media(color_scheme=scheme)
    form.set_viewport_size({"width": width, "height": height})
    form.locator(".group-head[data-group=optimiser]").click()
    for place in ("0", "document.body.scrollHeight / 2", "document.body.scrollHeight"):
        form.evaluate(f"window.scrollTo(0, {place})")
        form.wait_for_function(IN_VIEW)
    assert form.evaluate("document.documentElement.scrollWidth <= innerWidth")
    cut = form.evaluate(
        "[...document.querySelectorAll('.cards label span')].filter(s => s.scrollWidth > s.clientWidth + 1).length"
    )
    assert cut == 0
    form.mouse.move(0, 0)  # a card below it has other colours, and takes a moment to have them
    form.wait_for_function("!document.getAnimations().some(one => one instanceof CSSTransition)")
    found = Axe().run(form, context="#form").response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [node["html"][:160] for node in v["nodes"]]) for v in serious] == []
