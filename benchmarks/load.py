"""A crowd at the page while it trains: answers or "busy", a page that opens, a run that goes on, memory that stays.

    python benchmarks/load.py [--crowd 500] [--comparisons 10000] [--pages 1000] [--runs 500] [--rows 100000]

Starts the page as a process, a run in the background, and then asks over HTTP as programs do. Prints Markdown: (1) what
`--crowd` comparisons at once get, how long `GET /` takes meanwhile, and how fast the run trains before and during; (2)
the server's memory after comparisons one after the other and after page loads; (3) how long a run of many rows and a
list of many runs take to draw. Python has to keep its bytecode (PYTHONDONTWRITEBYTECODE unset).
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import httpx
import psutil

from iekd.config.run import RunConfig
from iekd.launchers.local import LocalLauncher
from iekd.runs.store import Run, Store
from iekd.ui.rights.access import Access
from iekd.ui.tabs.run import look
from iekd.ui.tabs.runs import table_html

ROOT = Path(__file__).parents[1]
BUSY = ("busy", "queue is full", "too many")


def picture() -> bytes:
    import io

    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


async def comparison(client: httpx.AsyncClient, uploaded: str) -> str:
    """What one comparison gets: "answer", "busy", or what went wrong."""
    try:
        file = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}
        sent = await client.post("/gradio_api/call/compare", json={"data": ["", [file]]})
        if sent.status_code in (429, 503):
            return "busy"
        if sent.status_code != 200:
            return f"status {sent.status_code}"
        got = await client.get(f"/gradio_api/call/compare/{sent.json()['event_id']}")
        if "predictions" in got.text and "event: complete" in got.text:
            return "answer"
        return "busy" if any(word in got.text.lower() for word in BUSY) else f"said {got.text[:80]!r}"
    except httpx.HTTPError as error:
        return f"{type(error).__name__} {error}"


def watch_page(url: str, over: Event, found: "Queue[list[float]]") -> None:
    """Another visitor, in a process of their own: the crowd's program has enough to do."""
    times = []
    with httpx.Client(base_url=url, timeout=60) as client:
        while not over.is_set():
            began = time.monotonic()
            client.get("/")
            times.append(time.monotonic() - began)
            time.sleep(0.25)
    found.put(times)


def speed(run: Run, seconds: float) -> float:
    """Rows of metrics per second of a run during the next seconds."""
    before, began = len(run.metrics()[0]), time.monotonic()
    time.sleep(seconds)
    return (len(run.metrics()[0]) - before) / (time.monotonic() - began)


async def crowd(url: str, uploaded: str, size: int, run: Run) -> "tuple[Counter[str], list[float], float, float]":
    limits = httpx.Limits(max_connections=size + 10, max_keepalive_connections=0)  # the server closes idle ones
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        over, found = get_context("spawn").Event(), get_context("spawn").Queue()
        watcher = get_context("spawn").Process(target=watch_page, args=(url, over, found))
        watcher.start()
        await asyncio.sleep(3)  # it imports
        rows, began = len(run.metrics()[0]), time.monotonic()
        got = Counter(await asyncio.gather(*(comparison(client, uploaded) for _ in range(size))))
        took = time.monotonic() - began
        trained = (len(run.metrics()[0]) - rows) / took
        over.set()
        page = found.get(timeout=60)
        watcher.join()
        return got, page, took, trained


async def many(url: str, uploaded: str, count: int, at_once: int = 4) -> "Counter[str]":
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        left = iter(range(count))

        async def one_after_the_other() -> "list[str]":
            return [await comparison(client, uploaded) for _ in left]

        found = await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return Counter(word for words in found for word in words)


async def pages(url: str, count: int) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for _ in range(count):
            await client.get("/")
            await client.get("/config")


def say(what: str, measured: str, goal: str) -> None:
    print(f"| {what} | {measured} | {goal} |", flush=True)


