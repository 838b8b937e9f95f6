"""How long something takes, in words."""

from __future__ import annotations

import pytest

from iekd.times import duration, time_range


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (180, 360, "about 3 to 6 min"), (210, 270, "about 4 min"), (1, 4, "a few seconds"), (-3, 9, "a few seconds"),
        (25, 80, "about 20 to 80 s"), (38, 44, "about 40 s"), (3, 30, "about 10 to 30 s"),
        (20, 200, "about 1 to 3 min"),
        (3 * 3600, 8 * 3600, "about 3 to 8 h"), (90 * 60, 100 * 60, "about 95 min"),
        (86400, 30 * 86400, "about 1 to 30 days"),
    ],
)  # fmt: skip
def test_a_time_that_is_not_known_is_a_range(low, high, said):
    assert time_range(low, high) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""), (0.4, "0 s"), (59.4, "59 s"), (75, "1 min 15 s"), (3600, "1 h 00 min"), (36 * 3600, "36 h 00 min"),
        (49 * 3600, "2 days"),
    ],
)  # fmt: skip
def test_a_time_that_is_known(seconds, said):
    assert duration(seconds) == said
