"""What a command says when the run is over: what was left out, and how to continue."""

from __future__ import annotations

import pytest
import typer

from iekd.cli.messages import print_results, say_how_it_ended
from iekd.runs.status import STOPPED, Status
from iekd.runs.store import Store


@pytest.fixture
def run(tmp_path, written_run):
    return written_run(Store(tmp_path))


def test_files_that_were_left_out_are_counted_after_the_table(run, capsys):
    print_results(run.report)
    assert "left out" not in capsys.readouterr().out
    print_results({**run.report, "skipped_files": ["/a/x.png", "/a/y.png"]})
    assert "Note: 2 files that cannot be read were left out; report.md names them.\n" in capsys.readouterr().out


def test_a_stopped_run_says_how_to_continue_it(run, capsys):
    say_how_it_ended(run, as_json=False)
    assert "resume" not in capsys.readouterr().out
    (run.path / "report.json").unlink()
    run.write_status(Status(state=STOPPED))
    with pytest.raises(typer.Exit):
        say_how_it_ended(run, as_json=False)
    assert f"'iekd runs resume {run.id}' continues it." in capsys.readouterr().out
