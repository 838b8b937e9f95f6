"""How far a run is and how long it will still take, from what is measured while it runs. Needs no torch.

A run consists of parts: each stage's training and its predictions for held-out images. Before anything is measured, a
part is expected to take its share of the estimate. Then the time per step and per held-out image of this run counts,
and parts that are still to come are scaled by those that were measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TRAINING, HELD_OUT = "train", "held-out"
Part = tuple[str, str]  # a stage, and TRAINING or HELD_OUT
FINISH = 1.0  # seconds for saving the models and writing the report
MEASURED, SCALED = 1.1, 1.4  # factor within which a part's time is expected, once it or others were measured
HALF = 120.0  # seconds of a part after which what was measured counts half: other programs come and go
# what was foreseen for a part weighs as much as measuring this share of it, or this many seconds of it: the first steps
# of a stage are often slow
FEW, FEW_SECONDS = 0.03, 3.0


@dataclass(frozen=True)
class Remaining:
    """Seconds until the run is finished: what is expected, and the range in which it is expected."""

    seconds: float
    low: float
    high: float


class _Measured:
    """What is known of one part. expected: seconds for all of it; fraction: how much of it is done."""

    def __init__(self, expected: float) -> None:
        self.expected, self.fraction = expected, 0.0
        self.took = self.gained = 0.0
        self.updates = 0

    def add(self, seconds: float, fraction: float) -> None:
        self.updates += 1
        if self.updates == 2:  # the first one included a warm-up
            self.took = self.gained = 0.0
        faded = 0.5 ** (seconds / HALF)
        self.took, self.gained = self.took * faded + seconds, self.gained * faded + fraction - self.fraction
        self.fraction = fraction

    def whole(self, foreseen: float, factor: float) -> tuple[float, float]:
        """Seconds for all of it, and the factor within which that is expected to be right; `factor`: the same of what
        was foreseen."""
        few = min(FEW, FEW_SECONDS / foreseen) if foreseen else FEW
        weight = self.gained / (self.gained + few)
        return (self.took + few * foreseen) / (self.gained + few), weight * MEASURED + (1 - weight) * factor


class Progress:
    """One number over all stages, and the time that is left.

    `value` goes from 0 to 1 and never falls. It grows in proportion to time as far as the remaining time is right: from
    one moment to the next, by that time's share of all that was left.

    Args:
        expected: seconds of each part of the run in order, by an estimate.
        spread: the factor within which the estimate is expected to be right.
        value: where an earlier attempt was.
        pace: what an earlier attempt measured; see `pace`.
        clock: seconds.
    """

    def __init__(
        self, expected: Mapping[Part, float], spread: float, value: float = 0.0,
        pace: Mapping[str, float] | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.parts = {part: _Measured(seconds) for part, seconds in expected.items()}
        self.spread, self.value, self.clock, self.before = spread, value, clock, dict(pace or {})
        self.seen = self.spent_from = clock()

    def start(self, stage: str, trained: float, held_out: float) -> None:
        """A stage begins, of which an earlier attempt has done these fractions. Those before it are over."""
        for part, measured in self.parts.items():
            if part[0] == stage:
                break
            measured.fraction = 1.0
        for kind, done in ((TRAINING, trained), (HELD_OUT, held_out)):
            if (stage, kind) in self.parts:
                self.parts[stage, kind].fraction = done
        self._grow()
        self.spent_from = self.seen

    def update(self, stage: str, kind: str, fraction: float) -> None:
        """So much of a part is done; the time since the last update was spent on it."""
        now, measured = self.clock(), self.parts.get((stage, kind))
        if measured is not None and fraction > measured.fraction:
            measured.add(now - self.spent_from, min(1.0, fraction))
            self.spent_from = now
        self._grow()

    def remaining(self) -> Remaining:
        """The time that is left."""
        seconds = low = high = FINISH
        for part, measured in self.parts.items():
            whole, factor = measured.whole(*self._foreseen(part))
            left = whole * (1 - measured.fraction)
            seconds, low, high = seconds + left, low + left / factor, high + left * factor
        return Remaining(seconds, low, high)

    @property
    def pace(self) -> dict[str, float]:
        """Seconds that each part takes as a whole, as far as that was measured."""
        known = {part: measured for part, measured in self.parts.items() if measured.gained}
        return self.before | {"/".join(part): m.whole(*self._foreseen(part))[0] for part, m in known.items()}

    def _foreseen(self, part: Part) -> tuple[float, float]:
        """Seconds for all of a part without its own measurement, and the factor within which that may be right."""
        if (name := "/".join(part)) in self.before:
            return self.before[name], SCALED
        # of other parts: the seconds that were measured, and those that were expected for that much
        measured = {
            other: (m.took, m.gained * m.expected) if m.gained else (self.before["/".join(other)], m.expected)
            for other, m in self.parts.items()
            if other != part and (m.gained or "/".join(other) in self.before)
        }
        alike = [pair for other, pair in measured.items() if other[1] == part[1]] or list(measured.values())
        expected = self.parts[part].expected
        if not (alike and expected):
            return expected, self.spread
        little = min(FEW_SECONDS, FEW * sum(m.expected for m in self.parts.values()))
        scale = (sum(took for took, _ in alike) + little) / (sum(foreseen for _, foreseen in alike) + little)
        return expected * scale, SCALED

    def _grow(self) -> None:
        now = self.clock()
        passed, self.seen = now - self.seen, now
        if passed > 0:
            self.value += (1 - self.value) * passed / (passed + self.remaining().seconds)
