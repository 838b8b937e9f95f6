"""How soon the page answers, what watching costs, and how late the page is.

    python benchmarks/page.py [--rounds 3] [--epochs 3]

Starts the page a few times, then runs the default pair with it open in a headless browser and, in turn, with no browser
at all. Prints (1) the time from `python app.py` to the first answer, (2) how long after a row was written to
metrics.jsonl the open page showed it, and (3) how much longer the students' stage took with the page open. Needs a
browser (see browser.py); nothing else should run meanwhile, and Python has to keep its bytecode
(PYTHONDONTWRITEBYTECODE unset).
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from browser import ARGUMENTS, HOW_TO_GET, find_browser
from playwright.sync_api import sync_playwright

from iekd.config.run import make_config
from iekd.launchers.local import LocalLauncher
from iekd.runs.store import Run, Store

ROOT = Path(__file__).parents[1]
STARTS = 5
# remembers when the page first showed metrics up to which byte of the file
WATCH = """() => {
  window.shown = [];
  let last = -1;
  const look = () => {
    const chart = document.querySelector('#chart-data [data-bytes]');
    const bytes = chart ? +chart.dataset.bytes : -1;
    if (bytes > last) { last = bytes; window.shown.push([bytes, Date.now() / 1000]); }
  };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true, attributes: true});
  look();
}"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start_page(port: int, runs_dir: str) -> tuple[subprocess.Popen[bytes], float]:
    """The server once it has answered, and the seconds that took."""
    began = time.monotonic()
    command = [sys.executable, "app.py", "--port", str(port), "--runs-dir", runs_dir]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while time.monotonic() - began < 60:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}").read()
            return server, time.monotonic() - began
        except OSError:
            time.sleep(0.02)
    server.kill()
    raise RuntimeError("the page did not start")


def students_seconds(run: Run) -> float:
    """Wall time of the students' stage, from the run's own events."""
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    times = {e.get("stage"): e["time"] for e in events if e["event"] == "stage"}
    return float(times["evaluation"] - times["students"])


def delays(run: Run, shown: list[list[float]]) -> list[float]:
    """Seconds from each row's writing to the first moment at which the page showed it."""
    found, offset = [], 0
    for line in (run.path / "metrics.jsonl").read_bytes().splitlines(keepends=True):
        offset += len(line)
        row = json.loads(line)
        seen = [t for bytes_, t in shown if bytes_ >= offset]
        if seen and row["stage"] == "students":
            found.append(seen[0] - row["time"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    chromium = find_browser()
    if chromium is None:
        parser.error(f"there is no browser to drive. {HOW_TO_GET}.")
    port = free_port()
    with tempfile.TemporaryDirectory() as runs_dir, sync_playwright() as playwright:
        answers = []
        for _ in range(STARTS):
            server, seconds_taken = start_page(port, runs_dir)
            answers.append(seconds_taken)
            server.terminate()
            server.wait()
        print(f"first answer, {STARTS} starts: median {statistics.median(answers):.2f} s, worst {max(answers):.2f} s")
        server, _ = start_page(port, runs_dir)
        url = f"http://127.0.0.1:{port}"
        launcher = LocalLauncher(Store(runs_dir))
        late: list[float] = []
        seconds: dict[bool, list[float]] = {True: [], False: []}
        try:
            for round_ in range(2 * arguments.rounds):
                # open, closed, closed, open, ...: a drift of the machine's speed falls on both
                opened = round_ % 4 in (0, 3)
                run_id = launcher.submit(make_config(epochs=arguments.epochs, auto_encoder_epochs=1))
                run = launcher.store.get(run_id)
                if opened:
                    browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
                    page = browser.new_page(viewport={"width": 1440, "height": 900})
                    page.goto(f"{url}/?run={run_id}")
                    page.evaluate(WATCH)
                    while run.status.live:
                        page.wait_for_timeout(500)
                    page.wait_for_timeout(2500)
                    late += delays(run, page.evaluate("() => window.shown"))
                    browser.close()
                else:
                    while run.status.live:
                        time.sleep(0.5)
                seconds[opened].append(students_seconds(run))
                print(f"page {'open' if opened else 'closed'}: students' stage {seconds[opened][-1]:.1f} s", flush=True)
        finally:
            server.terminate()
            server.wait()
    slower = statistics.median(seconds[True]) / statistics.median(seconds[False])
    print(f"rows seen {len(late)}; delay median {statistics.median(late):.2f} s, worst {max(late):.2f} s")
    print(f"students' stage with the page open / closed (medians): {slower:.3f}")


if __name__ == "__main__":
    main()
