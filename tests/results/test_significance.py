"""Statistics against formulas and numbers from elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iekd.results.significance import OverImages, conclusion, over_images, paired_difference, summarise

VALUES = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=12)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_the_paired_test_is_scipys(pairs):
    from scipy import stats

    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    if np.std(a - b) < 1e-6:
        return
    expected = stats.ttest_rel(a, b)
    found = paired_difference(a.tolist(), b.tolist())
    assert found.mean == pytest.approx((a - b).mean(), abs=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)


def test_a_textbook_example():
    """Differences 1..5: mean 3, sd sqrt(2.5), standard error sqrt(0.5), t(4, 0.975) = 2.7764 from any table."""
    found = paired_difference([2, 4, 6, 8, 10], [1, 2, 3, 4, 5])
    assert found.mean == 3
    assert found.high - found.mean == pytest.approx(2.776445 * math.sqrt(0.5), rel=1e-5)
    assert found.p == pytest.approx(0.0132, abs=5e-5)  # t = 4.2426


def test_one_seed_has_no_test():
    found = paired_difference([80.0], [78.0])
    assert (found.mean, found.n, found.low, found.p) == (2, 1, None, None)
    assert not found.significant


def test_differences_without_any_spread():
    """Few test images make accuracies coarse; two seeds that differ alike by chance prove nothing."""
    for values in ([2.0, 3.0], [1.0, 2.0]):
        found = paired_difference(values, [1.0, 2.0])
        assert (found.n, found.p, found.low) == (2, None, None)
        assert not found.significant


def test_methods_are_paired_by_seed_not_by_order():
    found = summarise({"baseline": {0: 10, 1: 20, 2: 30}, "kd": {2: 31, 0: 11, 1: 21}})
    assert found[1].difference.mean == 1
    assert found[1].difference.p is None, "all three differ by exactly one"


def test_only_common_seeds_are_compared():
    found = summarise({"baseline": {0: 10, 1: 20}, "kd": {1: 25, 2: 99}})
    assert (found[1].difference.mean, found[1].difference.n, found[1].n) == (5, 1, 2)
    assert summarise({"baseline": {0: 10}, "kd": {1: 25}})[1].difference is None


def test_mean_and_sample_deviation():
    (found,) = summarise({"kd": {0: 1.0, 1: 2.0, 2: 6.0}})
    assert (found.mean, found.n, found.difference) == (3, 3, None)
    assert found.sd == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert summarise({"kd": {0: 1.0}})[0].sd is None


def test_p_values_are_corrected_for_many_comparisons():
    """Holm 1979 by hand: the smallest of three times 3, the next times 2, the largest times 1, never falling."""
    rng = np.random.default_rng(0)
    baseline = {seed: 80 + rng.normal() for seed in range(5)}
    methods = {name: {s: v + gain + 0.5 * rng.normal() for s, v in baseline.items()} for name, gain in
               (("a", 0.2), ("b", 2.0), ("c", 0.6))}  # fmt: skip
    found = {s.method: s.difference for s in summarise({"baseline": baseline, **methods}) if s.difference}
    ordered = sorted(found.values(), key=lambda d: d.p)
    expected, highest = [], 0.0
    for factor, difference in zip((3, 2, 1), ordered, strict=True):
        highest = max(highest, min(1.0, factor * difference.p))
        expected.append(highest)
    assert [d.p_adjusted for d in ordered] == pytest.approx(expected)
    alone = summarise({"baseline": baseline, "b": methods["b"]})[1].difference
    assert alone.p_adjusted == alone.p < found["b"].p_adjusted


@pytest.mark.parametrize(
    ("accuracies", "sentence"),
    [
        ({"baseline": {0: 80}, "kd": {0: 82.5}},
         "kd is 2.5 points above the baseline, with one seed, so chance may have a part in it."),
        ({"baseline": {0: 80, 1: 81, 2: 82}, "kd": {0: 82, 1: 83.1, 2: 83.9}},
         "kd is 2.0 points above the baseline (95 % interval +1.8 to +2.2, p < 0.001, 3 seeds)."),
        ({"baseline": {0: 80, 1: 81, 2: 82}, "kd": {0: 82, 1: 80.5, 2: 82.5}},
         "No significant difference: kd is 0.7 points above the baseline (95 % interval -2.5 to +3.8, p = 0.46, "
         "3 seeds)."),
        ({"baseline": {0: 80, 1: 81}, "kd": {0: 79, 1: 79.98}},
         "kd is 1.0 points below the baseline (95 % interval -1.1 to -0.9, p = 0.006, 2 seeds)."),
        ({"baseline": {0: 80, 1: 81}, "kd": {0: 79, 1: 79.98}, "ft": {0: 78, 1: 79}},
         "No method beats the baseline; significantly below: kd."),
        # a larger mean that may be chance does not hide a difference that is none
        ({"baseline": {0: 50, 1: 50.2, 2: 49.9}, "a": {0: 58, 1: 50, 2: 53}, "b": {0: 52, 1: 52.21, 2: 51.9}},
         "b is 2.0 points above the baseline (95 % interval +2.0 to +2.0, p < 0.001, corrected for 2 comparisons, "
         "3 seeds). a has a higher mean, but chance may do that."),
        ({"baseline": {0: 50, 1: 50.2, 2: 49.9}, "a": {0: 53, 1: 53.3, 2: 52.8}, "b": {0: 52, 1: 52.21, 2: 51.9}},
         "a is 3.0 points above the baseline (95 % interval +2.8 to +3.2, p < 0.001, corrected for 2 comparisons, "
         "3 seeds). So are 1 more of the 2 methods."),
        ({"baseline": {0: 50, 1: 60}, "a": {0: 60, 1: 70}},
         "a is 10.0 points above the baseline, alike in 2 seeds, too alike for a test."),
        ({"baseline": {0: 80}}, ""),
        ({"kd": {0: 80}, "ft": {0: 82}}, ""),
    ],
)  # fmt: skip
def test_the_conclusion_is_one_honest_sentence(accuracies, sentence):
    assert conclusion(summarise(accuracies)) == sentence


def test_the_conclusion_calls_methods_as_it_is_told():
    assert conclusion(summarise({"baseline": {0: 1}, "kd": {0: 2}}), str.upper).startswith("KD is 1.0 points above")


def test_methods_too_alike_for_a_test_count_as_comparisons_too():
    """kd differs by five points in each seed; ft is not to be called significant as if it had been looked at alone."""
    accuracies = {"baseline": {0: 50, 1: 52, 2: 54}, "ft": {0: 51, 1: 52.5, 2: 55.2}}
    alone = summarise(accuracies)[1].difference
    assert alone.p == pytest.approx(0.0496, abs=1e-4)
    assert "p = 0.0496" in conclusion(summarise(accuracies)), "0.050 would look as if it were not significant"
    found = summarise({**accuracies, "kd": {0: 55, 1: 57, 2: 59}})
    assert found[1].difference.p_adjusted == pytest.approx(2 * alone.p)
    assert conclusion(found).startswith("No significant difference")


def drawn(rng, images: int, seeds: int = 1, better: float = 0.1, worse: float = 0.04) -> tuple[np.ndarray, np.ndarray]:
    """Answers of two networks, right or not: the first alone is right with probability `better`, and so on."""
    outcome = rng.choice(4, (seeds, images), p=[better, worse, 0.6, 0.4 - better - worse])
    return np.isin(outcome, (0, 2)), np.isin(outcome, (1, 2))


@pytest.mark.parametrize("images", [30, 100, 1000])
def test_the_interval_over_images_holds_the_truth_as_often_as_it_says(images):
    rng = np.random.default_rng(0)
    found = [over_images(*drawn(rng, images)) for _ in range(3000)]
    held = np.mean([f.low < 6.0 < f.high for f in found])
    assert 0.935 < held < 0.98, "0.95, but for what is drawn and for whole images"


def test_the_interval_over_many_images_is_that_of_a_paired_test():
    from scipy import stats

    right, baseline = drawn(np.random.default_rng(1), 20_000, seeds=3)
    found = over_images(right, baseline)
    expected = stats.ttest_rel(right.mean(0), baseline.mean(0)).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=0.01)
    assert found.n == 20_000


def test_networks_that_never_disagree_on_few_images_are_not_proved_alike():
    for n in (1, 10, 100):
        found = over_images(np.ones((1, n), bool), np.ones((1, n), bool))
        assert found.low < 0 < found.high == -found.low
        assert not found.conclusive
    assert found.high < 3.0, "a hundred images tell more than one"


def test_either_network_may_come_first():
    right, baseline = drawn(np.random.default_rng(2), 200)
    one, other = over_images(right, baseline), over_images(baseline, right)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


@pytest.mark.parametrize(
    ("by_seed", "tested", "sentence"),
    [
        ([82.5], OverImages(-0.42, 5.44, 120),
         "Not decided: kd is 2.5 points above the baseline, but other test pictures could make it -0.4 to +5.4 (95 % "
         "interval), and other seeds may change more."),
        ([82.5], OverImages(1.42, 3.44, 120),
         "kd is 2.5 points above the baseline. That is one seed: other test pictures could make it +1.4 to +3.4 (95 % "
         "interval), and other seeds may change more."),
        ([82, 83.1, 83.9], OverImages(-1.04, 5.0, 1200),
         "kd is 2.0 points above the baseline (95 % interval +1.8 to +2.2, p < 0.001, 3 seeds). The seeds agree, but "
         "1,200 test pictures are few: others could make it -1.0 to +5.0 (95 % interval)."),
        ([82, 83.1, 83.9], OverImages(0.9, 3.1, 10_000),
         "kd is 2.0 points above the baseline (95 % interval +1.8 to +2.2, p < 0.001, 3 seeds)."),
    ],
)  # fmt: skip
def test_the_conclusion_says_when_test_images_are_too_few(by_seed, tested, sentence):
    accuracies = {"baseline": {s: 80 + s for s in range(len(by_seed))}, "kd": dict(enumerate(by_seed))}
    assert conclusion(summarise(accuracies, images={"kd": tested}), images="pictures") == sentence


def test_a_summary_as_json_says_whether_it_is_significant():
    found = summarise({"baseline": {0: 80, 1: 81, 2: 82}, "kd": {0: 82, 1: 83.1, 2: 83.9}})
    assert found[1].to_json()["difference"]["significant"] is True
    assert found[0].to_json()["difference"] is None
