"""Step 2 of the form in a browser: the search among all networks, and a pair of networks that a method cannot use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture
def form(browser: Any, server: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(60_000)
    page.goto(f"{server}/?tab=train")
    page.wait_for_selector("#forecast dl")
    yield page
    page.close()


def command(page: Any, words: str) -> None:
    """Wait until the command has these words."""
    page.wait_for_function("words => document.querySelector('#command textarea').value.includes(words)", arg=words)


def test_a_network_is_searched_and_used_as_teacher_or_student(form: Any) -> None:
    form.locator("#find-network button").first.click()
    words = form.locator("#find-words input, #find-words textarea").first
    words.fill("no such network at all")
    words.press("Enter")
    form.wait_for_selector("#find-said:has-text('No network has “no such network at all” in its name.')")
    assert not form.locator("#find-teacher").is_visible(), "there is nothing to use"
    words.fill("shufflenet v2")
    words.press("Enter")
    form.wait_for_selector("#find-said:has-text('5 networks have that name.')")
    form.locator("#find-list label", has_text="shufflenet_v2_x0_5").click()
    listed = form.locator("#find-list label", has_text="shufflenet_v2_x0_5").inner_text()
    assert "· 0.35 M" in listed, "its parameters for ten classes"
    form.locator("#find-student").click()
    command(form, "--student torchvision:shufflenet_v2_x0_5")
    form.locator("#find-list label", has_text="shufflenet_v2_x1_0").click()
    form.locator("#find-teacher").click()
    command(form, "--teacher torchvision:shufflenet_v2_x1_0 --student torchvision:shufflenet_v2_x0_5")
    form.wait_for_selector("#forecast dl:has-text('shufflenet_v2_x1_0')")


def test_a_teacher_that_od_cannot_learn_from_is_refused_before_start(form: Any, runs_dir: Path) -> None:
    before = {path.name for path in runs_dir.iterdir()}
    form.locator("#method-choice label", has_text="Pick").click()
    form.locator("#f-methods label", has_text="od:").first.click()
    command(form, "od")
    form.locator("#f-teacher input").click()
    form.locator("#f-teacher input").fill("torchvision:squeezenet1_1")
    form.keyboard.press("Enter")
    said = "Method 'od' cannot learn from torchvision:squeezenet1_1"
    form.wait_for_selector(f'#f-teacher[data-wrong] .field-problem:has-text("{said}")')
    text = form.locator("#error .what").inner_text()
    assert "batch norm at each stage end" in text
    assert "Choose another teacher, or another method." in text
    form.locator("#start").click()
    form.wait_for_selector("#error [data-goto]")
    assert "run=" not in form.url
    assert {path.name for path in runs_dir.iterdir()} == before
    form.locator("#f-teacher input").click()
    form.locator("#f-teacher input").fill("resnet20")
    form.keyboard.press("Enter")
    form.wait_for_selector("#f-teacher:not([data-wrong])")
    command(form, "od")
