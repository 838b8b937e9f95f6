"""What a table of accuracies says and what it does not: means, paired differences, and whether chance explains them.

Learners of one seed share initial weights and batches, so methods are compared seed by seed (a paired t-test). Where
several methods are compared with the baseline, the smallest of many p-values is no surprise: `p_adjusted` is Holm's
correction for that, and decides.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """A method minus the baseline over n seeds that both have, in points of accuracy.

    low, high: 95 % confidence interval of the mean difference. p: two-sided paired t-test. All None for one seed.
    """

    mean: float
    n: int
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None

    @property
    def significant(self) -> bool:
        return self.p_adjusted is not None and self.p_adjusted < SIGNIFICANT


@dataclass(frozen=True)
class Summary:
    """One method: mean and sample standard deviation (None for one seed) over n seeds, and against the baseline."""

    method: str
    n: int
    mean: float
    sd: float | None
    difference: Difference | None = None

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        if self.difference is not None:
            values["difference"]["significant"] = self.difference.significant
        return values


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """The difference of paired values, `values[i]` and `baseline[i]` being of one seed."""
    differences = [a - b for a, b in zip(values, baseline, strict=True)]
    n, mean = len(differences), statistics.fmean(differences)
    if n < 2:
        return Difference(mean, n)
    error = statistics.stdev(differences) / math.sqrt(n)
    if error < 1e-12:  # all differ alike: the test has nothing to divide by
        p = 1.0 if abs(mean) < 1e-12 else 0.0
        return Difference(mean, n, mean, mean, p, p)
    from scipy.special import stdtr, stdtrit  # Student's distribution; scipy.stats takes a second to import

    half = float(stdtrit(n - 1, 0.975)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean / error)))
    return Difference(mean, n, mean - half, mean + half, p, p)


def summarise(accuracies: Mapping[str, Mapping[int, float]], baseline: str = "baseline") -> list[Summary]:
    """One Summary per method of accuracies (method -> seed -> percent); with differences if there is a baseline."""
    yardstick = accuracies.get(baseline, {})
    found = []
    for method, by_seed in accuracies.items():
        values = list(by_seed.values())
        sd = statistics.stdev(values) if len(values) > 1 else None
        common = [seed for seed in by_seed if seed in yardstick]
        difference = None
        if method != baseline and common:
            difference = paired_difference([by_seed[s] for s in common], [yardstick[s] for s in common])
        found.append(Summary(method, len(values), statistics.fmean(values), sd, difference))
    return _adjusted(found)


def _adjusted(found: list[Summary]) -> list[Summary]:
    """Holm 1979: the i-th smallest of m p-values times m - i, and no smaller than the one before."""
    tested = sorted((s for s in found if s.difference and s.difference.p is not None), key=lambda s: s.difference.p)  # type: ignore[union-attr, arg-type, return-value]
    adjusted: dict[str, float] = {}
    highest = 0.0
    for i, summary in enumerate(tested):
        assert summary.difference is not None
        assert summary.difference.p is not None
        highest = max(highest, min(1.0, summary.difference.p * (len(tested) - i)))
        adjusted[summary.method] = highest
    return [
        replace(s, difference=replace(s.difference, p_adjusted=adjusted[s.method]))
        if s.difference and s.method in adjusted
        else s
        for s in found
    ]


def conclusion(found: Sequence[Summary], name: Callable[[str], str] = str) -> str:
    """One honest sentence: which method is best, by how much against the baseline, and whether that may be chance.

    name: how a method is called. Empty where there is nothing to compare.
    """
    compared = [s for s in found if s.difference is not None]
    if not compared:
        return ""
    best = max(compared, key=lambda s: s.mean)
    difference = best.difference
    assert difference is not None
    size = f"{abs(difference.mean):.1f} points {'above' if difference.mean > 0 else 'below'} the baseline"
    if abs(difference.mean) < 0.05:
        size = "level with the baseline"
    if difference.p_adjusted is None or difference.low is None or difference.high is None:
        return f"{name(best.method)} is {size}, with one seed, so chance may have a part in it."
    many = f", corrected for {len(compared)} comparisons" if len(compared) > 1 else ""
    numbers = (
        f"95 % interval {difference.low:+.1f} to {difference.high:+.1f}, p {_p(difference.p_adjusted)}{many}, "
        f"{difference.n} seeds"
    )
    if not difference.significant:
        return f"No significant difference: {name(best.method)} is {size}, but chance may do that ({numbers})."
    return f"{name(best.method)} is {size} ({numbers})."


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.1 else f"= {value:.2f}"
