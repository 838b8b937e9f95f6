"""What a student gains or loses on each class, compared with the plain student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iekd.plural import counted
from iekd.results.brief import PLAIN
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
        for name, before in columns[PLAIN].items()
        if before is not None and (after := compared[name]) is not None
    ]
    return sorted(found, key=lambda one: -one.gain)


def has_classes(report: dict[str, Any]) -> bool:
    """Whether the report has accuracies by class, of the teacher too if there is one."""
    networks = [*report["learners"], *([report["teacher"]] if report.get("teacher") else [])]
    return all("class_accuracy" in network for network in networks)


def in_words(gains: Sequence[ClassGain], student: str) -> str:
    """The same as a sentence or two, for whoever cannot see the drawing; student: which one is compared."""
    better = [one for one in gains if one.gain >= SAME]
    worse = [one for one in gains if one.gain <= -SAME]
    same = len(gains) - len(better) - len(worse)
    said = f"{student} is better than the plain student on {len(better)} of {counted(len(gains), 'class', 'classes')}"
    said += f", worse on {len(worse)}" + (f", the same on {same}." if same else ".")
    for what, one in (("gain", better[0] if better else None), ("loss", worse[-1] if worse else None)):
        if one is not None:
            said += (
                f" Largest {what}: {one.name}, {one.reference:.1f} to {one.compared:.1f} % ({one.gain:+.1f} points)."
            )
    return said.replace("(-", "(\u2212")
