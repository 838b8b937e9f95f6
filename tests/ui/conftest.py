"""A tiny dataset of drawn pictures, a run trained on it, and the page over them as a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ui_helpers import QUICK, ROOT, TOKEN, draw_pictures, serving, wait_until

sys.path.append(str(ROOT / "benchmarks"))
from browser import ARGUMENTS, HOW_TO_GET, find_browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser the tests that drive one are skipped; tests/conftest.py says so in one line at the end."""
    driven = [item for item in items if item.get_closest_marker("browser")]
    if driven and find_browser() is None:
        for item in driven:
            item.add_marker(pytest.mark.skip(reason=f"no browser was found. {HOW_TO_GET}."))


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


SHARED: dict[str, tuple[serving, str]] = {}  # pages that several files use, and their addresses


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The pages that files share end with the tests of this folder: one that only waits takes 5 % of a core."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        for page, _ in SHARED.values():
            page.__exit__()
        SHARED.clear()


def shared(name: str, runs_dir: Path, **variables: str) -> str:
    if name not in SHARED:
        page = serving(runs_dir, **variables)
        SHARED[name] = page, page.__enter__()
    return SHARED[name][1]


@pytest.fixture(scope="module")
def server(runs_dir: Path) -> str:
    """The address of `python app.py` over `runs_dir`."""
    return shared("server", runs_dir)


@pytest.fixture(scope="module")
def guarded(runs_dir: Path, finished_run: str) -> str:
    """A page with a token over the runs of all tests."""
    return shared("guarded", runs_dir, IEKD_ADMIN_TOKEN=TOKEN)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright; one per module, because some modules start one with arguments of their own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        yield found
        found.close()
