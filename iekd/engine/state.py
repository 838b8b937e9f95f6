"""What is needed to resume training: the state of each learner after the same step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class LearnerState:
    """One learner after a step; copies in the CPU's memory.

    weights: every tensor of its networks, as "model.<name>" or "method.<name>". momentum: what the optimiser
    remembers of each parameter, by the same names: SGD's momentum; of AdamW "<name>#exp_avg", "<name>#exp_avg_sq" and
    "<name>#step" (optimizer.remembered_as). sums: the metrics summed for the next row, by name, (1,) float32 each.
    numbers: counts and accuracies, as JSON has them. predictions: after the last step, "test" -> its predicted classes
    (N,) int64, and "energy" -> the same images' energies (N,) float32; stored as "answers".
    The learning rate and the order of images are not stored: both follow from the number of steps. So do the random
    numbers of a network's dropout where the run is to be repeatable (draws.py); otherwise learners share one generator.
    """

    weights: dict[str, Tensor]
    momentum: dict[str, Tensor]
    sums: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    predictions: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A stage after `step` steps of each of its learners, by name."""

    stage: str
    step: int
    states: Mapping[str, LearnerState]
