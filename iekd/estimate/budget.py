"""How long a benchmark may take in all, so that it ends on a busy machine too, where a step may take many times as
long."""

from __future__ import annotations

import time
from collections.abc import Callable

TimeIsUp = Callable[[], bool]  # whether a measurement has had its share of the time


class OutOfTimeError(Exception):
    """All time is used up, and this measurement has nothing to show yet."""


def no_limit() -> bool:
    """A TimeIsUp that never ends a measurement."""
    return False


class Budget:
    """So many seconds from now on; `cut` names what did not get all the time it wanted."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.clock = seconds, clock
        self.end = clock() + seconds
        self.cut: list[str] = []

    @property
    def left(self) -> float:
        return max(0.0, self.end - self.clock())

    def part(self, name: str, share: float) -> TimeIsUp:
        """For one measurement that may take this share of what is left; told that it is over, it ends early."""
        end = self.clock() + self.left * share

        def time_is_up() -> bool:
            if self.clock() < end:
                return False
            self.note(name)
            return True

        return time_is_up

    def note(self, name: str) -> None:
        if name not in self.cut:
            self.cut.append(name)
