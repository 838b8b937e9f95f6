"""Methods: how a student is taught. Each turns (student features, teacher output, labels) into a loss with terms.

A Method is the cross-entropy plus what its distillers add; `build_method` makes one by name from the builder that is
registered under it. Not here: what a method is called and needs (config/methods.py), what a distiller adds
(distillers.py), what a loss computes (losses/), what of student and teacher is compared (targets.py), and when an
auto-encoder or a peer is trained (engine/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.config.methods import (
    BASELINE,
    DISTANCE_SCALE,
    IE_DEFAULTS,
    KD,
    METHODS,
    check_method,
    method_spec,
    split_name,
)
from iekd.config.run import RunConfig
from iekd.distill.distillers import (
    Distiller,
    Imitation,
    InheritanceExploration,
    Mutual,
    OutputDistillation,
    Shares,
    SumOverStages,
)
from iekd.distill.targets import (
    AttentionComparison,
    FactorComparison,
    MakeComparison,
    OverhaulComparison,
    Pair,
    PeerComparison,
    TeacherOutput,
    comparisons,
    split_channels,
)
from iekd.errors import UserError
from iekd.losses import (
    DecoupledKnowledgeDistillationLoss,
    ExplorationLoss,
    FactorTransferLoss,
    InheritanceLoss,
    KnowledgeDistillationLoss,
    OverhaulLoss,
    RelationalAngleLoss,
    RelationalDistanceLoss,
    RelationLoss,
)
from iekd.losses.tensors import larger_share
from iekd.models.features import Features
from iekd.plugins import remember


class StepOutput(NamedTuple):
    """One step's loss (scalar, differentiable), logits (B,K) of the labelled images, and the parts of the loss by name,
    before weighting (detached)."""

    loss: Tensor
    logits: Tensor
    terms: dict[str, Tensor]


class Method(nn.Module):
    """L = label_weight * cross-entropy + strength * sum of the distillers' weighted terms.

    label_weight is 1, or 1 - strength * kd_weight with kd (Hinton et al. 2015, section 2).
    strength: 0..1, set by whoever trains (RunConfig.weight_schedule); a number, or a scalar on the device.
    label_smoothing: share of each label that is spread evenly over the K classes (Szegedy et al. 2016).
    labels: (B,), or shares of the classes (B,K) of mixed images; distillers get the class with the larger share.
    unlabelled: how many images of each batch, the last ones, have no label; see `learn_from`.
    class_weights: (K,) factors of the images' cross-entropies by class, whose weighted mean is taken; None: all equal.
    """

    class_weights: Tensor | None

    def __init__(self, name: str, distillers: list[Distiller]) -> None:
        super().__init__()
        self.name = name
        self.distillers = nn.ModuleList(distillers)
        self.label_share = sum(distiller.label_share for distiller in distillers)
        self.strength: float | Tensor = 1.0
        self.label_smoothing = 0.0
        self.unlabelled = self.left_out = 0
        self.shares: Shares | None = None
        # no part of a checkpoint: the weights follow from the images
        self.register_buffer("class_weights", None, persistent=False)
        self.needs_teacher, self.needs_peer = method_spec(name).needs_teacher, method_spec(name).needs_peer

    def forward(
        self, student: Features, teacher: TeacherOutput | None, labels: Tensor, peer: Features | None = None
    ) -> StepOutput:
        whole = (student, teacher, larger_share(labels), peer)
        count = len(labels) - self.unlabelled
        labelled = whole
        if self.unlabelled:
            labelled = (first(student, count), _first(teacher, count), whole[2][:count], peer and first(peer, count))
        logits = labelled[0].logits
        cross_entropy = self.cross_entropy(logits.float(), labels[:count])
        if self.shares is not None:
            cross_entropy = cross_entropy * self.shares.cross_entropy
        # not times one: torch.compile drops that factor, and then the loss of the plain student has no gradient
        loss = (1 - self.strength * self.label_share) * cross_entropy if self.label_share else cross_entropy
        terms = {"cross_entropy": cross_entropy.detach()}
        for distiller in self.distillers:
            for name, (weight, term) in distiller(*(labelled if distiller.needs_labels else whole)).items():
                if self.shares is not None:
                    assert isinstance(distiller, Distiller)
                    term = term * distiller.share(self.shares)  # noqa: PLW2901
                loss = loss + self.strength * weight * term
                terms[name] = term.detach()
        return StepOutput(loss, logits, terms)

    def share(self, shares: Shares | None) -> None:
        """Prepare for a step in which only a part of the batch is here.

        The loss and its terms are then what this part adds to those of the whole batch: the sum over all processes is
        the loss of one process, and so is the sum of the gradients. None: the whole batch is here.
        """
        self.shares = shares
        for distiller in self.distillers:
            assert isinstance(distiller, Distiller)
            distiller.gather = None if shares is None else shares.gather

    def learn_from(self, unlabelled: int) -> None:
        """Prepare for batches whose last images have no label (-1), always as many.

        The cross-entropy, and what else depends on labels, is then of the others alone; every other term is of all. A
        method that has no such term leaves unlabelled images out, so that its student is the same as without them.
        """
        learns = any(not distiller.needs_labels for distiller in self.distillers)
        self.unlabelled, self.left_out = (unlabelled, 0) if learns else (0, unlabelled)

    def seen(
        self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None
    ) -> tuple[Tensor, Tensor, TeacherOutput | None]:
        """What of a batch the student is to see."""
        if not self.left_out:
            return images, labels, teacher
        count = len(labels) - self.left_out
        return images[:count], labels[:count], _first(teacher, count)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of logits (B,K) with labels (B,), or with the shares of classes (B,K) that mixed images have."""
        smoothing, weights = self.label_smoothing, self.class_weights
        if labels.ndim == 1 or weights is None:
            return F.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
        # with shares, torch's mean divides by the number of images whatever they weigh
        whole = F.cross_entropy(logits, labels, weights, label_smoothing=smoothing, reduction="sum")
        return whole / self.weight_of(labels)

    def weight_of(self, labels: Tensor) -> Tensor:
        """The sum of the class weights of labels (B,) or (B,K), by which `cross_entropy` divides."""
        assert self.class_weights is not None
        weights: Tensor = self.class_weights[labels] if labels.ndim == 1 else labels @ self.class_weights
        return weights.sum()

    @property
    def inheritance_channels(self) -> tuple[tuple[int, ...], ...]:
        """The channels that inherit in each stage that is split, the last stage last; empty where nothing is."""
        split = [d for d in self.distillers if isinstance(d, InheritanceExploration)]
        return tuple(tuple(c.channels.tolist()) for d in split for c in d.inheritance)  # type: ignore[union-attr, operator]


