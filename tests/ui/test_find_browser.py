"""Which browser the tests drive, and what is said where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser import NAMES, find_browser
from ui_helpers import ROOT


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any browser."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "downloads"))
    monkeypatch.delenv("IEKD_BROWSER", raising=False)


def program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_browser_of_the_system_is_found_by_any_of_its_names(tmp_path: Path, name: str) -> None:
    assert find_browser() is None
    path = program(tmp_path / "bin" / name)
    assert find_browser() == path


def test_the_one_that_is_named_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin" / "chromium")
    own = program(tmp_path / "own" / "browser")
    monkeypatch.setenv("IEKD_BROWSER", own)
    assert find_browser() == own
    monkeypatch.setenv("IEKD_BROWSER", str(tmp_path / "nothing"))
    assert find_browser() is None, "not another one"


def test_playwrights_own_download_is_the_last_choice(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        place = Path(playwright.chromium.executable_path)
    assert place.is_relative_to(tmp_path)
    own = program(place)
    assert find_browser() == own
    system = program(tmp_path / "bin" / "google-chrome")
    assert find_browser() == system


@pytest.mark.parametrize("options", [[], ["-n", "1"]], ids=["alone", "in workers"])
def test_without_one_a_single_line_says_what_is_left_out(options: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "tests/ui/test_browser.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if "left out" in line]
    assert len(said) == 1
    for word in ("tests of tests/ui/test_browser.py", "apt-get install chromium", "playwright install chromium"):
        assert word in said[0]
    assert int(said[0].split()[0]) > 15
