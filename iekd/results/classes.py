"""What a student gains or loses on each class, compared with the plain student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iekd.config.methods import BASELINE
from iekd.language import _, ngettext
from iekd.results.card import student_name
from iekd.results.report import class_columns

SAME = 0.05  # points; less is shown as 0.0


@dataclass(frozen=True)
class ClassGain:
    """Accuracies of one class in percent, means over the seeds. reference: of the plain student. teacher: None
    without one. images: in the test split, None where the report does not tell."""

    name: str
    reference: float
    compared: float
    teacher: float | None
    images: int | None

    @property
    def gain(self) -> float:
        """In points."""
        return self.compared - self.reference


def class_gains(report: dict[str, Any], method: str) -> list[ClassGain]:
    """Every class that has test images, `method` against the plain student, the largest gain first.

    Empty for reports without accuracies by class.
    """
    if not has_classes(report):
        return []
    columns = class_columns(report)
    compared, teacher = columns[method], columns.get("teacher", {})
    counts = report.get("class_counts", {}).get("test", {})
    found = [
        ClassGain(name, before, after, teacher.get(name), counts.get(name))
        for name, before in columns[BASELINE].items()
        if before is not None and (after := compared[name]) is not None
    ]
    return sorted(found, key=lambda one: -one.gain)


def has_classes(report: dict[str, Any]) -> bool:
    """Whether the report has accuracies by class, of the teacher too if there is one."""
    networks = [*report["learners"], *([report["teacher"]] if report.get("teacher") else [])]
    return all("class_accuracy" in network for network in networks)


def in_words(gains: Sequence[ClassGain], method: str) -> str:
    """The same as a sentence or two, for whoever cannot see the drawing; method: the student's that is compared."""
    better = [one for one in gains if one.gain >= SAME]
    worse = [one for one in gains if one.gain <= -SAME]
    same = len(gains) - len(better) - len(worse)
    counts: dict[str, object] = {"student": student_name(method), "better": len(better), "worse": len(worse)}
    if same:
        said = ngettext(
            "The {student} is better than the plain student on {better} of {number} class, worse on {worse}, the same "
            "on {same}.",
            "The {student} is better than the plain student on {better} of {number} classes, worse on {worse}, the "
            "same on {same}.",
            len(gains), **counts, same=same,
        )  # fmt: skip
    else:
        said = ngettext(
            "The {student} is better than the plain student on {better} of {number} class, worse on {worse}.",
            "The {student} is better than the plain student on {better} of {number} classes, worse on {worse}.",
            len(gains), **counts,
        )  # fmt: skip
    if better:
        said += " " + _("Largest gain: {name}, {before} to {after} % ({points} points).", **_numbers(better[0]))
    if worse:
        said += " " + _("Largest loss: {name}, {before} to {after} % ({points} points).", **_numbers(worse[-1]))
    return said


def _numbers(one: ClassGain) -> dict[str, object]:
    points = f"{one.gain:+.1f}".replace("-", "\u2212")
    return {"name": one.name, "before": f"{one.reference:.1f}", "after": f"{one.compared:.1f}", "points": points}
