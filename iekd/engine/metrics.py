"""What training yields: rows of metrics, how much is done in between, and notices of learners that diverged."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Metrics:
    """One row of one learner.

    kind: "train" (means over the steps since the last row), or after an epoch "validation" and "test".
    epoch: how many passes are done, as a fraction within an epoch; step: how many steps.
    values: train: "loss", the method's terms, "accuracy" (percent, augmented images), "lr"; the others:
        "accuracy", "loss", and "peer_accuracy" where two networks learn from each other.
    """

    stage: str
    learner: str
    kind: str
    epoch: float
    step: int
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stepped:
    """Between rows that are long in coming: the learners have done `step` steps."""

    stage: str
    step: int


@dataclass(frozen=True)
class Predicted:
    """`images` more predictions for held-out images were made, counted for each network; they have no row yet."""

    stage: str
    images: int


@dataclass(frozen=True)
class Watched:
    """What a learner predicts after an epoch for the few held-out images that are watched (watched.py).

    predictions: the class of each image; probabilities: of that class, 0..1.
    """

    stage: str
    learner: str
    epoch: float
    step: int
    predictions: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Diverged:
    """After `step` steps a learner's loss or predictions are NaN or infinite: it gets no more rows, and no result.

    message: what happened, as a sentence.
    """

    stage: str
    learner: str
    step: int
    message: str


@dataclass(frozen=True)
class FellBack:
    """A stage trains without an acceleration whose step differs from the plain one; message: how it differs."""

    stage: str
    message: str