def first(features: Features, count: int) -> Features:
    """The features of the first images of a batch."""
    before = features.pre_activations
    return Features(
        features.logits[:count], tuple(stage[:count] for stage in features.stages),
        None if before is None else tuple(stage[:count] for stage in before), features.pooled[:count],
    )  # fmt: skip


def _first(teacher: TeacherOutput | None, count: int) -> TeacherOutput | None:
    if teacher is None:
        return None
    return TeacherOutput(first(teacher.features, count), tuple(factor[:count] for factor in teacher.factors))


class Baseline(Method):
    """Labels only: cross-entropy. Also how a teacher is trained."""

    def __init__(self) -> None:
        super().__init__(BASELINE, [])


Builder = Callable[[RunConfig, Pair], list[Distiller]]
BUILDERS: dict[str, Builder] = {}


def builder(name: str) -> Callable[[Builder], Builder]:
    """Decorator: the function makes the distillers of a method.

    It gets the run's settings and the pair of networks. Whatever it draws comes from torch's global generator, which
    is seeded before. A term's key is the name of one of the spec's terms.

    Args:
        name: of the method, whose MethodSpec is registered already (config.methods.register).
    Returns:
        What registers a function under that name, and returns it unchanged.
    Raises:
        ValueError: no MethodSpec has that name.

    Example:
        @builder("logits")
        def logits(config: RunConfig, pair: Pair) -> list[Distiller]:
            return [OutputDistillation("logits", 1.0, LogitMatchingLoss())]
    """
    if name not in METHODS:
        raise ValueError(
            f"Method '{name}' has no MethodSpec. Register one (config.methods.register) before its builder."
        )

    def add(build: Builder) -> Builder:
        BUILDERS[name] = build
        remember(build.__module__)
        return build

    return add


