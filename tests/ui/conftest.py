"""A tiny dataset of drawn pictures, a run trained on it, and the page over them as a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
from browser import HOW_TO_GET, find_browser  # noqa: E402 - a script of benchmarks/, which is no package

PATIENCE = 600.0  # seconds; only what is broken needs them
TOKEN = "correct horse battery staple"  # of the page `guarded`
# small enough for seconds, and every stage still takes place
QUICK: dict[str, Any] = {
    "teacher": "resnet8", "student": "resnet8", "epochs": 2, "batch_size": 16, "teacher_epochs": 2,
    "auto_encoder_epochs": 1, "resolution": 16, "device": "cpu",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser the tests that drive one are skipped; tests/conftest.py says so in one line at the end."""
    driven = [item for item in items if item.get_closest_marker("browser")]
    if driven and find_browser() is None:
        for item in driven:
            item.add_marker(pytest.mark.skip(reason=f"no browser was found. {HOW_TO_GET}."))


def draw_pictures(root: Path, train: int = 24, test: int = 9) -> Path:
    """train/ and test/ with three classes that differ plainly: a disc, a cross, stripes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    shapes = {
        "cross": (abs(x - 8) < 2) | (abs(y - 8) < 2),
        "disc": (x - 7.5) ** 2 + (y - 7.5) ** 2 < 30,
        "stripes": (y // 2) % 2 == 0,
    }
    for split, count in (("train", train), ("test", test)):
        for name, mask in shapes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (16, 16))
                pixels[mask] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def finished_run(pictures: Path, runs_dir: Path) -> str:
    """The id of a finished run with a teacher of its own; later runs of the same settings find that teacher."""
    from iekd.config.run import make_config
    from iekd.launchers.local import LocalLauncher
    from iekd.runs.store import Store

    launcher = LocalLauncher(Store(runs_dir))
    run_id = launcher.submit(make_config(dataset=f"folder:{pictures}", **QUICK))
    status = wait_until(lambda: not launcher.status(run_id).live and launcher.status(run_id))
    assert status.state == "finished", (status, (runs_dir / run_id / "log.txt").read_text())
    return run_id


@pytest.fixture(scope="session")
def server(runs_dir: Path) -> Iterator[str]:
    """The address of `python app.py` over `runs_dir`."""
    with serving(runs_dir) as url:
        yield url


@pytest.fixture(scope="session")
def guarded(runs_dir: Path, finished_run: str) -> Iterator[str]:
    """A page with a token over the runs of all tests."""
    with serving(runs_dir, IEKD_ADMIN_TOKEN=TOKEN) as url:
        yield url


class serving:  # noqa: N801
    """`python app.py` as a process; ends with the block.

    probe: it may measure for its estimates. variables: of its environment.
    """

    def __init__(self, runs_dir: Path, *arguments: str, probe: bool = False, **variables: str) -> None:
        first = 7900 + 100 * int(
            os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
        )  # none finds another's
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(first), "--runs-dir", str(runs_dir), *arguments]
        own = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "IEKD_PROBE": str(int(probe)), **variables}
        environment = {**os.environ, **own}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=runs_dir, env=environment)

    def __enter__(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # comes when the page can be opened
        found = re.search(r"http://\S+", line)
        assert found, f"no address in {line!r}"
        return found.group()

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


def call(url: str, name: str, *values: Any, **headers: str) -> tuple[str, Any]:
    """("complete" or "error", data) of a named endpoint."""
    event = httpx.post(f"{url}/gradio_api/call/{name}", json={"data": list(values)}, headers=headers)
    assert event.status_code == 200, event.text
    with httpx.stream("GET", f"{url}/gradio_api/call/{name}/{event.json()['event_id']}", timeout=PATIENCE) as answer:
        lines = [line for line in answer.iter_lines() if line]
    kind = next(line for line in reversed(lines) if line.startswith("event:")).removeprefix("event: ")
    return kind, json.loads(lines[-1].removeprefix("data: "))


def wait_until(condition: Any, seconds: float = PATIENCE) -> Any:
    """Ask until it is true; the limit is for what hangs only, generous because other programs may use the machine."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds:.0f} s")
