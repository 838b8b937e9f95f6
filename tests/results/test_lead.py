"""The main number of a run: chosen by the order of the settings, and judged without repeating itself."""

from __future__ import annotations

import re

import pytest

from iekd.results.lead import judgement, lead, lead_method
from iekd.results.significance import Difference, OverImages, summarise


@pytest.mark.parametrize(
    ("methods", "chosen"),
    [
        (("baseline", "kd", "ie-ft", "ie-at"), "ie-ft"),
        (("ie-at", "baseline", "ie-ft"), "ie-at"),
        (("baseline", "ft", "kd"), "ft"),
        (("kd",), "kd"),
        (("baseline",), "baseline"),
    ],
)
def test_the_first_ie_method_leads_whatever_came_of_it(methods, chosen):
    assert lead_method(methods) == chosen
    found = lead(summarise({m: {0: 50.0 if m == chosen else 90.0} for m in methods}), 95.0)
    assert found.own.method == chosen
    assert {s.method for s in found.higher} == set(methods) - {chosen}


@pytest.mark.parametrize(
    ("plain", "taught", "teacher", "closed"),
    [(86.0, 88.0, 94.0, 25.0), (86.0, 84.0, 94.0, -25.0), (86.0, 95.0, 94.0, 112.5), (86.0, 88.0, 86.0, None),
     (86.0, 88.0, 80.0, None), (86.0, 88.0, None, None)],
)  # fmt: skip
def test_the_share_of_the_gap(plain, taught, teacher, closed):
    found = lead(summarise({"baseline": {0: plain}, "ie-ft": {0: taught}}), teacher)
    assert found.closed == (None if closed is None else pytest.approx(closed))


def test_without_a_baseline_there_is_no_gain_and_no_gap():
    found = lead(summarise({"ie-ft": {0: 88.0}}), 94.0)
    assert (found.gain, found.closed, found.plain) == (None, None, None)
    assert lead([], 94.0) is None


@pytest.mark.parametrize(
    ("gain", "compared", "said"),
    [
        (Difference(2.0, 1), 1, "Not decided: with one seed"),
        (Difference(2.0, 1, over_images=OverImages(1.0, 3.0, 500)), 1, "hardly reverse it"),
        (Difference(0.2, 1, over_images=OverImages(-1.0, 1.4, 500)), 1, "Not decided: other test images"),
        (Difference(2.0, 3), 1, "all 3 seeds give the same difference"),
        (Difference(2.0, 3, 1.0, 3.0, 0.01, 0.02), 2, "Chance hardly explains it (p = 0.020 in a paired test over the "
                                                      "seeds, corrected for 2 comparisons)"),
        (Difference(2.0, 3, -1.0, 5.0, 0.3, 0.3), 1, "Not decided: chance may explain it (p = 0.30"),
        (Difference(2.0, 3, 1.0, 3.0, 0.01, 0.01, OverImages(-1.0, 5.0, 60)), 1,
         "The 60 test images are few: others could make it −1.0 to +5.0 (95 % interval)."),
    ],
)  # fmt: skip
def test_the_judgement_says_what_is_decided_and_not_the_gain_again(gain, compared, said):
    text = judgement(gain, compared)
    assert said in text
    assert not re.search(r"\b2\.0 points", text)
