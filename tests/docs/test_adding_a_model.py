"""The code in docs/adding-a-model.md does what the page says: every block is run, in a folder of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
GUIDE = CHECKOUT / "docs" / "adding-a-model.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path):
    """Outside of the package, with the files that the guide has the reader write: blocks that begin with a name."""
    for block in blocks("python"):
        if named := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / named[1]).write_text(block)
    return tmp_path


def run(command: list[str], folder: Path, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "IEKD_PLUGINS"}
    done = subprocess.run(
        command, cwd=folder, env={**environment, "PYTHONPATH": str(CHECKOUT), **variables}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python(folder):
    """Each block that is not a file is a script of its own beside the file."""
    scripts = [block for block in blocks("python") if not re.match(r"# \w+\.py\n", block)]
    said = []
    for i, block in enumerate(scripts):
        (folder / f"script{i}.py").write_text(block)
        said.append(run([sys.executable, f"script{i}.py"], folder))
    trained, sizes = said[0].splitlines(), said[1]
    assert [line.split()[0] for line in trained] == ["baseline-seed0", "ie-ft-seed0"]
    assert all(line.endswith("% ToyNet") for line in trained)
    assert "(16, 32) (2, 4)" in sizes


def test_commands(folder):
    """`iekd` is this checkout's; the commands' variables are set as a shell would set them."""
    said = []
    for line in "".join(blocks("bash")).splitlines():
        words = shlex.split(line)
        variables = dict(word.split("=", 1) for word in words if re.match(r"IEKD_\w+=", word))
        arguments = words[len(variables) + 1 :]
        assert words[len(variables)] == "iekd"
        more = ["--runs-dir", str(folder / "runs")] if arguments[0] == "train" else []
        said.append(run([sys.executable, "-m", "iekd", *arguments, *more], folder, **variables))
    listed, trained = said
    assert "toy-net" in listed
    assert "ie-ft" in trained
    (saved,) = folder.glob("runs/*/models/ie-ft-seed0/model.json")
    assert '"model": "toy-net"' in saved.read_text()
