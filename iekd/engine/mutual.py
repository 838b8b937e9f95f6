"""Mutual learning: a learner with a peer that learns from it in turn (Zhang et al. 2018, algorithm 1; dml, ie-dml)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from iekd.distill.distillers import Shares
from iekd.distill.method import StepOutput
from iekd.distill.targets import TeacherOutput
from iekd.engine.accelerate import autocast
from iekd.engine.learner import Learner
from iekd.engine.metrics import Diverged, Metrics
from iekd.engine.state import LearnerState
from iekd.engine.training_unit import Row

if TYPE_CHECKING:
    from iekd.engine.parallel import Processes

log = logging.getLogger(__name__)


class MutualLearner(Learner):
    """A learner whose method needs a peer: a second learner with another network, trained together with it.

    The two are updated alternately on each batch: first the student learns from the peer, then the peer from the
    updated student. Rows and results are the student's, with the peer's test accuracy added.
    """

    def __init__(self, peer: Learner, *args: Any, **options: Any) -> None:
        if options.pop("compiled", False):
            log.warning("Mutual learners are not compiled: their two networks take turns within a step.")
        super().__init__(*args, **options)
        self.peer = peer
        peer.best_network = None  # it stops when its student does

    def work_among(self, processes: Processes | None, whole: Callable[[int], tuple[int, int]]) -> None:
        super().work_among(processes, whole)
        self.peer.work_among(processes, whole)

    def prepare(self) -> None:
        super().prepare()
        self.peer.prepare()

    def take_shares(self, shares: Shares) -> None:
        super().take_shares(shares)
        self.peer.take_shares(shares)

    def update(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> StepOutput:
        peer = self.peer
        pixels = self.normalise(images)  # (B,C,H,W) float32
        with self.drawn(), autocast(self.device, self.precision):
            other = peer.model(pixels)  # Features: logits (B,K), stages (B,c,h,w), pooled (B,c)
            output: StepOutput = self.method(self.model(pixels), teacher, labels, other)
        self.backward(output.loss)
        self.optimise()
        with self.drawn(1), autocast(self.device, self.precision):
            with torch.no_grad():
                student = self.model(pixels)
            taught: StepOutput = peer.method(other, teacher, labels, student)
        peer.backward(taught.loss)
        peer.optimise()
        return output

    def states(self) -> dict[str, LearnerState]:
        return {**super().states(), **self.peer.states()}

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        super().restore(states)
        self.peer.restore(states)

    def advance(self) -> None:
        super().advance()
        self.peer.advance()

    def evaluate(self, images: Tensor, labels: Tensor) -> None:
        super().evaluate(images, labels)
        if self.name not in self.diverged:
            self.peer.evaluate(images, labels)

    def end_of_split(self, kind: str) -> list[Row]:
        rows = super().end_of_split(kind)
        for row in rows:
            if not isinstance(row, Metrics):
                continue
            (peers,) = self.peer.end_of_split(kind)
            if isinstance(peers, Diverged):  # its student learns from it
                return [self._mark_diverged(self.name, peers.message)]
            assert isinstance(peers, Metrics)
            row.values["peer_accuracy"] = peers.values["accuracy"]
        return rows
