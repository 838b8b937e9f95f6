"""Which two methods of a report are set against each other where there is room for two only."""

from __future__ import annotations

from typing import Any

from iekd.config.methods import known_specs

PLAIN = "baseline"


def main_pair(report: dict[str, Any]) -> tuple[str, str] | None:
    """(compared method, its reference), by a rule that was fixed before there were results.

    The compared method is the first IE form in the order of training; without one, the first method that is not the
    baseline. The reference is the baseline, else the first other method. It is never "the best": the best of several is
    partly the luckiest. Students that diverged have no result and do not count.

    Returns:
        None if fewer than two methods have a result.
    """
    methods = list(dict.fromkeys(learner["method"] for learner in report["learners"]))
    explores = {spec.name for spec in known_specs(methods) if spec.explores}
    others = [method for method in methods if method != PLAIN]
    compared = next((method for method in others if method in explores), others[0] if others else None)
    references = [PLAIN] if PLAIN in methods else [method for method in methods if method != compared]
    return (compared, references[0]) if compared and references else None
