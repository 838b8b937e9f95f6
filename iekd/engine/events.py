"""What an experiment yields beside rows of metrics: the start of a stage, and the result with its trained networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Union

from torch import Tensor, nn

from iekd.engine.metrics import Diverged, FellBack, Metrics, Predicted, Stepped, Watched
from iekd.engine.state import Snapshot


@dataclass(frozen=True)
class StageStart:
    """A stage begins. It has `steps` optimisation steps (of each learner), 0 if there is nothing to train.

    done: how many of them an earlier attempt has done. predictions: how many held-out images will be predicted, counted
    for each network and epoch; predicted: how many of them were.
    """

    stage: str
    steps: int
    done: int = 0
    predictions: int = 0
    predicted: int = 0


@dataclass(frozen=True)
class TrainedModel:
    """A classifier and the normalisation that it was trained with: mean and std per channel, of pixel values 0..1."""

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class LearnerResult:
    """Accuracies in percent on the test split; `class_accuracy` per class in order, None for one without images.

    best_epoch: the epoch with the best validation accuracy, and accuracy_best the test accuracy then. Without a
    validation split the test accuracy itself chooses, which flatters.
    agreement: percent of predictions that equal the teacher's. peer_accuracy: of the second student of mutual learning.
    energy_threshold: below it lies the energy of one test image in twenty.
    predictions: (N,) int64, the predicted class of each test image, in the order of the split.
    """

    name: str
    network: TrainedModel = field(repr=False)  # else a printed result is a page of layers
    accuracy_last: float
    class_accuracy: list[float | None]
    predictions: Tensor = field(repr=False, compare=False)
    accuracy_best: float = 0.0
    best_epoch: int = 0
    agreement: float | None = None
    method: str = ""
    seed: int = 0
    peer_accuracy: float | None = None
    energy_threshold: float | None = None


@dataclass
class Result:
    """The result of a finished run: the teacher (None without one), the students, and those that diverged."""

    teacher: LearnerResult | None
    learners: list[LearnerResult] = field(default_factory=list)
    diverged: list[Diverged] = field(default_factory=list)


Event = Union[StageStart, Metrics, Stepped, Predicted, Watched, Diverged, FellBack, Snapshot, Result]