def builder_of(name: str) -> Builder:
    """The builder of a method, with "+kd" or without.

    Raises:
        UserError: it has a spec but no builder, or there is no such method.
    """
    base, _ = split_name(check_method(name))
    if base not in BUILDERS:
        raise UserError(
            f"Method '{base}' has a MethodSpec but no builder, so it cannot be trained. Decorate a function with "
            f"@builder('{base}') in the same module.",
            "methods",
        )
    return BUILDERS[base]


def check_built(methods: Iterable[str]) -> None:
    """Check that each of these methods has a builder, before anything is trained for them.

    Raises:
        UserError: one has none.
    """
    for name in methods:
        builder_of(name)


def build_method(name: str, config: RunConfig, pair: Pair) -> Method:
    """The method of that name, for a pair of networks.

    Args:
        name: of a method, with "+kd" or without.
        config: the settings of the run; its weights, temperatures and the like are the method's.
        pair: the channels of the stages of student and teacher, and the teacher's margins.
    Returns:
        A module with everything that is trained beside the student; its forward gives a StepOutput. Random weights
        come from torch's global generator.
    Raises:
        UserError: there is no such method, it has no builder, or it cannot be used with this pair.

    >>> method = build_method("ie-ft+kd", RunConfig(), Pair(student=(16, 32, 64), teacher=(16, 32, 64)))
    >>> [distiller.__class__.__name__ for distiller in method.distillers]
    ['InheritanceExploration', 'OutputDistillation']
    """
    distillers = builder_of(name)(config, pair)
    if split_name(name)[1]:
        distillers += builder_of(KD.name)(config, pair)
    return Method(name, distillers)


# plain methods


@builder(BASELINE)
def baseline(config: RunConfig, pair: Pair) -> list[Distiller]:
    return []


@builder("kd")
def kd(config: RunConfig, pair: Pair) -> list[Distiller]:
    criterion = KnowledgeDistillationLoss(config.temperature)
    return [OutputDistillation("kd", config.kd_weight, criterion, label_share=config.kd_weight)]


@builder("at")
def at(config: RunConfig, pair: Pair) -> list[Distiller]:
    compared = comparisons(AttentionComparison, pair, pair.stages("all"))
    return [Imitation("attention", config.attention_weight, compared, SumOverStages(InheritanceLoss("l2")))]


@builder("ft")
def ft(config: RunConfig, pair: Pair) -> list[Distiller]:
    compared = comparisons(partial(FactorComparison, auto_encoder=config.auto_encoder), pair, pair.stages("last"))
    return [Imitation("factor_transfer", config.factor_weight, compared, SumOverStages(FactorTransferLoss()))]


@builder("od")
def od(config: RunConfig, pair: Pair) -> list[Distiller]:
    stages = pair.stages("all")
    compared = comparisons(OverhaulComparison, pair, stages)
    return [Imitation("overhaul", config.overhaul_weight, compared, _overhaul(pair, stages))]


@builder("dml")
def dml(config: RunConfig, pair: Pair) -> list[Distiller]:
    return [Mutual(config.mutual_weight)]


@builder("dkd")
def dkd(config: RunConfig, pair: Pair) -> list[Distiller]:
    criterion = DecoupledKnowledgeDistillationLoss(
        config.dkd_target_weight, config.dkd_other_weight, config.temperature
    )
    return [OutputDistillation("dkd", 1.0, criterion, with_labels=True)]


