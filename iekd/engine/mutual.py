"""Mutual learning: a learner with a peer that learns from it in turn (Zhang et al. 2018, algorithm 1; dml, ie-dml)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iekd.distill.method import StepOutput
from iekd.distill.targets import TeacherOutput
from iekd.engine.accelerate import autocast
from iekd.engine.learner import Learner
from iekd.engine.metrics import Diverged
from iekd.engine.state import State
from iekd.engine.trainee import Row

log = logging.getLogger(__name__)


class MutualLearner(Learner):
    """A learner whose method looks at a peer: a learner of its own kind with another network, trained with it.

    The two are updated alternately on each batch: the student learns from the peer as it is, then the peer from the
    student as it has become. Rows and results are the student's; the peer's test accuracy stands beside them.
    """

    def __init__(self, peer: Learner, *args: Any, **options: Any) -> None:
        if options.pop("compiled", False):
            log.warning("Mutual learners are not compiled: their two networks take turns within a step.")
        super().__init__(*args, **options)
        self.peer = peer

    def prepare(self) -> None:
        super().prepare()
        self.peer.prepare()

    def update(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> StepOutput:
        peer = self.peer
        pixels = self.normalise(images)
        with autocast(self.device, self.precision):
            other = peer.model(pixels)
            output: StepOutput = self.method(self.model(pixels), teacher, labels, other)
        self.backward(output.loss)
        self.optimise()
        with autocast(self.device, self.precision):
            with torch.no_grad():
                student = self.model(pixels)
            taught: StepOutput = peer.method(other, teacher, labels, student)
        peer.backward(taught.loss)
        peer.optimise()
        return output

    def states(self) -> dict[str, State]:
        return {**super().states(), **self.peer.states()}

    def restore(self, states: Mapping[str, State]) -> None:
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
            if isinstance(row, Diverged):
                continue
            (beside,) = self.peer.end_of_split(kind)
            if isinstance(beside, Diverged):  # its student cannot but follow
                return [self._give_up(self.name, beside.message)]
            row.values["peer_accuracy"] = beside.values["accuracy"]
        return rows
