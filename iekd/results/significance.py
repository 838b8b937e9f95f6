"""What a table of accuracies shows: means, paired differences, and whether chance explains them.

Learners of one seed share initial weights and batches, so methods are compared seed by seed (a paired t-test). If
several methods are compared with the baseline, one of many p-values is small by chance: `p_adjusted` has Holm's
correction for that, and decides.

Seeds are one source of chance, test images another: a few hundred of them say little about all others, however many
seeds agree. `over_images` measures that.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from iekd.config.methods import BASELINE
from iekd.language import _
from iekd.plural import counted

if TYPE_CHECKING:
    import numpy as np

SIGNIFICANT = 0.05
Z = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class OverImages:
    """95 % interval of a difference, in points, for these very networks on other images like the n of the test."""

    low: float
    high: float
    n: int

    @property
    def conclusive(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return _("{low} to {high} (95 % interval)", low=f"{self.low:+.1f}", high=f"{self.high:+.1f}")


@dataclass(frozen=True)
class Difference:
    """A method minus the baseline over n seeds that both have, in points of accuracy.

    low, high: 95 % confidence interval of the mean difference. p: two-sided paired t-test. All None for one seed, and
    where all seeds differ alike. over_images: None where it is not known which images each network got right.
    """

    mean: float
    n: int
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    over_images: OverImages | None = None

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
    if error < 1e-9:  # all differ by the same amount, as with few test images or no difference: no test is possible
        return Difference(mean, n)
    from scipy.special import stdtr, stdtrit  # Student's distribution; scipy.stats takes a second to import

    half = float(stdtrit(n - 1, 0.975)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean / error)))
    return Difference(mean, n, mean - half, mean + half, p, p)


def over_images(right: np.ndarray, baseline: np.ndarray) -> OverImages:
    """How uncertain the test images alone leave the difference; both (seeds, images) bool, true if right.

    A paired comparison of proportions: Agresti and Min 2005 (Statistics in Medicine 24, 729-740), who add half an image
    to each of the four outcomes, so that few images without any disagreement are no proof. Here an image's difference
    is its mean over the seeds.
    """
    difference = right.mean(0) - baseline.mean(0)
    n = len(difference) + 2
    mean = float(difference.sum()) / n
    error = math.sqrt(max(0.0, (float((difference**2).sum()) + 1) / n - mean**2) / n)
    return OverImages(100 * (mean - Z * error), 100 * (mean + Z * error), len(difference))


def each_over_images(right: Mapping[str, Mapping[int, np.ndarray]], baseline: str = BASELINE) -> dict[str, OverImages]:
    """`over_images` of every method, over the seeds that it and the baseline have; right: method -> seed -> (images,)
    bool."""
    import numpy as np

    yardstick = right.get(baseline, {})
    found = {}
    for method, by_seed in right.items():
        common = [seed for seed in by_seed if seed in yardstick]
        if method != baseline and common:
            found[method] = over_images(
                np.stack([by_seed[s] for s in common]), np.stack([yardstick[s] for s in common])
            )
    return found


def summarise(
    accuracies: Mapping[str, Mapping[int, float]], baseline: str = BASELINE,
    images: Mapping[str, OverImages] | None = None,
) -> list[Summary]:  # fmt: skip
    """One Summary per method of accuracies (method -> seed -> percent); with differences if there is a baseline.

    images: method -> what the test images leave open, where that is known.
    """
    yardstick = accuracies.get(baseline, {})
    found = []
    for method, by_seed in accuracies.items():
        values = list(by_seed.values())
        sd = statistics.stdev(values) if len(values) > 1 else None
        common = [seed for seed in by_seed if seed in yardstick]
        difference = None
        if method != baseline and common:
            difference = paired_difference([by_seed[s] for s in common], [yardstick[s] for s in common])
            difference = replace(difference, over_images=(images or {}).get(method))
        found.append(Summary(method, len(values), statistics.fmean(values), sd, difference))
    return _adjusted(found)


def _adjusted(found: list[Summary]) -> list[Summary]:
    """Holm 1979: the i-th smallest of m p-values times m - i, and no smaller than the one before.

    m includes the methods that are too similar for a test: they were compared as well.
    """
    tested = sorted((s for s in found if s.difference and s.difference.p is not None), key=lambda s: s.difference.p)  # type: ignore[union-attr, arg-type, return-value]
    adjusted: dict[str, float] = {}
    highest = 0.0
    compared = sum(s.difference is not None for s in found)
    for i, summary in enumerate(tested):
        assert summary.difference is not None
        assert summary.difference.p is not None
        highest = max(highest, min(1.0, summary.difference.p * (compared - i)))
        adjusted[summary.method] = highest
    return [
        replace(s, difference=replace(s.difference, p_adjusted=adjusted[s.method]))
        if s.difference and s.method in adjusted
        else s
        for s in found
    ]


def conclusion(found: Sequence[Summary], name: Callable[[str], str] = str, images: str = "images") -> str:
    """An honest sentence or two: which method beats the baseline, by how much, and whether that may be chance.

    name: how a method is called; images: how images are. Empty where there is nothing to compare.
    """
    compared = {s.method: s.difference for s in found if s.difference is not None}
    if not compared:
        return ""
    best = max(compared, key=lambda method: compared[method].mean)
    if all(d.p is None for d in compared.values()):
        n = compared[best].n
        said, tested = f"{name(best)} is {_size(compared[best])}", compared[best].over_images
        if n < 2 and tested is not None:
            more = f"other test {images} could make it {tested}, and other seeds may change more."
            return f"{said}. That is one seed: {more}" if tested.conclusive else f"Not decided: {said}, but {more}"
        why = "with one seed, so chance may have a part in it" if n < 2 else f"alike in {n} seeds, too alike for a test"
        few = "" if tested is None else f": other test {images} could make it {tested}"
        return f"{said}, {why}{few}."
    better = [m for m, d in compared.items() if d.significant and d.mean > 0]
    worse = [name(m) for m, d in compared.items() if d.significant and d.mean < 0]
    top = max(better, key=lambda method: compared[method].mean) if better else best
    sentence = f"{name(top)} is {_size(compared[top])} ({_numbers(compared[top], len(compared))})."
    if better:
        also = f" So are {len(better) - 1} more of the {len(compared)} methods." if len(better) > 1 else ""
        why = "chance may do that" if compared[best].p is not None else "its seeds are too alike for a test"
        higher = f" {name(best)} has a higher mean, but {why}." if best != top else ""
        tested = compared[top].over_images
        few = ""
        if tested is not None and not tested.conclusive:
            few = f" The seeds agree, but {tested.n:,} test {images} are few: others could make it {tested}."
        return f"{sentence}{also}{higher}{few}"
    if not worse:
        return f"No significant difference: {sentence}"
    return sentence if len(compared) == 1 else f"No method beats the baseline; significantly below: {', '.join(worse)}."


def _size(difference: Difference) -> str:
    if abs(difference.mean) < 0.05:
        return "level with the baseline"
    return f"{abs(difference.mean):.1f} points {'above' if difference.mean > 0 else 'below'} the baseline"


def _numbers(difference: Difference, compared: int) -> str:
    if difference.low is None or difference.high is None or difference.p_adjusted is None:
        return counted(difference.n, "seed")
    many = f", corrected for {compared} comparisons" if compared > 1 else ""
    interval = f"95 % interval {difference.low:+.1f} to {difference.high:+.1f}"
    return f"{interval}, p {p_text(difference.p_adjusted)}{many}, {difference.n} seeds"


def p_text(value: float) -> str:
    """< 0.001, = 0.012 or = 0.46; = 0.0496 rather than = 0.050."""
    digits = 3 if value < 0.1 else 2
    if round(value, 3) == SIGNIFICANT:
        digits = 4
    return "< 0.001" if value < 0.001 else f"= {value:.{digits}f}"
