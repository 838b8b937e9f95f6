"""Finds a Chromium to drive: for the tests of the page, its measurements and its pictures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# the first, Chromium without windows, takes half of the processor time of the others
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
# no GPU, no sandbox (containers run as root), and nothing is asked of other servers
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
HOW_TO_GET = "Install one with `apt-get install chromium` or `playwright install chromium`, or name it in IEKD_BROWSER"


def find_browser() -> str | None:
    """The path of a browser: $IEKD_BROWSER, one of NAMES on PATH, or Playwright's own download.

    Returns:
        None where there is no browser, or no Playwright to drive it.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if chosen := os.environ.get("IEKD_BROWSER"):
        return shutil.which(chosen)
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).is_file() else None
