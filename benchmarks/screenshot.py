"""Takes the README's picture of the page from a real run, so that the picture is never out of date.

    python benchmarks/screenshot.py [--out docs/app.png] [--width 1240] [--set epochs=2]
    python benchmarks/screenshot.py --runs-dir runs --run ID

Starts the page on a free port over a temporary runs folder, trains the default run (or with the settings given), and
saves the page of the finished run, down to the end of the large chart. With --run it takes the picture of a run
that has finished before. The picture says how long the run took, so train it while nothing else runs. Needs Playwright
and a Chromium (see browser.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from browser import ARGUMENTS, HOW_TO_GET, find_browser
from page import free_port, start_page
from playwright.sync_api import sync_playwright

from iekd.config.run import make_config
from iekd.launchers.factory import make_launcher

ROOT = Path(__file__).parents[1]
HEIGHT = 1100  # pixels: of the window; the picture ends where the chart does
MARGIN = 8  # pixels, below that row


def train(runs_dir: Path, settings: dict[str, str]) -> str:
    """Train a run to its end; returns its id."""
    launcher = make_launcher(runs_dir)
    run = launcher.store.get(launcher.submit(make_config(**settings)))
    try:
        while run.status.live:
            time.sleep(0.5)
    finally:
        if run.status.live:
            launcher.stop_and_wait(run.id)
    if run.status.state != "finished":
        raise SystemExit(f"The run ended as {run.status.state}: {run.status.error}\n{run.log_tail(20)}")
    return run.id


def take(address: str, out: Path, width: int, browser: str) -> None:
    """Save the top of a finished run's page as a PNG, its chart whole."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=ARGUMENTS)
        page = chromium.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme="light")
        page.goto(address)
        page.wait_for_selector("#result .card.finished")
        page.wait_for_selector(".chart-plot canvas")
        page.evaluate("document.fonts.ready")
        row = page.locator("#chart").bounding_box()
        assert row is not None, "the chart has no place on the page"
        clip = {"x": 0, "y": 0, "width": width, "height": row["y"] + row["height"] + MARGIN}
        page.screenshot(path=out, animations="disabled", full_page=True, clip=clip)
        chromium.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Take the README's picture of the page from a real run.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "app.png")
    parser.add_argument("--width", type=int, default=1240, help="of the browser's window, in pixels")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the run")
    parser.add_argument("--run", metavar="ID", help="a finished run to show, instead of training one")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs", help="the folder of that run")
    arguments = parser.parse_args()
    browser = find_browser()
    if browser is None:
        sys.stderr.write(f"There is no browser to drive. {HOW_TO_GET}.\n")
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.runs_dir if arguments.run else Path(temporary)
        run_id = arguments.run or train(folder, dict(pair.split("=", 1) for pair in arguments.set))
        port = free_port()
        server, _ = start_page(port, str(folder.resolve()))
        try:
            take(f"http://127.0.0.1:{port}/?run={run_id}", arguments.out, arguments.width, browser)
        finally:
            server.terminate()
            server.wait(30)
    sys.stdout.write(f"Saved {arguments.out}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
