"""The guide's code does what the guide says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
GUIDE = CHECKOUT / "docs" / "adding-a-data-source.md"


@pytest.fixture
def written(tmp_path) -> Path:
    """A folder with the guide's module as the reader saves it, and the rest of its Python as use.py."""
    module, use = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "stripes.py").write_text(module)
    (tmp_path / "use.py").write_text(use)
    return tmp_path


def run(folder: Path, *words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(CHECKOUT)]), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_source_is_listed_has_thumbnails_and_trains_in_the_same_process(written):
    titles, thumbnail, *epochs = run(written, "use.py").splitlines()
    assert "'Stripes'" in titles
    assert thumbnail == "across"
    accuracies = [float(re.search(r"([\d.]+) %", line)[1]) for line in epochs]
    assert len(accuracies) == 4
    assert accuracies[-1] > 60, "stripes are easy"


def test_the_commands_know_it_and_so_does_the_process_that_trains(written):
    """The run is another process, which imports the module by itself."""
    listed = json.loads(run(written, "-m", "iekd", "datasets", "--json", IEKD_PLUGINS="stripes.py"))
    assert listed["datasets"][-1]["name"] == "stripes"
    words = next(line for line in GUIDE.read_text().splitlines() if line.startswith("iekd train")).split()
    words = ["-m", *words, "--device", "cpu", "--json"]
    result = json.loads(run(written, *words, IEKD_PLUGINS="stripes.py").splitlines()[-1])
    assert (result["state"], result["dataset"]) == ("finished", "stripes")


def test_every_method_that_the_guide_names_exists():
    from iekd.data import Source

    for name in re.findall(r"^\| `?(\w+)\(name", GUIDE.read_text(), re.MULTILINE):
        assert callable(getattr(Source, name))
    for name in ("uses_test_fraction", "may_stream", "usage", "note", "resolution"):
        assert f"`{name}" in GUIDE.read_text() or name == "resolution"
        assert hasattr(Source, name)
