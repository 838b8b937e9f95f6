"""Methods: how a student is taught. Each turns (student features, teacher's answer, labels) into a loss with terms.

A Method is the cross-entropy plus what its distillers add; `build_method` makes one by name. Distillers own whatever is
trained beside the student (factor encoders, connectors) and nothing else: no data, no optimiser, no files. Not here:
what a loss computes (losses/), what of student and teacher is compared (comparisons.py), and when an auto-encoder or a
peer is trained (engine/).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iekd.config.methods import parts
from iekd.config.run import RunConfig
from iekd.distill.targets import Comparison, Pair, TeacherOutput, comparisons, split_channels
from iekd.losses import (
    DecoupledKnowledgeDistillationLoss,
    ExplorationLoss,
    FactorTransferLoss,
    InheritanceLoss,
    KnowledgeDistillationLoss,
    MutualLearningLoss,
    OverhaulLoss,
    RelationLoss,
)
from iekd.models.features import Features

Terms = dict[str, tuple[float, Tensor]]  # weight and value of each


class StepOutput(NamedTuple):
    """One step's loss (scalar, differentiable), logits (B,K) and its parts by name, before weighting (detached)."""

    loss: Tensor
    logits: Tensor
    terms: dict[str, Tensor]


class Distiller(nn.Module):
    """Base: (student, teacher, labels, peer) -> weighted terms. Teacher and peer are None where none is needed."""

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor, peer: Features | None) -> Terms:
        raise NotImplementedError


class Method(nn.Module):
    """L = label_weight * cross-entropy + strength * sum of the distillers' weighted terms.

    label_weight is 1, or 1 - strength * kd_weight where kd takes part (Hinton et al. 2015, section 2).
    strength: 0..1, set by whoever trains (RunConfig.weight_schedule); a number, or a scalar on the device.
    """

    def __init__(self, name: str, distillers: list[Distiller], kd_weight: float = 0.0) -> None:
        super().__init__()
        self.name = name
        self.distillers = nn.ModuleList(distillers)
        self.kd_weight = kd_weight
        self.strength: float | Tensor = 1.0
        self.needs_teacher, self.needs_peer = parts(name).needs_teacher, parts(name).needs_peer

    def forward(
        self, student: Features, teacher: TeacherOutput | None, labels: Tensor, peer: Features | None = None
    ) -> StepOutput:
        cross_entropy = F.cross_entropy(student.logits.float(), labels)
        loss = (1 - self.strength * self.kd_weight) * cross_entropy
        terms = {"cross_entropy": cross_entropy.detach()}
        for distiller in self.distillers:
            for name, (weight, term) in distiller(student, teacher, labels, peer).items():
                loss = loss + self.strength * weight * term
                terms[name] = term.detach()
        return StepOutput(loss, student.logits, terms)

    @property
    def inheritance_channels(self) -> tuple[tuple[int, ...], ...]:
        """The channels that inherit in each stage that is split, the last stage last; empty where nothing is."""
        split = [d for d in self.distillers if isinstance(d, InheritanceExploration)]
        return tuple(tuple(c.channels.tolist()) for d in split for c in d.inheritance)  # type: ignore[union-attr, operator]


class Baseline(Method):
    """Labels only: cross-entropy. Also how a teacher is trained."""

    def __init__(self) -> None:
        super().__init__("baseline", [])


class Answers(Distiller):
    """Teaching by logits: kd, dkd and dist."""

    def __init__(self, name: str, weight: float, criterion: nn.Module, with_labels: bool = False) -> None:
        super().__init__()
        self.term, self.weight, self.criterion, self.with_labels = name, weight, criterion, with_labels

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor, peer: Features | None) -> Terms:
        assert teacher is not None
        more = (labels,) if self.with_labels else ()
        return {self.term: (self.weight, self.criterion(student.logits, teacher.features.logits, *more))}


class Mutual(Distiller):
    """DML: the peer's answers, as they are now."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight, self.criterion = weight, MutualLearningLoss()

    def forward(self, student: Features, teacher: TeacherOutput | None, labels: Tensor, peer: Features | None) -> Terms:
        assert peer is not None
        return {"mutual": (self.weight, self.criterion(student.logits, peer.logits))}


class Imitation(Distiller):
    """at, ft and od: all channels of some stages imitate the teacher's."""

    def __init__(self, term: str, weight: float, compared: list[Comparison], criterion: nn.Module) -> None:
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
        self, inheritance: list[Comparison], exploration: list[Comparison], weights: tuple[float, float],
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


