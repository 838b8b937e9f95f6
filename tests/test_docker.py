"""What Docker would do with the Dockerfile, step by step, without an engine.

Each COPY is done below a scratch folder, the package is installed with the Dockerfile's own words into a folder of its
own, and the last command and the health check run there. What needs a network or root is compared with what is here:
that the pinned versions satisfy the requirements. What this cannot see: the base image, and PyTorch's index.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (CHECKOUT / "Dockerfile").is_file(), reason="needs the checkout")


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in (CHECKOUT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def of_kind(kind: str) -> list[str]:
    return [text for name, text in instructions() if name == kind]


def one(kind: str, text: str) -> str:
    (found,) = (words for words in of_kind(kind) if text in words)
    return found


@dataclass
class Image:
    """app: the working folder; site: where the package was installed."""

    app: Path
    site: Path
    environment: dict[str, str]

    def start(self, *words: str) -> dict:
        return {"args": list(words), "cwd": self.app, "env": self.environment}


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Image:
    root = tmp_path_factory.mktemp("root")
    app = root / one("WORKDIR", "/").strip("/")
    app.mkdir(parents=True)
    ignored = (CHECKOUT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "runs", "**/__pycache__"} <= set(ignored)
    for text in of_kind("COPY"):
        *sources, target = (word for word in text.split() if not word.startswith("--"))
        place = root / target.strip("/") if target.startswith("/") else app / target
        for source in sources:
            assert source not in ignored
            path = CHECKOUT / source
            if path.is_dir():
                shutil.copytree(path, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place)
    site = tmp_path_factory.mktemp("site")
    words = shlex.split(one("RUN", "--no-deps").replace("/src", str(root / "src")))
    assert words[:2] == ["pip", "install"]
    subprocess.run(
        [sys.executable, "-m", *words, "-q", "--no-build-isolation", "--no-index", "--target", str(site)],
        cwd=app, check=True, capture_output=True,
    )  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IEKD_")}
    data = tmp_path_factory.mktemp("data")
    for word in one("ENV", "IEKD_RUNS_DIR").split():
        name, value = word.split("=")
        environment[name] = re.sub("^/data", str(data), value)
    environment |= {
        "PATH": f"{site / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(site), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    return Image(app, site, environment)


def test_the_pinned_versions_are_what_the_requirements_allow():
    pins = [Requirement(line) for line in (CHECKOUT / "constraints.txt").read_text().splitlines()[1:]]
    wanted = [
        Requirement(line.split("#")[0])
        for line in (CHECKOUT / "requirements.txt").read_text().splitlines()
        if line.split("#")[0].strip()
    ]
    python = re.search(r"PYTHON=(\S+)", one("ARG", "PYTHON"))[1]
    assert one("FROM", "python") == "python:${PYTHON}-slim"
    for requirement in wanted:
        fitting = [
            pin for pin in pins
            if pin.name == requirement.name and (not pin.marker or pin.marker.evaluate({"python_version": python}))
        ]  # fmt: skip
        (version,) = (str(pin.specifier).removeprefix("==") for pin in fitting)
        assert requirement.specifier.contains(version), f"{requirement} and the pinned {version}"


def test_torch_comes_for_the_cpu_unless_the_argument_is_empty():
    """The shell's own words decide; what pip then finds on that index cannot be tried here."""
    install = one("RUN", "-r /src/requirements.txt").replace("pip install", "printf '%s\\n'")

    def words(index: str) -> list[str]:
        done = subprocess.run(
            ["sh", "-c", install], env={"TORCH_INDEX": index}, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    default = re.search(r"TORCH_INDEX=(\S+)", one("ARG", "TORCH_INDEX"))[1]
    assert words(default)[:3] == ["--no-cache-dir", "--extra-index-url", default]
    assert default.endswith("/cpu")
    assert "--extra-index-url" not in words("")


def test_nothing_runs_as_root():
    names = [name for name, _ in instructions()]
    assert "--uid 1000 iekd" in one("RUN", "useradd")
    assert names.index("USER") < names.index("CMD")
    assert one("USER", "") == "iekd"


def test_the_command_is_there_and_finds_the_shipped_models(image):
    done = subprocess.run(**image.start("iekd", "models", "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {row["name"] for row in json.loads(done.stdout)["checkpoints"]}
    assert found == {path.parent.name for path in (CHECKOUT / "checkpoints").glob("*/model.json")}
    where = "import iekd; print(iekd.__file__)"
    done = subprocess.run(
        **{**image.start(sys.executable, "-c", where), "cwd": "/"}, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(image.site), "the checkout was imported"


@pytest.fixture
def served(image) -> Iterator[int]:
    """The port of the image's command, which here takes a free one and listens on this machine's address only."""
    command = json.loads(one("CMD", "app.py"))
    assert command[:2] == ["python", "app.py"]
    assert command[2:4] == ["--host", "0.0.0.0"], "a container is reached from outside"
    words = [sys.executable, "app.py", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(**image.start(*words), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(re.search(r"is ready: http://127\.0\.0\.1:(\d+)", process.stdout.readline())[1])
        finally:
            process.terminate()


def test_the_page_opens_and_the_health_check_agrees(image, served):
    words = json.loads(re.search(r"CMD (\[.*\])", one("HEALTHCHECK", "CMD"))[1])

    def healthy(at: int) -> int:
        code = words[2].replace(":7860/", f":{at}/")
        return subprocess.run(**image.start(sys.executable, "-c", code), capture_output=True, check=False).returncode

    assert f":{one('EXPOSE', '')}/" in words[2]
    assert healthy(served) == 0
    assert Path(image.environment["IEKD_RUNS_DIR"]).is_dir()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        assert healthy(other.getsockname()[1]) == 1, "nothing answers there"


def test_what_is_ignored_is_not_copied():
    ignored = (CHECKOUT / ".dockerignore").read_text().split()
    for pattern in ignored:
        assert not any(fnmatch.fnmatch(source, pattern) for text in of_kind("COPY") for source in text.split())
