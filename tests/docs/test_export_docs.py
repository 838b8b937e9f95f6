"""docs/export.md: its commands and its Python run as they stand, from a checkout."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.export import FORMATS

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "export.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs the checkout")


def test_its_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(CHECKOUT / "checkpoints"))
    (tmp_path / "checkpoints").symlink_to(CHECKOUT / "checkpoints")
    commands = re.findall(r"^ {4}(.+?)(?: {2,}#.*)?$", PAGE.read_text(), re.M)
    export, *_, use = (command for command in commands if "shoes.onnx" in command or "use_it.py" in command)
    done = CliRunner().invoke(app, shlex.split(export)[1:])
    assert done.exit_code == 0, done.output
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "photo.jpg")
    program, *words = shlex.split(use)
    assert program == "python"
    shown = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout
    assert len(shown.strip().split("\t")) == 1 + 5, "the picture and five classes"
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    exec(compile(block, str(PAGE), "exec"), found := {})
    assert found["certificate"].accuracy == pytest.approx(87.99, abs=0.02)
    assert (tmp_path / "shoes-from-python" / "model.onnx").is_file()


def test_every_format_is_in_its_table():
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \|", PAGE.read_text(), re.M)
    assert rows.pop() == ("web", "index.html"), "a page of several models, which is no Format"
    assert rows == [(name, chosen.file) for name, chosen in FORMATS.items()]