class OverStages(nn.Module):
    """The sum over stages of one criterion: (student sides, teacher sides) -> scalar."""

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([self.criterion(s, t) for s, t in zip(student, teacher, strict=True)]).sum()


# (inheritance, exploration) for a distance of l1, chosen on held-out training images (benchmarks/RESULTS.md); od's
# inheritance is its own loss, whatever the distance
IE_WEIGHTS = {"ft": (500.0, 50.0), "at": (100.0, 1.0), "od": (1.0, 5.0), "dml": (50.0, 5.0)}
# mean |u - v|, mean (u - v)^2 and 1 - cos differ by about this much in size for D of 1000 to 4000 numbers
DISTANCE_SCALE = {"l1": 1.0, "l2": 10.0, "cosine": 0.01}


def build_method(name: str, config: RunConfig, pair: Pair) -> Method:
    """The method of that name (see method_names) with the weights of `config` for a pair of networks."""
    base, explores, kd = parts(name)
    distillers: list[Distiller] = []
    if base == "dml":
        distillers.append(Mutual(config.mutual_weight))
    if explores:
        distillers.append(_inheritance_exploration(base, config, pair))
    elif base in ("at", "ft", "od"):
        distillers.append(_imitation(base, config, pair))
    elif base == "dkd":
        criterion = DecoupledKnowledgeDistillationLoss(
            config.dkd_target_weight, config.dkd_other_weight, config.temperature
        )
        distillers.append(Answers("dkd", 1.0, criterion, with_labels=True))
    elif base == "dist":
        distillers.append(Answers("dist", config.dist_weight, RelationLoss(temperature=config.temperature)))
    if not (kd or base == "kd"):
        return Method(name, distillers)
    distillers.append(Answers("kd", config.kd_weight, KnowledgeDistillationLoss(config.temperature)))
    return Method(name, distillers, kd_weight=config.kd_weight)


def _imitation(base: str, config: RunConfig, pair: Pair) -> Imitation:
    stages = pair.stages(base, "last" if base == "ft" else "all")
    compared = comparisons(base, pair, stages, None, config.auto_encoder)
    if base == "at":
        return Imitation("attention", config.attention_weight, compared, OverStages(InheritanceLoss("l2")))
    if base == "ft":
        return Imitation("factor_transfer", config.factor_weight, compared, OverStages(FactorTransferLoss()))
    return Imitation("overhaul", config.overhaul_weight, compared, _overhaul(pair, stages))


def _inheritance_exploration(base: str, config: RunConfig, pair: Pair) -> InheritanceExploration:
    distance = config.distance if config.distance != "own" else "l2" if base == "at" else "l1"
    which = config.ie_stages if config.ie_stages != "own" else "all" if base in ("at", "od") else "last"
    stages = pair.stages(base, which)
    split = [
        split_channels(pair.student[i], config.inheritance_share, config.channel_split == "random") for i in stages
    ]
    inheritance = comparisons(base, pair, stages, [inherits for inherits, _ in split], config.auto_encoder)
    exploration = comparisons(base, pair, stages, [explores for _, explores in split], config.auto_encoder)
    usual = [weight * DISTANCE_SCALE[distance] for weight in IE_WEIGHTS[base]]
    criterion: nn.Module = OverStages(InheritanceLoss(distance))
    if base == "od":
        criterion, usual[0] = _overhaul(pair, stages), IE_WEIGHTS[base][0]
    weights = (
        usual[0] if config.inheritance_weight is None else config.inheritance_weight,
        usual[1] if config.exploration_weight is None else config.exploration_weight,
    )
    return InheritanceExploration(inheritance, exploration, weights, criterion, OverStages(ExplorationLoss(distance)))


def _overhaul(pair: Pair, stages: list[int]) -> OverhaulLoss:
    # the targets are above these margins already, for exploration's sake; the loss stands alone and looks again
    return OverhaulLoss([pair.margins[stage] for stage in stages])


def _sides(
    compared: nn.ModuleList, student: Features, teacher: TeacherOutput | None, peer: Features | None
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The student's sides and the targets, one each per comparison."""
    pairs = [comparison(student, teacher, peer) for comparison in compared]
    return tuple(s for s, _ in pairs), tuple(t for _, t in pairs)
