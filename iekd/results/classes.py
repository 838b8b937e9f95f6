"""What a student gains or loses on each class, compared with another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iekd.plural import counted
from iekd.results.report import class_columns

SAME = 0.05  # points; less is shown as 0.0


@dataclass(frozen=True)
class ClassGain:
    """Accuracies of one class in percent, means over the seeds; teacher: None without one. images: of the test, None
    where the report does not say."""

    name: str
    reference: float
    compared: float
    teacher: float | None
    images: int | None

    @property
    def gain(self) -> float:
        """In points."""
        return self.compared - self.reference


def class_gains(report: dict[str, Any], pair: tuple[str, str]) -> list[ClassGain]:
    """Every class that has test images, the largest gain first and the largest loss last.

    pair: (compared method, its reference). Empty for reports without accuracies by class.
    """
    if not all("class_accuracy" in one for one in (*report["learners"], *filter(None, [report.get("teacher")]))):
        return []
    columns = class_columns(report)
    (compared, reference), teacher = (columns[method] for method in pair), columns.get("teacher", {})
    counts = report.get("class_counts", {}).get("test", {})
    found = [
        ClassGain(name, before, after, teacher.get(name), counts.get(name))
        for name, before in reference.items()
        if before is not None and (after := compared[name]) is not None
    ]
    return sorted(found, key=lambda one: -one.gain)


def in_words(gains: Sequence[ClassGain], compared: str, reference: str) -> str:
    """The same as a sentence or two, for whoever cannot see the drawing; compared, reference: the students' names."""
    better = [one for one in gains if one.gain >= SAME]
    worse = [one for one in gains if one.gain <= -SAME]
    same = len(gains) - len(better) - len(worse)
    said = f"{compared} is better than {reference} on {len(better)} of {counted(len(gains), 'class', 'classes')}"
    said += f", worse on {len(worse)}" + (f", the same on {same}." if same else ".")
    for what, one in (("gain", better[0] if better else None), ("loss", worse[-1] if worse else None)):
        if one is not None:
            said += (
                f" Largest {what}: {one.name}, {one.reference:.1f} to {one.compared:.1f} % ({one.gain:+.1f} points)."
            )
    return said.replace("(-", "(\u2212")
