"""In a real browser: the page works under its content security policy, behind a path, and in the frame of a Space."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import ARGUMENTS, find_browser
from test_front import PREFIX, proxy
from ui_helpers import PATIENCE, TOKEN, serving

from iekd.ui.api.methods import ENDPOINTS

pytestmark = pytest.mark.browser
# Gradio asks for these files wherever it runs, and nothing is missing without them; a frame is not focused by itself
HARMLESS = re.compile(r"manifest\.json|favicon|autofocusing")
# a page of the internet may not embed one of this machine otherwise; here the test itself answers for the internet
EMBED_LOCAL = "--disable-features=LocalNetworkAccessChecks"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=find_browser(), args=[*ARGUMENTS, EMBED_LOCAL])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that collects what its console complains about in `page.complaints`."""
    made = browser.new_page(viewport={"width": 1280, "height": 900})
    made.set_default_timeout(1000 * PATIENCE)
    made.complaints = []
    made.on("console", lambda m: made.complaints.append(f"{m.text} {m.location}") if m.type == "error" else None)
    made.on("pageerror", lambda error: made.complaints.append(str(error)))
    yield made
    made.close()


def complaints(page: Any) -> list[str]:
    return [text for text in page.complaints if not HARMLESS.search(text)]


def use(page: Any, frame: Any) -> None:
    """Each tab, a change of the form, and a comparison of an example: styled, with pictures, without complaints."""
    frame.get_by_role("tab", name="Train").click()
    frame.locator("#forecast dl").wait_for()
    colour = frame.locator("#start").evaluate("b => getComputedStyle(b).backgroundColor")
    assert colour == "rgb(15, 118, 110)", "Gradio's style sheets and ours were found"
    frame.locator("#f-epochs input").fill("7")
    frame.locator("#command textarea").evaluate(
        "async (box) => { while (!box.value.includes('--epochs 7')) await new Promise((r) => setTimeout(r, 100)); }"
    )
    frame.get_by_role("tab", name="Runs").click()
    frame.locator("#runs-table h2, #runs-table table").first.wait_for()
    frame.get_by_role("tab", name="Compare").click()
    frame.locator("#examples [data-example]").first.click()
    frame.locator("#comparison .answer img, #comparison .answers img").first.wait_for()
    assert frame.locator("#comparison img").first.evaluate("i => i.complete && i.naturalWidth > 0")
    assert complaints(page) == []


def test_the_policy_blocks_nothing_that_the_page_needs(page: Any, tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        page.goto(url)
        use(page, page)
        blocked = page.evaluate(
            """() => new Promise((resolve) => {
              document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
              const script = document.createElement('script');
              script.src = 'https://evil.example/x.js';
              document.head.append(script);
            })"""
        )
        assert blocked == "script-src-elem", "and code of other sites it does block"


@pytest.mark.parametrize("strips", [True, False])
def test_the_page_works_behind_a_path(page: Any, tmp_path: Path, strips: bool) -> None:
    with serving(tmp_path, "--root-path", PREFIX) as own, proxy(own.removesuffix(PREFIX), strips) as url:
        page.goto(url)
        use(page, page)
        elsewhere = [entry for entry in page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
                     if not entry.startswith((f"{url}/", "data:", "blob:")) and not HARMLESS.search(entry)]  # fmt: skip
        assert elsewhere == []


def test_a_space_embeds_the_page_and_one_can_sign_in_there(page: Any, tmp_path: Path) -> None:
    """huggingface.co is answered by the test; the page's own address counts as secure, as it is this machine's."""
    with serving(tmp_path, SPACE_ID="someone/space", IEKD_ADMIN_TOKEN=TOKEN) as url:
        outer = f"<iframe src='{url}' style='width: 1200px; height: 850px'></iframe>"
        page.route("https://*/**", lambda route: route.fulfill(content_type="text/html", body=outer))
        page.goto("https://huggingface.co/spaces/someone/space")
        frame = page.frame_locator("iframe")
        frame.get_by_role("tab", name="Train").click()
        frame.get_by_role("link", name="Sign in").first.click()
        frame.locator("input[name=token]").fill(TOKEN)
        frame.get_by_role("button", name="Sign in").click()
        frame.get_by_text("You are signed in").wait_for()
        use(page, frame)
        page.goto("https://evil.example/")
        page.wait_for_timeout(2000)
        assert page.frame_locator("iframe").locator("#tabs").count() == 0
        assert any("frame-ancestors" in text for text in page.complaints)


def test_the_footer_leads_to_the_endpoints(page: Any, server: str) -> None:
    page.goto(server)
    page.locator("footer").get_by_text("Use via API").click()
    shown = page.locator(".api-docs")
    shown.get_by_text("/move_run_to_front").first.wait_for()
    for words in (
        "18 API endpoints",
        "Move a queued run to the front",
        "a text, the id of a run",
        'config={"epochs": 10}',
    ):
        assert words.replace("18", str(len(ENDPOINTS))) in shown.inner_text(), words
    # it asks for what this page does not have: Gradio's count of visits, and the tools where there is no MCP server
    asked_for = re.compile(r"monitoring/summary|mcp/schema")
    assert [text for text in complaints(page) if not asked_for.search(text)] == []
