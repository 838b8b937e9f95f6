"""The code of docs/adding-a-launcher.md is complete and does what the text says."""

from __future__ import annotations

import re
from pathlib import Path

from iekd.runs.status import STOPPED

GUIDE = Path(__file__).parents[2] / "docs" / "adding-a-launcher.md"


def test_the_launcher_of_the_guide_submits_stops_and_reads_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "guide"}
    try:
        for number, block in enumerate(
            re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
        ):
            exec(compile(block, f"{GUIDE.name}, block {number + 1}", "exec"), names)
        launcher, run = names["launcher"], names["run"]
        assert launcher.list() == [run.id]
        assert run.owner == "process"
        assert names["final"].state == run.status.state == STOPPED
        assert names["final"].error is None, "it stopped by itself"
        assert run.metrics()[0]
        assert "The run is stopped." in names["text"]
        assert not run.alive()
        assert names["page"].fns
    finally:
        if "launcher" in names:
            for run_id in names["launcher"].list():
                names["launcher"].kill(names["launcher"].store.get(run_id))