def synthetic(root: Path, runs: int, rows: int) -> None:
    """Time to draw a list of many runs, and a run of many rows."""
    store = Store(root)
    for i in range(runs):
        run, handle = store.create(RunConfig(name=f"run {i}"))
        assert handle is not None
        status = run.status
        status.state, status.started, status.ended = "finished", 1.0, 100.0
        run.write_status(status)
        os.close(handle)
    began = time.monotonic()
    html = table_html(store, Access().of(None))
    say(f"a list of {runs:,} runs", f"{time.monotonic() - began:.2f} s, {len(html) / 1000:,.0f} kB", "1 s")
    run = store.list()[0]
    values = {"loss": 0.1, "cross_entropy": 0.1, "inheritance": 0.01, "exploration": -0.02, "accuracy": 50.0, "lr": 0.1}
    with open(run.path / "metrics.jsonl", "w") as file:
        for n in range(rows):
            step, learner, kind = n // 4 + 1, ("baseline-seed0", "ie-ft-seed0")[n % 2], ("train", "test")[n // 2 % 2]
            row = {"seq": n, "time": 1.0, "stage": "students", "learner": learner, "kind": kind, "epoch": step / 100}
            file.write(json.dumps({**row, "step": step, "values": values}) + "\n")
    for name in ("opened", "opened again"):
        began = time.monotonic()
        look(store, run.id, {}, Access().of(None))
        say(f"a run of {rows:,} rows, {name}", f"{time.monotonic() - began:.2f} s", "2 s")


def during_training(url: str, uploaded: str, size: int, run: Run) -> None:
    """A crowd at once while a run trains."""
    alone = speed(run, 20)
    got, page, took, during = asyncio.run(crowd(url, uploaded, size, run))
    told = ", ".join(f"{n} {word}" for word, n in got.most_common())
    say(f"{size} comparisons at once, during a training", f"{told}; {took:.1f} s", "answers or busy")
    say(f"GET / meanwhile, {len(page)} times", f"longest {max(page):.2f} s", "2 s")
    say("rows of the training per second, before and meanwhile", f"{alone:.2f}, {during:.2f}", "bounded")
    say("the run afterwards", run.status.state, "running")


def growth(process: psutil.Process, url: str, uploaded: str, comparisons: int, loads: int) -> None:
    """The server's memory over many requests."""

    def memory() -> str:
        return f"{process.memory_info().rss / 1e6:.0f}"

    seen, began, got = [memory()], time.monotonic(), Counter[str]()
    for _ in range(4):
        got += asyncio.run(many(url, uploaded, comparisons // 4))
        seen.append(memory())
    rate = comparisons / (time.monotonic() - began)
    say(f"{comparisons:,} comparisons: {dict(got)}, {rate:.0f} a second; server's memory at each quarter",
        f"{', '.join(seen)} MB", "flat")  # fmt: skip
    seen = [memory()]
    for _ in range(4):
        asyncio.run(pages(url, loads // 4))
        seen.append(memory())
    say(f"{loads:,} page loads; server's memory at each quarter", f"{', '.join(seen)} MB", "flat")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("crowd", 500), ("comparisons", 10_000), ("pages", 1_000), ("runs", 500), ("rows", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "app.py", "--port", "7970", "--runs-dir", f"{folder}/runs"]
        environment = {**os.environ, "IEKD_PROBE": "0", "PYTHONUNBUFFERED": "1"}
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        url, launcher = found.group(), LocalLauncher(Store(f"{folder}/runs"))
        run = launcher.store.get(launcher.submit(RunConfig(epochs=1000)))
        try:
            answer = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", picture())})
            uploaded = answer.json()[0]
            asyncio.run(many(url, uploaded, 20))  # loads torch and the networks
            while not any(row["stage"] == "students" for row in run.metrics()[0]):
                time.sleep(1)
            print("| what | measured | goal |\n|---|---|---|")
            during_training(url, uploaded, arguments.crowd, run)
            launcher.stop_and_wait(run.id)
            growth(psutil.Process(server.pid), url, uploaded, arguments.comparisons, arguments.pages)
        finally:
            if run.status.live:
                launcher.stop_and_wait(run.id)
            server.terminate()
            server.wait(30)
        synthetic(Path(folder) / "many", arguments.runs, arguments.rows)


if __name__ == "__main__":
    main()
