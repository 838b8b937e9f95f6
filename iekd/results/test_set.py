"""Two models on a whole test set: which classes each confuses, what differs, how calibrated they are, what to look at.

Gets predictions and returns numbers. `iekd/runs/test_set.py` knows where predictions come from.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iekd.config.methods import BASELINE, explores
from iekd.engine.scoring import is_right
from iekd.errors import UserError
from iekd.models.artifact import TEACHER
from iekd.results.calibration import BINS, Calibration, calibration
from iekd.results.confusion import ClassRow, ConfusedPair, confusion_matrix, most_confused, per_class
from iekd.results.mistakes import Mistake, confident_mistakes, suspicious_labels

MOST_PAIRS = 20
MOST_MISTAKES = 12  # of each model


@dataclass(frozen=True, eq=False)  # arrays cannot be compared with one result
class TestSetPredictions:
    """What models predict for a test set of N images.

    Attributes:
        class_names: in the order of the labels.
        labels: (N,) int64.
        images: what each is called: its path in the dataset's folder, or its row.
        predictions: (N,) int64 by model.
        confidences: (N,) float32 by model, the probability of the predicted class; empty where they are not known.
        without: why they are not known, as a sentence.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    images: tuple[str, ...]
    predictions: dict[str, np.ndarray]
    confidences: dict[str, np.ndarray] = field(default_factory=dict)
    without: str = ""

    def right(self, model: str) -> np.ndarray:
        """(N,) bool: the images that a model predicts right."""
        right: np.ndarray = is_right(self.predictions[model], self.labels)
        return right


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found.

    Attributes:
        of: the predictions that it is about.
        first, second: the models that are compared.
        matrices: (K,K) int64 by model, see `confusion_matrix`; of the two, and of the teacher if there is one.
        pairs: classes that are confused, the largest change first. classes: the largest gain of `second` first.
        calibration: by model; empty where confidences are not known.
        mistakes: the most confident ones of `first` and of `second`; empty where confidences are not known.
        suspicious: images whose label no model of `agreeing` believes, all of them predicting one other class.
    """

    of: TestSetPredictions
    first: str
    second: str
    matrices: dict[str, np.ndarray]
    pairs: list[ConfusedPair]
    classes: list[ClassRow]
    calibration: dict[str, Calibration]
    mistakes: dict[str, list[Mistake]]
    suspicious: list[Mistake]

    @property
    def agreeing(self) -> list[str]:
        """The models that suspicious labels are found with: the teacher, if there is one, and both others."""
        return list(self.matrices)

    @property
    def difference(self) -> np.ndarray:
        """(K,K) int64, the second matrix minus the first: what the second model does more often."""
        found: np.ndarray = self.matrices[self.second] - self.matrices[self.first]
        return found

    def to_json(self) -> dict[str, Any]:
        """What the command line and the endpoint say of it."""
        names = self.of.class_names

        def of_image(found: Mistake) -> dict[str, Any]:
            known = {} if found.confidence is None else {"confidence": round(found.confidence, 6)}
            return {
                "row": found.row, "image": self.of.images[found.row], "class": names[found.label],
                "predicted": names[found.predicted], **known,
            }  # fmt: skip

        return {
            "models": list(self.of.predictions), "first": self.first, "second": self.second,
            "images": len(self.of.labels), "classes": list(names),
            "confusion": {model: matrix.tolist() for model, matrix in self.matrices.items()},
            "difference": self.difference.tolist(),
            "confused": [
                {"class": names[p.label], "predicted": names[p.predicted], "first": p.first, "second": p.second}
                for p in self.pairs
            ],
            "class_accuracy": [
                {"class": names[c.label], "images": c.images, "first": c.first, "second": c.second, "gain": c.gain}
                for c in self.classes
            ],
            "calibration": {
                model: {
                    "ece": found.ece, "confidence": found.confidence, "accuracy": found.accuracy,
                    "bins": [vars(b) for b in found.bins],
                }
                for model, found in self.calibration.items()
            },
            "without": self.of.without,
            "mistakes": {model: [of_image(m) for m in found] for model, found in self.mistakes.items()},
            "agreeing": self.agreeing,
            "suspicious": [of_image(m) for m in self.suspicious],
        }  # fmt: skip


def analyse(of: TestSetPredictions, first: str = "", second: str = "", bins: int = BINS) -> Analysis:
    """Compare two models on a test set.

    Args:
        first, second: names of models; unset: see `default_pair`.
        bins: of the calibration.
    Raises:
        UserError: there is no such model, both are the same, or there are fewer than two.
    """
    usual = default_pair(of.predictions)
    second = second or (usual[1] if usual[1] != first else usual[0])
    first = first or (usual[0] if usual[0] != second else usual[1])
    for name in (first, second):
        if name not in of.predictions:
            raise UserError(f"There is no model '{name}' here. Choose two of: {', '.join(of.predictions)}.")
    if first == second:
        raise UserError(f"'{first}' is named twice. Choose two different ones of: {', '.join(of.predictions)}.")
    shown = [name for name in of.predictions if name in (TEACHER, first, second)]
    classes = len(of.class_names)
    matrices = {name: confusion_matrix(of.labels, of.predictions[name], classes) for name in shown}
    sure = {name: of.confidences[name] for name in shown if name in of.confidences}
    return Analysis(
        of, first, second, matrices, most_confused(matrices[first], matrices[second], MOST_PAIRS),
        per_class(matrices[first], matrices[second]),
        {name: calibration(values, of.right(name), bins) for name, values in sure.items()},
        {
            name: confident_mistakes(of.labels, of.predictions[name], sure[name], MOST_MISTAKES)
            for name in (first, second)
            if name in sure
        },
        suspicious_labels(
            of.labels, [of.predictions[name] for name in shown], list(sure.values()) if len(sure) == len(shown) else ()
        ),
    )  # fmt: skip


def default_pair(models: Collection[str]) -> tuple[str, str]:
    """The two models that are compared unless others are named: the plain student and the first IE student, else the
    first two students, else the teacher and the only student.

    Raises:
        UserError: there are fewer than two models.

    >>> default_pair(["teacher", "baseline", "kd", "ie-ft"])
    ('baseline', 'ie-ft')
    >>> default_pair(["teacher", "kd"])
    ('teacher', 'kd')
    """
    if len(models) < 2:
        raise UserError(
            f"Two models are needed to compare, and there is only '{next(iter(models), 'none')}'. "
            "Choose a run with a teacher or several students."
        )
    students = [name for name in models if name != TEACHER]
    plain = [name for name in students if name == BASELINE]
    ie = [name for name in students if explores(name)]
    order = list(dict.fromkeys([*plain, *ie, *students]))
    return (order[0], order[1]) if len(order) > 1 else (TEACHER, order[0])
