"""Distillers: what a method adds to the cross-entropy, as weighted terms.

A distiller owns whatever is trained beside the student (factor encoders, connectors) and nothing else: no data, no
optimiser, no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from iekd.distill.targets import Comparison, TeacherOutput
from iekd.losses import MutualLearningLoss
from iekd.models.features import Features

Terms = dict[str, tuple[float, Tensor]]  # weight and value of each


class Shares(NamedTuple):
    """What the images here count for in a batch of which other processes have the rest; see `method.Method.share`.

    cross_entropy, labelled, every: their share, 0..1, of the weights of labels, of the labelled images, and of all
    images. compared: the share of a term that every process computes of all images.
    gather: (b,...) of the images here, and whether unlabelled ones are among them -> (B,...) of all processes.
    """

    cross_entropy: float | Tensor
    labelled: float
    every: float
    compared: float
    gather: Callable[[Tensor, bool], Tensor]


class Distiller(nn.Module):
    """Base: (student, teacher, labels, peer) -> weighted terms. Teacher and peer are None where none is needed.

    label_share: what its weight takes from the cross-entropy's.
    needs_labels: it looks at the labels, and is given labelled images only; the others get unlabelled ones too, whose
        label is -1.
    compares_images: its value is no mean over images, because each is compared with the others. Where several processes
        share a batch, it then has to `gather` what it compares.
    """

    label_share = 0.0
    needs_labels = False
    compares_images = False
    gather: Callable[[Tensor, bool], Tensor] | None = None  # see Shares

    def share(self, shares: Shares) -> float:
        """What its value here counts for."""
        if self.compares_images:
            return shares.compared
        return shares.labelled if self.needs_labels else shares.every

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor, peer: Features | None) -> Terms:
        raise NotImplementedError


class OutputDistillation(Distiller):
    """One output of the student is compared with the same one of the teacher: kd, dkd and dist by logits, rkd by pooled
    features."""

    def __init__(
        self, term: str, weight: float, criterion: nn.Module, output: Literal["logits", "pooled"] = "logits",
        with_labels: bool = False, label_share: float = 0.0, compares_images: bool = False,
    ) -> None:  # fmt: skip
        """criterion: (student's output, teacher's output), and labels where with_labels says so -> scalar; a mean over
        images, unless compares_images says otherwise."""
        super().__init__()
        self.compares_images = compares_images
        self.term, self.weight, self.criterion = term, weight, criterion
        self.output, self.needs_labels, self.label_share = output, with_labels, label_share

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor, peer: Features | None) -> Terms:
        assert teacher is not None
        more = (labels,) if self.needs_labels else ()
        ours, theirs = getattr(student, self.output), getattr(teacher.features, self.output)
        if self.compares_images and self.gather is not None:
            ours, theirs = self.gather(ours, not self.needs_labels), self.gather(theirs, not self.needs_labels)
        return {self.term: (self.weight, self.criterion(ours, theirs, *more))}


class Mutual(Distiller):
    """DML: the student's logits are compared with its peer's, as they are now."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight, self.criterion = weight, MutualLearningLoss()

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor, peer: Features | None) -> Terms:
        assert peer is not None
        return {"mutual": (self.weight, self.criterion(student.logits, peer.logits))}


class Imitation(Distiller):
    """at, ft and od: all channels of some stages imitate the teacher's."""

    def __init__(self, term: str, weight: float, compared: Sequence[Comparison], criterion: nn.Module) -> None:
        super().__init__()
        self.term, self.weight, self.criterion = term, weight, criterion
        self.compared = nn.ModuleList(compared)

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor, peer: Features | None) -> Terms:
        sides = _sides(self.compared, student, teacher, peer)
        return {self.term: (self.weight, self.criterion(*sides))}


class InheritanceExploration(Distiller):
    """L_IE = w_inh L_inh + w_exp L_exp (Huang et al. 2021, section 3).

    The student's channels are split; one part is taught to be like the teacher, the other pushed away from the same
    target. Each part is compared through trained layers of its own. With nothing on one side its term is left out.
    """

    def __init__(
        self, inheritance: Sequence[Comparison], exploration: Sequence[Comparison], weights: tuple[float, float],
        inheritance_criterion: nn.Module, exploration_criterion: nn.Module,
    ) -> None:  # fmt: skip
        super().__init__()
        self.inheritance_weight, self.exploration_weight = weights
        self.inheritance, self.exploration = nn.ModuleList(inheritance), nn.ModuleList(exploration)
        self.inheritance_criterion, self.exploration_criterion = inheritance_criterion, exploration_criterion

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor, peer: Features | None) -> Terms:
        terms: Terms = {}
        if self.inheritance:
            sides = _sides(self.inheritance, student, teacher, peer)
            terms["inheritance"] = (self.inheritance_weight, self.inheritance_criterion(*sides))
        if self.exploration:
            sides = _sides(self.exploration, student, teacher, peer)
            terms["exploration"] = (self.exploration_weight, self.exploration_criterion(*sides))
        return terms


class SumOverStages(nn.Module):
    """The sum over stages of one criterion: (student maps, teacher maps) -> scalar."""

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([self.criterion(s, t) for s, t in zip(student, teacher, strict=True)]).sum()


def _sides(
    compared: nn.ModuleList, student: Features, teacher: TeacherOutput | None, peer: Features | None
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The student's sides and the targets, one each per comparison."""
    pairs = [comparison(student, teacher, peer) for comparison in compared]
    return tuple(s for s, _ in pairs), tuple(t for _, t in pairs)
