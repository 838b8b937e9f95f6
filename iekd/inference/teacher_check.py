"""Does somebody else's teacher know these images, in this order of classes? Asked before a run spends time on it.

A teacher whose outputs are in another order, or that expects other pixel values, answers like one that has learned
nothing. A few hundred held-out images tell within seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iekd.data.base import Split
from iekd.engine.scoring import predicted
from iekd.models.class_names import SETTING
from iekd.models.info import IMAGENET
from iekd.plural import counted

if TYPE_CHECKING:
    from torch import nn

IMAGES = 500  # looked at, or PER_CLASS of each class
PER_CLASS, MOST = 10, 4000
BETTER = 15.0  # points by which another order, or other pixel values, must be better to be spoken of
FIRST_ONES = ", which are the first teacher's: name this one first"
CHANCE = 3.0  # standard deviations above always predicting the majority class: as good as that is no teacher
NORMALISATIONS = {  # what else people train with
    "ImageNet's": IMAGENET,
    "one half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class TeacherCheck:
    """What was found.

    Args:
        images: how many were looked at. accuracy: percent of them that are right.
        guess: percent that always predicting the majority class would get.
        order: the dataset's class names in the order of the teacher's outputs, where that would be much better; and
            the accuracy with it.
        mean, std: the same of other pixel values.
        named_in: what says which output is which class, whatever class order is given; empty: nothing.
        brings_pixels: whether its mean and std are those that it came with, whatever the settings say.
        further: whether the settings for mean and std are those of another teacher, the run's first.
    """

    images: int
    accuracy: float
    guess: float
    order: tuple[str, ...] = ()
    accuracy_in_order: float = 0.0
    normalisation: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    accuracy_normalised: float = 0.0
    named_in: str = ""
    brings_pixels: bool = False
    further: bool = False

    @property
    def problem(self) -> str:
        """Why this teacher should not teach, and what to do; empty if nothing speaks against it."""
        seen = f"it is right on {self.accuracy:.1f} % of {counted(self.images, 'held-out image')}"
        if self.order:
            return (
                f"{seen}, and would be on {self.accuracy_in_order:.1f} % if its outputs were the classes in another "
                f"order. {advice_on_order(self.order, self.named_in)}"
            )
        if self.mean:
            remedy = "Give those as teacher mean and teacher std"
            if self.further:
                remedy += FIRST_ONES
            return (
                f"{seen}, and would be on {self.accuracy_normalised:.1f} % with the mean and standard deviation "
                f"{_listed(self.mean)} and {_listed(self.std)} ({self.normalisation}). {remedy}"
            )
        spread = CHANCE * (self.guess * (100 - self.guess) / self.images) ** 0.5
        if self.accuracy < min(self.guess + spread, 95.0):
            return f"{seen}, and always predicting the majority class on {self.guess:.1f} %. {self._doubts}"
        return ""

    @property
    def _doubts(self) -> str:
        """What may be wrong with one that knows nothing, and which settings help."""
        if self.named_in:
            return "It may be of other classes. Choose another teacher"
        order = f"the class order ({SETTING})"
        if self.brings_pixels:
            own = "its mean and standard deviation are those that come with it, and no setting changes them"
            return f"It may be of other classes or in another order: check {order}; {own}"
        pixels = f"teacher mean and teacher std (--teacher-mean, --teacher-std{FIRST_ONES if self.further else ''})"
        return f"It may be of other classes, in another order, or need other pixel values: check {pixels} and {order}"


def advice_on_order(order: Sequence[str], named_in: str = "") -> str:
    """What to do about outputs that are the classes in another order, without the full stop; named_in: see
    `TeacherCheck`."""
    if named_in:
        return (
            f"{named_in} names its classes itself, whatever class order is given. If its outputs are "
            f"{', '.join(order)}, correct class_names in its model.json, or save or export it again with these names"
        )
    return f"If that is how it was trained, give the class order {','.join(order)} ({SETTING})"


def check_teacher_on(
    model: nn.Module, mean: Sequence[float], std: Sequence[float], held_out: Split, class_names: Sequence[str],
    try_normalisations: bool = True, others: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
) -> TeacherCheck:  # fmt: skip
    """Let a teacher predict a sample of held-out images.

    Args:
        model: the classifier, on the CPU; images go in normalised, logits come out.
        mean, std: per channel, of pixel values scaled to 0..1.
        held_out: images that the run will not train on.
        class_names: in the order of the labels.
        try_normalisations: whether mean and std are only assumed, so that others may be the right ones.
        others: mean and deviation that are tried besides the usual ones, by whose they are.
    """
    import torch

    from iekd.engine.learner import predict
    from iekd.models.normalise import Normalise

    rows = _sample(held_out.labels, len(class_names))
    labels = torch.from_numpy(held_out.labels[rows])
    images = torch.from_numpy(np.ascontiguousarray(held_out.images[rows])).permute(0, 3, 1, 2)
    device = torch.device("cpu")  # where teachers are loaded

    def predictions(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
        logits = predict(model, Normalise(tuple(mean), tuple(std)), images, device)
        found: np.ndarray = predicted(logits).cpu().numpy()
        return found

    truth, guesses = labels.numpy(), predictions(mean, std)
    accuracy = _percent(guesses == truth)
    guess = 100 * float(np.bincount(truth).max()) / len(truth)
    order, in_order = fitting_order(guesses, truth, class_names)
    if in_order < accuracy + BETTER:
        order, in_order = (), 0.0
    best: tuple[float, str] = (0.0, "")
    channels, tried = len(mean), {**NORMALISATIONS, **(others or {})}
    for name, (other_mean, other_std) in tried.items() if try_normalisations else ():
        found = _percent(predictions(other_mean[:channels], other_std[:channels]) == truth)
        best = max(best, (found, name))
    if best[0] < max(accuracy, in_order) + BETTER:
        return TeacherCheck(len(truth), accuracy, guess, order, in_order)
    mean, std = (tuple(values[:channels]) for values in tried[best[1]])
    return TeacherCheck(len(truth), accuracy, guess, (), 0.0, best[1], mean, std, best[0])


def _sample(labels: np.ndarray, classes: int) -> np.ndarray:
    """Rows of a sample, the same each time, with about as many of each class."""
    count = min(len(labels), max(IMAGES, min(MOST, PER_CLASS * classes)))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    rank, seen = np.empty(len(labels), np.int64), np.zeros(classes, np.int64)
    for i, row in enumerate(order):
        rank[i] = seen[labels[row]]
        seen[labels[row]] += 1
    return np.sort(order[np.argsort(rank, kind="stable")[:count]])


def fitting_order(guesses: np.ndarray, truth: np.ndarray, class_names: Sequence[str]) -> tuple[tuple[str, ...], float]:
    """(class names in the order of outputs that fits best, the accuracy in percent); none if it is the given one.

    With few images of each class some order always fits by chance, and none is spoken of.
    """
    from scipy.optimize import linear_sum_assignment

    classes = len(class_names)
    if len(truth) < 5 * classes or guesses.max(initial=0) >= classes:
        return (), 0.0
    counts = np.zeros((classes, classes), np.int64)  # of each output and each class
    np.add.at(counts, (guesses, truth), 1)
    # outputs and classes that say nothing stay where they are
    outputs, named = linear_sum_assignment(counts + 1e-3 * np.eye(classes), maximize=True)
    if np.array_equal(outputs, named):
        return (), 0.0
    order = [""] * classes
    for output, label in zip(outputs, named, strict=True):
        order[output] = class_names[label]
    return tuple(order), 100 * float(counts[outputs, named].sum()) / len(truth)


def order_of_outputs(
    order: Sequence[str], class_names: Sequence[str], listed: Sequence[str] | None
) -> tuple[str, ...]:  # fmt: skip
    """What the outputs of a file's weights stand for, once they were moved by a list: the class order to advise.

    order: what `fitting_order` found of the moved ones. class_names: the dataset's. listed: the same names in the order
    of the list; none: the outputs were not moved.
    """
    fits = dict(zip(class_names, order, strict=True)) if order and listed else {}
    return tuple(fits[name] for name in listed or ()) if fits else tuple(order)


def _percent(right: np.ndarray) -> float:
    return 100 * float(np.mean(right))


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
