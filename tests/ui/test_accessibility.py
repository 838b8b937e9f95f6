"""Every tab on a large screen and a phone, light and dark: for people who use a keyboard or a screen reader, and for
everybody that nothing jumps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from ui_helpers import PATIENCE

pytestmark = pytest.mark.browser
TABS = ("demo", "train", "runs", "compare")
# the sum of all layout shifts that nobody caused; 0.1 is the limit of Google's Core Web Vitals for "good"
COUNT_SHIFTS = """window.shifts = 0;
new PerformanceObserver((list) => list.getEntries().forEach((shift) => {
  if (!shift.hadRecentInput) window.shifts += shift.value;
})).observe({type: 'layout-shift', buffered: true});"""
LEVELS = """[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].filter((h) => h.getClientRects().length)
  .map((h) => +h.tagName[1])"""

COLOURS_SETTLE = """() => Promise.all(document.getAnimations()
  .filter((one) => one.effect.getTiming().iterations !== Infinity).map((one) => one.finished.catch(() => null)))"""


@pytest.fixture
def tour(browser: Any) -> Iterator[Any]:
    """Opens addresses and collects what the browser complains about; it must have nothing."""
    contexts, complaints = [], list[str]()

    def visit(address: str, width: int = 1440) -> Any:
        while contexts:
            contexts.pop().close()  # pages that nobody looks at go on asking
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        page = contexts[-1].new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.add_init_script(COUNT_SHIFTS)
        page.goto(address)
        page.wait_for_selector("html[data-opened]")
        page.wait_for_load_state("networkidle")
        page.wait_for_function("!document.querySelector('.pending')")  # Gradio fades what is about to change
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def addresses(server: str, run_id: str) -> dict[str, str]:
    return {**{tab: f"{server}/?tab={tab}" for tab in TABS}, "run": f"{server}/?run={run_id}"}


@pytest.mark.parametrize("width", [1440, 390])
def test_no_tab_jumps_scrolls_sideways_or_has_serious_findings(
    tour: Any, server: str, finished_run: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for name, address in addresses(server, finished_run).items():
        page = tour(address, width)
        assert page.evaluate("window.shifts") < 0.1, name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        if name == "train":  # with everything that is there once own images are chosen
            page.locator("#f-dataset label").last.click()
            page.wait_for_selector(".class-card")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "own images"
        levels = page.evaluate(LEVELS)
        assert levels[0] == 1, name
        assert all(after <= before + 1 for before, after in pairwise(levels)), (name, levels)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.wait_for_selector("body.dark" if theme == "dark" else "body:not(.dark)")
            page.evaluate(COLOURS_SETTLE)
            for _ in range(3):  # what Gradio fades for a moment has too little contrast; what is wrong stays so
                page.wait_for_function("!document.querySelector('.pending')")
                found = axe.run(page).response["violations"]
                serious = [one for one in found if one["impact"] in ("serious", "critical")]
                if not serious:
                    break
            assert [(one["id"], one["nodes"][0]["html"]) for one in serious] == [], (name, theme)


def test_arrows_move_between_tabs_and_between_the_answers_of_a_question(tour: Any, server: str) -> None:
    page = tour(server)
    page.locator("[role=tab]").first.focus()
    for key, name in (("ArrowRight", "Train"), ("End", "Compare"), ("ArrowRight", "Demo"), ("ArrowLeft", "Compare")):
        page.keyboard.press(key)
        page.wait_for_selector(f"[role=tab][aria-selected=true]:focus:text-is('{name}')")
    page = tour(f"{server}/?tab=train")
    for key, expected in (("ArrowDown", "seeds"), ("ArrowRight", "paper"), ("ArrowUp", "seeds")):
        page.locator("#rigour input:checked").focus()
        page.keyboard.press(key)
        page.wait_for_selector(f"#rigour input[value={expected}]:checked:focus")


def test_the_focus_stays_where_somebody_works(tour: Any, server: str, finished_run: str) -> None:
    """A list keeps it once something is chosen; a button that is gone hands it to the heading of what came instead."""
    page = tour(f"{server}/?tab=train")
    page.locator("#f-teacher input").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#f-teacher [role=listbox]", state="detached")
    page.wait_for_selector("#f-teacher [aria-expanded=false]:focus")
    page = tour(f"{server}/?run={finished_run}")
    page.locator("#back").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.matches('[role=tabpanel] :is(h2, h3)')")
