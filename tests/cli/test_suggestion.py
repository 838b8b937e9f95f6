"""`iekd train` says in a line what would suit somebody's pictures."""

from __future__ import annotations

import pytest

from iekd.cli.messages import say_proposal
from iekd.config.run import make_config
from iekd.data.base import DatasetInfo
from iekd.runs.prepare import Prepared


def test_a_line_says_what_would_suit_and_nothing_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    info = DatasetInfo("folder:/a", "a", 300, 50, 2, 3, 32, side=64)
    say_proposal(Prepared(make_config(dataset="folder:/a", device="cpu"), info, None))
    said = capsys.readouterr().err
    assert said.startswith(
        "Suggestion: --preset small-data --resolution 64 --batch-size 16. There are only 300 training"
    )
    assert said.count("\n") == 1
    taken = make_config("small-data", dataset="folder:/a", resolution=64, batch_size=16, device="cpu")
    say_proposal(Prepared(taken, info, None))
    assert not capsys.readouterr().err
