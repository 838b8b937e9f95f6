"""The list of runs in a real browser: search, rename, compare, delete, undo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import ARGUMENTS, find_browser
from ui_helpers import PATIENCE, serving

from iekd.runs.notes import Notes, read_notes, write_notes
from iekd.runs.owner import set_owner
from iekd.runs.status import STOPPED
from iekd.runs.store import Store

pytestmark = pytest.mark.browser


@pytest.fixture
def page(tmp_path: Path, written_run: Any) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    for name, rate in (("shirts", 0.1), ("coats", 0.05), ("boots", 0.1)):
        written_run(Store(tmp_path), name=name, lr=rate)
    with serving(tmp_path) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        made = browser.new_page(viewport={"width": 1280, "height": 900})
        made.set_default_timeout(1000 * PATIENCE)
        made.goto(f"{url}/?tab=runs")
        made.wait_for_selector("table.runs")
        yield made
        browser.close()


def test_a_job_is_resumed_after_its_price_was_seen(page: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = store.list()[0]
    status = run.status
    status.state = STOPPED
    run.write_status(status)
    set_owner(run.path, "hf-jobs", flavor="t4-small", per_hour=0.4, seconds=7200, over=True)
    page.reload()
    button = page.locator(f"button[data-act=resume][data-run='{run.id}']")
    button.click()
    assert "at most $0.80" in page.locator(".runs-bar .question").inner_text()
    page.locator("[data-bar=no]").click()
    page.wait_for_selector(".runs-bar:not(.asks)", state="attached")
    assert run.status.state == STOPPED
    button.click()
    page.locator("[data-bar=yes]").click()
    page.wait_for_selector("text=There is no token")  # what pays for it


def rows(page: Any, count: int) -> None:
    page.wait_for_function("n => document.querySelectorAll('table.runs tbody tr').length === n", arg=count)


def test_search_rename_compare_delete_and_undo(page: Any, tmp_path: Path) -> None:
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    store = Store(tmp_path)
    page.locator(".runs-tools [name=search]").fill("shirt")
    rows(page, 1)
    page.locator(".runs-tools [name=sort]").select_option("name")
    page.wait_for_function("location.search.includes('search=shirt') && location.search.includes('sort=name')")
    page.reload()  # the address has what was searched for, as long as the tab is in front
    rows(page, 1)
    assert page.locator(".runs-tools [name=search]").input_value() == "shirt"
    page.get_by_role("tab", name="Train").click()
    page.wait_for_function("!location.search.includes('search')")
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_function("location.search.includes('search=shirt')")
    page.locator("[data-do=edit]").click()
    page.locator(".edit-run [name=name]").fill("shirts & <i>ties</i>")
    page.locator(".edit-run [name=note]").fill("with ties")
    (renamed,) = [run for run in store.list() if run.config.name == "shirts"]
    write_notes(renamed, starred=True)  # by somebody else
    page.wait_for_timeout(4500)  # longer than until the list is drawn again: what is being written stays
    assert page.locator(".edit-run [name=note]").input_value() == "with ties"
    page.keyboard.press("Tab")
    page.locator(".edit-run [type=submit]").click()
    page.wait_for_selector("table.runs >> text=shirts & <i>ties</i>")
    assert read_notes(renamed) == Notes("shirts & <i>ties</i>", True, "with ties")

    page.locator(".runs-tools [name=search]").fill("")
    rows(page, 3)
    assert not page.locator(".runs-bar .picking").is_visible()
    for name in ("shirts", "coats"):
        page.get_by_role("checkbox", name=f"Choose run {name}").check()
    page.locator("[data-bar=compare]").click()
    page.wait_for_selector(".compared")
    assert page.locator(".compared tr[data-compared]").count() == 2
    assert page.locator(".compared polyline").count() == 4
    assert page.locator(".differing tbody th").all_inner_texts() == ["Learning rate"]
    page.wait_for_function("location.search.includes('compare=')")
    page.reload()
    page.wait_for_selector(".compared tr[data-compared]")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator("[data-close]").click()
    page.wait_for_function("!location.search.includes('compare=') && !document.querySelector('.compared')")

    for name in ("shirts", "boots"):
        page.get_by_role("checkbox", name=f"Choose run {name}").check()
    page.locator("[data-bar=delete]").click()
    assert "Delete 2 runs" in page.locator(".runs-bar .asking").inner_text()
    page.locator("[data-bar=no]").click()
    assert len(store.list()) == 3
    page.locator("[data-bar=delete]").click()
    page.locator("[data-bar=yes]").click()
    rows(page, 1)
    assert [run.config.name for run in store.list()] == ["coats"]
    page.locator("[data-do=undo]").click()
    rows(page, 3)
    assert len(store.list()) == 3
    assert read_notes(renamed).note == "with ties"
    assert broken == []
