"""A report in one line, and runs side by side: what a list of runs and a comparison of some of them show.

Leaves out: where reports and configurations come from (runs/index.py, runs/compare.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from iekd.config.methods import BASELINE
from iekd.config.run import RunConfig
from iekd.results.report import chance_level, guesses, summaries
from iekd.results.significance import Difference, Summary

SEEDS, IMAGES = "seeds", "test images"  # what an interval is over


@dataclass(frozen=True)
class Brief:
    """Main numbers of a finished run.

    teacher: its accuracy in percent, or None. plain: the baseline over its seeds. taught: the method with the highest
    mean among the others. too_weak: a sentence where the networks know too little for a comparison; else empty.
    diverged: students that did. methods: every method with its mean, in percent.
    """

    teacher: float | None
    plain: Summary | None
    taught: Summary | None
    too_weak: str
    diverged: tuple[str, ...]
    methods: tuple[tuple[str, float], ...]

    @property
    def gain(self) -> Difference | None:
        """The taught student minus the plain one, in points."""
        return self.taught.difference if self.taught else None

    @property
    def best(self) -> float | None:
        """The highest accuracy of a student, in percent."""
        return max((mean for _, mean in self.methods), default=None)


@dataclass(frozen=True)
class Interval:
    """95 % interval of a gain, in points. over: SEEDS or IMAGES, what its uncertainty comes from; n: how many."""

    low: float
    high: float
    over: str
    n: int


def brief(report: dict[str, Any], name: Callable[[str], str] = str) -> Brief:
    """The main numbers of a report.

    Args:
        report: what report.json holds.
        name: how `too_weak` calls a method.

    Returns:
        The numbers; `too_weak` is set where the teacher, or every student, is at chance level.
    """
    found = summaries(report)
    teacher = report["teacher"]["accuracy"] if report.get("teacher") else None
    taught = [s for s in found if s.method != BASELINE]
    weak = all(guesses(report, s.mean) for s in found) or (teacher is not None and guesses(report, teacher))
    return Brief(
        teacher,
        next((s for s in found if s.method == BASELINE), None),
        max(taught, key=lambda s: s.mean) if taught else None,
        chance_level(report, name) if weak else "",
        tuple(report.get("diverged", {})),
        tuple((s.method, s.mean) for s in found),
    )


def interval(gain: Difference) -> Interval | None:
    """Over seeds if there are several, else over the test images; None where neither is known."""
    if gain.low is not None and gain.high is not None:
        return Interval(gain.low, gain.high, SEEDS, gain.n)
    if (images := gain.over_images) is not None:
        return Interval(images.low, images.high, IMAGES, images.n)
    return None


def settings_that_differ(configs: Sequence[RunConfig]) -> dict[str, list[Any]]:
    """Each setting that is not the same in all configurations, with its value in each, in the order of RunConfig.

    The name is left out: it changes nothing.
    """
    found = {}
    for field in RunConfig.model_fields:
        values = [getattr(config, field) for config in configs]
        if field != "name" and any(value != values[0] for value in values):
            found[field] = values
    return found
