"""answers.csv: each network's prediction for each test image of a run, for your own statistics."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iekd.config.run import learner_name
from iekd.data.base import Dataset
from iekd.data.registry import relative_name
from iekd.engine.scoring import is_right

ANSWERS = "answers.csv"


def write_answers(path: Path, result: Any, dataset: Dataset) -> None:
    """One row per test image: its path in the folder, or its number in the test split; its class; the predictions.

    result: an engine Result.
    """
    networks = {"teacher": result.teacher, **{r.name: r for r in result.learners}}
    answers = {name: r.predictions.tolist() for name, r in networks.items() if r is not None}
    files, names = dataset.test.image_files, [harmless(name) for name in dataset.class_names]
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", *answers])
        for i, label in enumerate(dataset.test.labels.tolist()):
            image = i if files is None else harmless(relative_name(dataset.name, files[i]))
            writer.writerow([image, names[label], *(names[predicted[i]] for predicted in answers.values())])


@dataclass(frozen=True, eq=False)  # arrays cannot be compared with one result
class Right:
    """Which predictions of a run are right: images are the rows' (name, class), right is network -> (images,) bool."""

    images: list[tuple[str, str]]
    right: dict[str, np.ndarray]


def read_right(path: Path) -> Right | None:
    """What `write_answers` wrote; None if it does not exist (runs of earlier versions) or cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        images = [(row[0], row[1]) for row in rows]
        classes = np.array([row[1] for row in rows])
        columns = {
            name: is_right(np.array([row[k] for row in rows]), classes) for k, name in enumerate(header) if k > 1
        }
    except (OSError, ValueError, IndexError, csv.Error):
        return None
    return Right(images, columns)


def right_of(report: dict[str, Any], answers: Right) -> dict[str, dict[int, np.ndarray]] | None:
    """Method -> seed -> which test images are right, (images,) bool; None unless the answers agree with the report."""
    right: dict[str, dict[int, np.ndarray]] = {}
    for learner in report["learners"]:
        method, seed = learner["method"], learner["seed"]
        column = answers.right.get(learner_name(method, seed))
        if column is None or len(column) != report["test_images"]:
            return None
        if abs(100 * column.mean() - learner["accuracy_last"]) > 1e-6:
            return None
        right.setdefault(method, {})[seed] = column
    return right


@dataclass(frozen=True, eq=False)
class Answers:
    """A whole answers.csv: the images' names, labels (N,) int64, and predictions (N,) int64 by column."""

    images: tuple[str, ...]
    labels: np.ndarray
    predictions: dict[str, np.ndarray]


def read_answers(path: Path, class_names: Sequence[str]) -> Answers | None:
    """What `write_answers` wrote; None if it does not exist, cannot be read, or names other classes.

    Args:
        class_names: in the order of the labels.
    """
    number = {harmless(name): k for k, name in enumerate(class_names)}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        numbers = np.array([[number[cell] for cell in row[1:]] for row in rows], np.int64)
        images = tuple(row[0] for row in rows)
        columns = {name: numbers[:, k] for k, name in enumerate(header[2:], 1)}
        return Answers(images, numbers[:, 0], columns)
    except (OSError, ValueError, IndexError, KeyError, csv.Error):
        return None


def original(text: str) -> str:
    """What `harmless` was given."""
    return text[1:] if text.startswith("'") and harmless(text[1:]) == text else text


def harmless(text: str) -> str:
    """The text, with a leading quote if a spreadsheet would take it for a formula: class names may be anybody's."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
