"""How long a Space takes until visitors can use it: from `python app.py` to the page, and to a compared picture.

    python benchmarks/space.py [--python PATH] [--user UID] [--rounds 3]

The folder is the one that `make space` builds, started with a Space's variables and nothing else of this environment.
`--python` is the interpreter of an environment with the folder's requirements; `--user` runs it as another user, which
root may ask for. What the Hub does before (building the image) is not in these times.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from browser import ARGUMENTS, find_browser

ROOT = Path(__file__).resolve().parents[1]
PORT = 7890


def timed(folder: Path, home: Path, python: str, user: int | None, browser: Any) -> tuple[float, float, float]:
    """Seconds from the start until the server is ready, the page is drawn, and a picture is compared."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "SPACE_ID": "someone/space", "SYSTEM": "spaces",
        "SPACE_HOST": "someone-space.hf.space", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(
        [python, "app.py", "--host", "127.0.0.1", "--port", str(PORT)], cwd=folder, env=environment, user=user,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        ready = time.monotonic() - began
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{url}?tab=compare")
        page.wait_for_selector("#examples [data-example]")
        drawn = time.monotonic() - began
        page.locator("#examples [data-example]").first.click()
        page.wait_for_selector("#comparison .answer")
        compared = time.monotonic() - began
        page.close()
        return ready, drawn, compared
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--user", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        home, folder = Path(scratch) / "home", Path(scratch) / "space"
        home.mkdir()
        subprocess.run([sys.executable, str(ROOT / ".ci" / "space.py"), "--out", str(folder)], check=True)
        if arguments.user is not None:
            Path(scratch).chmod(0o755)
            for path in (home, folder, *folder.rglob("*")):
                os.chown(path, arguments.user, arguments.user)
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        rows = []
        for _ in range(arguments.rounds):
            rows.append(timed(folder, home, arguments.python, arguments.user, browser))
            shutil.rmtree(folder / "runs", ignore_errors=True)
        browser.close()
    versions = "import sys, torch, gradio; print(sys.version.split()[0], torch.__version__, gradio.__version__)"
    told = subprocess.run([arguments.python, "-c", versions], capture_output=True, text=True, check=True)
    print("Python {}, torch {}, gradio {}".format(*told.stdout.split()))
    print("| until | s | median |\n|---|---|---|")
    for name, times in zip(
        ("the server is ready", "the page is drawn", "a picture is compared"), zip(*rows, strict=True), strict=True
    ):
        print(f"| {name} | {', '.join(f'{t:.1f}' for t in times)} | {statistics.median(times):.1f} |")


if __name__ == "__main__":
    main()
