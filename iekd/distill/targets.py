"""What of the student is compared with what of the teacher: one Comparison per stage, with the layers it trains.

A comparison may look at some of the student's channels only, which is how a half inherits or explores. Stages are
counted from the end (-1 is the last), so that networks with different numbers of stages are compared where they are
most alike; maps of different resolution are averaged to a common size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iekd.losses.at import attention
from iekd.losses.tensors import pool_to_common_size
from iekd.models.catalog import factor_channels
from iekd.models.factors import FactorEncoder
from iekd.models.features import Features


class TeacherOutput(NamedTuple):
    """The frozen teacher's output for a batch: features, and factors (B,k,h,w) of its last stages, last one last."""

    features: Features
    factors: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Channels of each stage end, first to last, of student, teacher and peer; empty for a network that is not used.

    margins: one (c,) per stage of the teacher (losses.od.margin), if a method needs them.
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...] = ()
    peer: tuple[int, ...] = ()
    margins: tuple[Tensor, ...] = ()

    def stages(self, which: str, with_peer: bool = False) -> list[int]:
        """The stages that are compared, for which = "last" or "all" (as many as both networks have)."""
        other = self.peer if with_peer else self.teacher
        return [-1] if which == "last" else list(range(-min(len(self.student), len(other)), 0))


class Comparison(nn.Module):
    """Base: (student, teacher, peer) -> (student's side, target), both (B,...) of one shape."""

    channels: Tensor | None

    def __init__(self, pair: Pair, stage: int, channels: Tensor | None) -> None:
        """channels: indices of the student's channels to compare; None for all."""
        super().__init__()
        self.stage = stage
        self.register_buffer("channels", channels)
        self.width = pair.student[stage] if channels is None else len(channels)  # channels that are compared

    def chosen(self, feature: Tensor) -> Tensor:
        return feature if self.channels is None else feature.index_select(1, self.channels)

    def forward(self, student: Features, teacher: TeacherOutput | None, peer: Features | None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class AttentionComparison(Comparison):
    """at: the attention maps of the two, as unit vectors (B,h*w)."""

    def forward(self, student: Features, teacher: TeacherOutput | None, peer: Features | None) -> tuple[Tensor, Tensor]:
        assert teacher is not None
        s, t = pool_to_common_size(self.chosen(student.stages[self.stage]), teacher.features.stages[self.stage])
        return attention(s), attention(t)


class FactorComparison(Comparison):
    """ft: the student's factor and the teacher's, or the teacher's feature without an auto-encoder.

    Its factor encoder is trained with the student.

    Args of forward:
        student: features of the same batch; those of the stage are (B,c_s,h,w).
        teacher: its factors are (B,k,h',w') by stage.
        peer: not used.
    Returns:
        The student's side and the target, both (B,k,h',w').

    >>> from iekd.models.features import Features
    >>> def features(channels, side):
    ...     stage = torch.randn(2, channels, side, side)
    ...     return Features(torch.randn(2, 10), (stage,), None, stage.mean((2, 3)))
    >>> compare = FactorComparison(Pair(student=(16,), teacher=(32,)), stage=-1, channels=None)
    >>> teacher = TeacherOutput(features(32, 4), (torch.randn(2, 16, 4, 4),))
    >>> [tuple(side.shape) for side in compare(features(16, 8), teacher, None)]
    [(2, 16, 4, 4), (2, 16, 4, 4)]
    """

    def __init__(self, pair: Pair, stage: int, channels: Tensor | None, auto_encoder: bool = True) -> None:
        """Args:
        pair: the channels of both networks.
        stage: which one, counted from the last: -1 is the last.
        channels: (n,) indices of the student's channels to compare; None for all.
        auto_encoder: whether the target is the teacher's factor (k = c_t // 2 channels) or its feature (c_t).
        """
        super().__init__(pair, stage, channels)
        self.auto_encoder = auto_encoder
        target = pair.teacher[stage]
        self.encoder = FactorEncoder(self.width, factor_channels(target) if auto_encoder else target)

    def forward(self, student: Features, teacher: TeacherOutput | None, peer: Features | None) -> tuple[Tensor, Tensor]:
        assert teacher is not None
        target = (teacher.factors if self.auto_encoder else teacher.features.stages)[self.stage]  # (B,k,h,w)
        return _like(self.encoder(self.chosen(student.stages[self.stage])), target), target


class PeerComparison(Comparison):
    """dml: the student's factor and the current feature of its peer."""

    def __init__(self, pair: Pair, stage: int, channels: Tensor | None) -> None:
        super().__init__(pair, stage, channels)
        self.encoder = FactorEncoder(self.width, pair.peer[stage])

    def forward(self, student: Features, teacher: TeacherOutput | None, peer: Features | None) -> tuple[Tensor, Tensor]:
        assert peer is not None
        target = peer.stages[self.stage].detach()  # (B,c,h,w)
        return _like(self.encoder(self.chosen(student.stages[self.stage])), target), target


class OverhaulComparison(Comparison):
    """od: the student's stage end before the activation through a 1x1 connector; the teacher's, above its margin."""

    margin: Tensor

    def __init__(self, pair: Pair, stage: int, channels: Tensor | None) -> None:
        super().__init__(pair, stage, channels)
        margin = pair.margins[stage]
        conv = nn.Conv2d(self.width, len(margin), 1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.connector = nn.Sequential(conv, nn.BatchNorm2d(len(margin)))
        self.register_buffer("margin", margin.reshape(1, -1, 1, 1))

    def forward(self, student: Features, teacher: TeacherOutput | None, peer: Features | None) -> tuple[Tensor, Tensor]:
        assert teacher is not None
        # the configuration was checked for it
        assert student.pre_activations is not None
        assert teacher.features.pre_activations is not None
        s = self.connector(self.chosen(student.pre_activations[self.stage]))
        s, t = pool_to_common_size(s, teacher.features.pre_activations[self.stage])
        return s, torch.maximum(t, self.margin)


MakeComparison = Callable[[Pair, int, "Tensor | None"], Comparison]


def comparisons(
    make: MakeComparison, pair: Pair, stages: list[int], channels: list[Tensor] | None = None
) -> list[Comparison]:
    """One comparison per stage, by make(pair, stage, channels): a Comparison's class, or a partial of one.

    channels: for each stage the student's channels to compare; None for all. A stage without any is left out.
    """
    if channels is None:
        return [make(pair, stage, None) for stage in stages]
    return [make(pair, stage, chosen) for stage, chosen in zip(stages, channels, strict=True) if len(chosen)]


def split_channels(count: int, share: float, at_random: bool) -> tuple[Tensor, Tensor]:
    """Split channels into those that inherit and those that explore.

    Args:
        count: c, how many channels there are.
        share: of them that inherit, 0..1. One that is neither 0 nor 1 leaves at least one channel on each side.
        at_random: draw them, with torch's global generator; else the first ones inherit.
    Returns:
        The indices of both, each (n,) int64 and in ascending order.

    >>> split_channels(4, 0.5, at_random=False)
    (tensor([0, 1]), tensor([2, 3]))
    """
    order = torch.randperm(count) if at_random else torch.arange(count)
    inheriting = round(count * share) if share in (0, 1) else min(max(1, int(count * share)), count - 1)
    return order[:inheriting].sort().values, order[inheriting:].sort().values


def _like(factor: Tensor, target: Tensor) -> Tensor:
    """Pool a student's larger map, or enlarge a smaller one, to the target's (h,w); equal sizes are not changed."""
    if factor.shape[2:] == target.shape[2:]:
        return factor
    return F.adaptive_avg_pool2d(factor, (target.shape[2], target.shape[3]))
