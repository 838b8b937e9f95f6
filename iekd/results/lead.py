"""The main number of a run: which student it is of, what it gained, and whether that is decided.

`lead` works on accuracies from anywhere, such as the curves of a run that trains; `lead_of` takes them from a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iekd.config.methods import BASELINE, explores
from iekd.language import _, ngettext
from iekd.plural import signed
from iekd.results.report import summaries
from iekd.results.significance import Difference, Summary, p_text


def lead_method(methods: Sequence[str]) -> str:
    """The method that a run's main number is of: the first IE method in the order of the settings; without one the
    first that is not the baseline; without others the baseline.

    The order was there before any result. The best of several would look better than it is.
    """
    taught = [method for method in methods if method != BASELINE]
    return next(filter(explores, taught), taught[0] if taught else BASELINE)


@dataclass(frozen=True)
class Lead:
    """The main number of a run, in percent, and what it is compared with.

    own: of the method that leads. plain: the baseline; None where it is that itself, or there is none. teacher: its
    accuracy. higher: the methods with a higher mean. compared: how many methods are compared with the baseline.
    """

    own: Summary
    plain: Summary | None
    teacher: float | None
    higher: tuple[Summary, ...]
    compared: int

    @property
    def gain(self) -> Difference | None:
        """Against the baseline, in points."""
        return self.own.difference

    @property
    def closed(self) -> float | None:
        """Percent of the gap between plain student and teacher that is closed, negative if it is wider now; None where
        there is no gap, because the teacher is no better."""
        if self.plain is None or self.gain is None or self.teacher is None:
            return None
        gap = self.teacher - self.plain.mean
        return 100 * self.gain.mean / gap if gap > 0.05 else None


def lead(found: Sequence[Summary], teacher: float | None) -> Lead | None:
    """The main number among the methods of a run, in the order of its settings; None if there are none.

    A method whose students all diverged is not among them, and the next takes its place.
    """
    by_method = {s.method: s for s in found}
    if not by_method:
        return None
    own = by_method[lead_method(list(by_method))]
    plain = by_method.get(BASELINE) if own.method != BASELINE else None
    higher = sorted((s for s in found if s.mean > own.mean + 0.005), key=lambda s: -s.mean)
    return Lead(own, plain, teacher, tuple(higher), sum(s.difference is not None for s in found))


def lead_of(report: dict[str, Any]) -> Lead | None:
    """The main number of a report; None if all its students diverged."""
    return lead(summaries(report), report["teacher"]["accuracy"] if report.get("teacher") else None)


def judgement(gain: Difference, compared: int) -> str:
    """Whether a gain is decided, in a sentence or two that repeat neither the gain nor its main interval.

    Args:
        compared: how many methods were compared with the baseline, for which p is corrected.
    """
    tested = gain.over_images
    if gain.n < 2:
        if tested is None:
            return _("Not decided: with one seed, chance may have a part in it.")
        if tested.conclusive:
            return _("Other test images would hardly reverse it, but that is one seed; others may change more.")
        return _("Not decided: other test images may reverse it, and other seeds may change more.")
    few = ""
    if tested is not None and not tested.conclusive:
        span = _("{low} to {high} (95 % interval)", low=signed(tested.low, 1), high=signed(tested.high, 1))
        few = " " + ngettext(
            "The {number} test image is few: others could make it {interval}.",
            "The {number} test images are few: others could make it {interval}.", tested.n, interval=span,
        )  # fmt: skip
    if gain.p_adjusted is None:
        return ngettext("No test is possible: all {number} seed give the same difference.",
                        "No test is possible: all {number} seeds give the same difference.", gain.n) + few  # fmt: skip
    p = p_text(gain.p_adjusted)
    if compared > 1:
        test = _("p {p} in a paired test over the seeds, corrected for {count} comparisons", p=p, count=compared)
    else:
        test = _("p {p} in a paired test over the seeds", p=p)
    if not gain.significant:
        return _("Not decided: chance may explain it ({test}).", test=test)
    return _("Chance hardly explains it ({test}).", test=test) + few
