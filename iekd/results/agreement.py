"""Models that predict the same images: on which they agree, who is right, and the images that one may want to see.

Knows names and labels only: no image and no run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iekd.errors import unknown_name
from iekd.language import N_, _
from iekd.plural import counted

ALL, DIFFER, ALL_WRONG, TEACHER_ONLY, IE_ONLY = "all", "differ", "all-wrong", "teacher-right", "ie-right"
FILTERS = {
    ALL: N_("All"), DIFFER: N_("Models differ"), ALL_WRONG: N_("All wrong"),
    TEACHER_ONLY: N_("Teacher right, student wrong"), IE_ONLY: N_("IE right, plain wrong"),
}  # fmt: skip


@dataclass(frozen=True)
class Kinds:
    """Names of models by kind; a model of another program is of no kind."""

    teachers: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    inheriting: tuple[str, ...] = ()
    students: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answered:
    """One image: the best label of each model, none if it cannot be read; its right class, "" if that is not known."""

    labels: Mapping[str, str]
    right: str = ""

    @property
    def agree(self) -> bool:
        return len(set(self.labels.values())) == 1

    def is_right(self, model: str) -> bool:
        return bool(self.right) and self.labels.get(model) == self.right

    def is_wrong(self, model: str) -> bool:
        return bool(self.right) and model in self.labels and self.labels[model] != self.right


@dataclass(frozen=True)
class AgreementSummary:
    """images: that could be read; broken: that could not. labelled: whose right class is known. right: of those, how
    many each model has right."""

    images: int
    broken: int
    agree: int
    labelled: int
    right: Mapping[str, int]

    @property
    def differ(self) -> int:
        return self.images - self.agree

    def words(self) -> str:
        """All of it as one line."""
        parts = [counted(self.images, "image")]
        if len(self.right) > 1 and self.images:
            parts.append(f": the models agree on {self.agree:,}, differ on {self.differ:,}")
        parts.append(".")
        if self.broken:
            parts.append(f" {self.broken:,} could not be read.")
        if self.labelled:
            listed = ", ".join(f"{model} {right:,}" for model, right in self.right.items())
            parts.append(f" Right of {self.labelled:,} labelled: {listed}.")
        return "".join(parts)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "images": self.images, "broken": self.broken, "agree": self.agree, "differ": self.differ,
            "labelled": self.labelled, "right": dict(self.right),
        }  # fmt: skip


def summarise(images: Sequence[Answered], models: Sequence[str]) -> AgreementSummary:
    """How often models agree, and how often each is right where that is known."""
    read = [one for one in images if one.labels]
    labelled = [one for one in read if one.right]
    right = {model: sum(one.is_right(model) for one in labelled) for model in models}
    return AgreementSummary(len(read), len(images) - len(read), sum(one.agree for one in read), len(labelled), right)


def matches(wanted: str, image: Answered, kinds: Kinds) -> bool:
    """Whether an image is among those of a filter. Where there are several models of a kind, one is enough."""
    if wanted == ALL:
        return True
    if not image.labels:
        return False
    if wanted == DIFFER:
        return not image.agree
    if wanted == ALL_WRONG:
        return all(map(image.is_wrong, image.labels))
    better, worse = (kinds.teachers, kinds.students) if wanted == TEACHER_ONLY else (kinds.inheriting, kinds.plain)
    return any(map(image.is_right, better)) and any(map(image.is_wrong, worse))


def chosen(wanted: str, images: Sequence[Answered], kinds: Kinds) -> list[int]:
    """The places of the images of a filter.

    Raises:
        UserError: there is no such filter.
    """
    if wanted not in FILTERS:
        raise unknown_name("filter", wanted, FILTERS)
    return [i for i, image in enumerate(images) if matches(wanted, image, kinds)]


def missing(wanted: str, images: Sequence[Answered], kinds: Kinds) -> str:
    """What a filter cannot do without and is not there, in words; "" if it can be used."""
    needs: dict[str, tuple[Callable[[], bool], str]] = {
        DIFFER: (lambda: max((len(one.labels) for one in images), default=0) > 1, _("needs two models")),
        TEACHER_ONLY: (lambda: bool(kinds.teachers and kinds.students), _("needs a teacher and a student")),
        IE_ONLY: (lambda: bool(kinds.inheriting and kinds.plain), _("needs an IE student and a plain student")),
    }
    there, words = needs.get(wanted, (lambda: True, ""))
    if not there():
        return words
    if wanted in (ALL, DIFFER) or any(one.right for one in images):
        return ""
    return _("needs right answers")
