"""The wheel: built from what git would hand out, installed in a place of its own, used far away from the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
SOURCES = ("iekd", "checkpoints", "setup.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE", "NOTICE")

pytestmark = pytest.mark.skipif(not (CHECKOUT / "pyproject.toml").is_file(), reason="needs the checkout")


def build(kind: str, source: Path, target: Path) -> Path:
    """Build an sdist or a wheel with this interpreter's setuptools, without downloading anything."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, str(target)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "_Warning" not in done.stderr, done.stderr  # setuptools on data that it would leave out one day
    return target / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the sdist, as a package index would have it, so that what an sdist forgets is missed here."""
    pytest.importorskip(
        "setuptools", minversion="77", reason="building needs setuptools 77 or newer: pip install -e '.[dev]'"
    )
    place = tmp_path_factory.mktemp("build")
    source = place / "source"
    source.mkdir()
    for name in SOURCES:
        path = CHECKOUT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(path, source / name)
    with tarfile.open(build("sdist", source, place)) as archive:
        archive.extractall(place / "unpacked", filter="data")
    (unpacked,) = (place / "unpacked").iterdir()
    return build("wheel", unpacked, place)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`installed(*command)` -> how to start a Python command that sees the installed wheel and not the checkout."""
    site = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)],
        check=True,
    )
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IEKD_")}
    environment |= {
        "PYTHONPATH": str(site), "IEKD_CACHE_DIR": str(elsewhere / "cache"), "IEKD_PROBE": "0", "COLUMNS": "200",
        "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip

    def command(*words: str) -> dict:
        return {"args": [sys.executable, *words], "cwd": elsewhere, "env": environment}

    found = subprocess.run(
        **command("-c", "import iekd; print(iekd.__file__)"), capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(site), "the checkout was imported instead of the wheel"
    command.site = site
    return command


def output(started: dict) -> str:
    done = subprocess.run(**started, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if name.startswith("iekd/")}
    expected = {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / "iekd").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {
        f"iekd/_checkpoints/{path.relative_to(CHECKOUT / 'checkpoints')}"
        for path in (CHECKOUT / "checkpoints").rglob("*")
        if path.is_file()
    }
    assert len(shipped) >= 6
    assert there == expected | shipped


def test_the_command_is_installed(installed):
    script = installed.site / "bin" / "iekd"
    done = installed(str(script), "--version")
    from iekd import __version__

    assert output(done).strip() == __version__


def test_the_shipped_models_are_found(installed):
    found = json.loads(output(installed("-m", "iekd", "models", "--json")).splitlines()[-1])
    names = {path.name for path in (CHECKOUT / "checkpoints").iterdir() if path.is_dir()}
    assert {row["name"] for row in found["checkpoints"]} == names


def test_a_run_trains_with_the_shipped_images_and_teacher(installed):
    text = output(installed(
        "-m", "iekd", "train", "--limit-train", "64", "--batch-size", "32", "--epochs", "1",
        "--auto-encoder-epochs", "1", "--methods", "ie-ft", "--device", "cpu", "--json",
    ))  # fmt: skip
    result = json.loads(text.splitlines()[-1])
    assert result["state"] == "finished"
    assert [learner["method"] for learner in result["learners"]] == ["ie-ft"]
    assert result["teacher"]["accuracy"] > 90  # the shipped teacher, not an untrained one


def test_the_page_opens(installed):
    with subprocess.Popen(
        **installed("-m", "iekd", "serve", "--port", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            found = next((m for line in server.stdout if (m := re.search(r"http://127\.0\.0\.1:\d+", line))), None)
            assert found, "the server ended without an address"

            def answer(path: str) -> str:
                with urllib.request.urlopen(found[0] + path) as reply:
                    return reply.read().decode()

            from iekd import __version__

            assert json.loads(answer("/healthz"))["version"] == __version__
            assert "IE-KD Studio" in answer("/")
        finally:
            server.terminate()
