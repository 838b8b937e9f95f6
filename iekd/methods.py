"""Methods: how a student is taught. Each turns (student features, teacher's answer, labels) into a loss with terms.

A method owns whatever is trained beside the student (the factor encoders) and nothing else: no data, no optimiser, no
files. Not here: what a loss computes (losses/), and when the auto-encoder is trained (engine/experiment.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iekd.losses import ExplorationLoss, FactorTransferLoss, InheritanceLoss, KnowledgeDistillationLoss
from iekd.models.factors import FactorEncoder
from iekd.models.features import Features


class StepOutput(NamedTuple):
    """One step's loss (scalar, differentiable), logits (B,K) and its parts by name, before weighting (detached)."""

    loss: Tensor
    logits: Tensor
    terms: dict[str, Tensor]


class TeacherOutput(NamedTuple):
    """What the frozen teacher says of a batch: its features, and its factor (B,k,h,w) where a method asked for one."""

    features: Features
    factor: Tensor | None


@dataclass(frozen=True)
class MethodOptions:
    """Weights and temperatures; see RunConfig for their meaning."""

    inheritance_weight: float
    exploration_weight: float
    factor_weight: float
    temperature: float
    kd_weight: float


class Method(nn.Module):
    """Base: a callable (student, teacher, labels) -> StepOutput with flags for what it needs of the teacher."""

    needs_teacher = True
    needs_factor = False

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor) -> StepOutput:
        raise NotImplementedError


class Baseline(Method):
    """Labels only: cross-entropy. Also how a teacher is trained."""

    needs_teacher = False

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor) -> StepOutput:
        cross_entropy = F.cross_entropy(student.logits.float(), labels)
        return StepOutput(cross_entropy, student.logits, {"cross_entropy": cross_entropy.detach()})


class KD(Method):
    """(1 - w) cross-entropy + w T^2 KL(teacher || student) (Hinton et al. 2015)."""

    def __init__(self, options: MethodOptions) -> None:
        super().__init__()
        self.weight = options.kd_weight
        self.criterion = KnowledgeDistillationLoss(options.temperature)

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor) -> StepOutput:
        assert teacher is not None
        cross_entropy = F.cross_entropy(student.logits.float(), labels)
        kd = self.criterion(student.logits, teacher.features.logits)
        loss = (1 - self.weight) * cross_entropy + self.weight * kd
        return StepOutput(loss, student.logits, _detached(cross_entropy=cross_entropy, kd=kd))


class FT(Method):
    """Cross-entropy + w FT(F_s, F_t): all channels of the student's last stage imitate the teacher's factor."""

    needs_factor = True

    def __init__(self, options: MethodOptions, channels: int, factor_channels: int) -> None:
        super().__init__()
        self.weight = options.factor_weight
        self.encoder = FactorEncoder(channels, factor_channels)
        self.criterion = FactorTransferLoss()

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor) -> StepOutput:
        factor_t = _factor(teacher)  # (B,k,h,w)
        factor_s = self.encoder(student.stages[-1])  # (B,k,h,w)
        cross_entropy = F.cross_entropy(student.logits.float(), labels)
        transfer = self.criterion(_same_size(factor_s, factor_t), factor_t)
        loss = cross_entropy + self.weight * transfer
        return StepOutput(loss, student.logits, _detached(cross_entropy=cross_entropy, factor_transfer=transfer))


class InheritanceExplorationFT(Method):
    """IE-FT: L = cross-entropy + w_inh L_inh + w_exp L_exp (Huang et al. 2021, section 3).

    The last stage's channels are split in two halves in their natural order: the first inherits, the second explores.
    Both are compared with one frozen teacher factor, each through an encoder of its own.
    """

    needs_factor = True
    inheritance_channels: Tensor
    exploration_channels: Tensor

    def __init__(self, options: MethodOptions, channels: int, factor_channels: int) -> None:
        super().__init__()
        self.inheritance_weight = options.inheritance_weight
        self.exploration_weight = options.exploration_weight
        half = channels // 2
        self.register_buffer("inheritance_channels", torch.arange(half))
        self.register_buffer("exploration_channels", torch.arange(half, channels))
        self.inheritance_encoder = FactorEncoder(half, factor_channels)
        self.exploration_encoder = FactorEncoder(channels - half, factor_channels)
        self.inheritance_criterion = InheritanceLoss()
        self.exploration_criterion = ExplorationLoss()

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor) -> StepOutput:
        factor_t = _factor(teacher)  # (B,k,h,w)
        feature = student.stages[-1]  # (B,c,h,w)
        factor_inh = self.inheritance_encoder(feature[:, self.inheritance_channels])  # (B,k,h,w)
        factor_exp = self.exploration_encoder(feature[:, self.exploration_channels])  # (B,k,h,w)

        cross_entropy = F.cross_entropy(student.logits.float(), labels)
        inheritance = self.inheritance_criterion(_same_size(factor_inh, factor_t), factor_t)
        exploration = self.exploration_criterion(_same_size(factor_exp, factor_t), factor_t)

        loss = cross_entropy + self.inheritance_weight * inheritance + self.exploration_weight * exploration
        terms = _detached(cross_entropy=cross_entropy, inheritance=inheritance, exploration=exploration)
        return StepOutput(loss, student.logits, terms)


def build_method(name: str, options: MethodOptions, channels: int, factor_channels: int) -> Method:
    """The method of that name (a key of config.METHODS) for a student whose last stage has `channels` channels."""
    if name == "baseline":
        return Baseline()
    if name == "kd":
        return KD(options)
    if name == "ft":
        return FT(options, channels, factor_channels)
    if name == "ie-ft":
        return InheritanceExplorationFT(options, channels, factor_channels)
    raise KeyError(name)


def _factor(teacher: TeacherOutput | None) -> Tensor:
    assert teacher is not None
    assert teacher.factor is not None
    return teacher.factor


def _same_size(factor: Tensor, like: Tensor) -> Tensor:
    """Pool a student's larger map, or stretch a smaller one, to the teacher's (h,w); equal sizes pass untouched."""
    if factor.shape[2:] == like.shape[2:]:
        return factor
    return F.adaptive_avg_pool2d(factor, (like.shape[2], like.shape[3]))


def _detached(**terms: Tensor) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in terms.items()}