@builder("dist")
def dist(config: RunConfig, pair: Pair) -> list[Distiller]:
    criterion = RelationLoss(temperature=config.temperature)
    return [OutputDistillation("dist", config.dist_weight, criterion, compares_images=True)]


@builder("rkd")
def rkd(config: RunConfig, pair: Pair) -> list[Distiller]:
    return [
        OutputDistillation(term, weight, criterion, "pooled", compares_images=True)
        for term, weight, criterion in (
            ("rkd_distance", config.rkd_distance_weight, RelationalDistanceLoss()),
            ("rkd_angle", config.rkd_angle_weight, RelationalAngleLoss()),
        )
    ]


# inheritance and exploration


@builder("ie-at")
def ie_at(config: RunConfig, pair: Pair) -> list[Distiller]:
    return [_inheritance_exploration("ie-at", AttentionComparison, _ie_stages("ie-at", config, pair), config, pair)]


@builder("ie-ft")
def ie_ft(config: RunConfig, pair: Pair) -> list[Distiller]:
    compare = partial(FactorComparison, auto_encoder=config.auto_encoder)
    return [_inheritance_exploration("ie-ft", compare, _ie_stages("ie-ft", config, pair), config, pair)]


@builder("ie-od")
def ie_od(config: RunConfig, pair: Pair) -> list[Distiller]:
    stages = _ie_stages("ie-od", config, pair)
    inherit = _overhaul(pair, stages)  # its own loss and its own weight, whatever the distance
    return [_inheritance_exploration("ie-od", OverhaulComparison, stages, config, pair, inherit)]


@builder("ie-dml")
def ie_dml(config: RunConfig, pair: Pair) -> list[Distiller]:
    stages = _ie_stages("ie-dml", config, pair, with_peer=True)
    halves = _inheritance_exploration("ie-dml", PeerComparison, stages, config, pair)
    return [Mutual(config.mutual_weight), halves]


def _ie_stages(name: str, config: RunConfig, pair: Pair, with_peer: bool = False) -> list[int]:
    return pair.stages(_chosen(config.ie_stages, IE_DEFAULTS[name].stages), with_peer)


def _inheritance_exploration(
    name: str, compare: MakeComparison, stages: list[int], config: RunConfig, pair: Pair,
    inherit: nn.Module | None = None,
) -> InheritanceExploration:  # fmt: skip
    """The halves of some stages, compared by `compare`; what the settings leave open is the default of method `name`.

    inherit: an inheritance loss to use instead of the distance, with a weight that does not depend on it.
    """
    weights = IE_DEFAULTS[name].weights
    chosen = _chosen(config.distance, IE_DEFAULTS[name].distance)
    split = [
        split_channels(pair.student[i], config.inheritance_share, config.channel_split == "random") for i in stages
    ]
    inheritance = comparisons(compare, pair, stages, [inherits for inherits, _ in split])
    exploration = comparisons(compare, pair, stages, [explores for _, explores in split])
    usual = [weight * DISTANCE_SCALE[chosen] for weight in weights]
    criterion: nn.Module = SumOverStages(InheritanceLoss(chosen))  # type: ignore[arg-type]
    if inherit is not None:
        criterion, usual[0] = inherit, weights[0]
    used = (
        usual[0] if config.inheritance_weight is None else config.inheritance_weight,
        usual[1] if config.exploration_weight is None else config.exploration_weight,
    )
    exploring = SumOverStages(ExplorationLoss(chosen))  # type: ignore[arg-type]
    return InheritanceExploration(inheritance, exploration, used, criterion, exploring)


def _chosen(value: str, own: str) -> str:
    """A setting's value, or the method's own where it is left to the method."""
    return own if value == "own" else value


def _overhaul(pair: Pair, stages: list[int]) -> OverhaulLoss:
    # the targets are above these margins already, which exploration needs; the loss applies them again
    return OverhaulLoss([pair.margins[stage] for stage in stages])
