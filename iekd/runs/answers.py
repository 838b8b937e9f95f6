"""answers.csv: what each network of a run said of each test image, to look at, or to do one's own statistics with."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from iekd.data.dataset import Dataset
from iekd.data.registry import FOLDER

ANSWERS = "answers.csv"


def write_answers(path: Path, result: Any, dataset: Dataset) -> None:
    """One row per test image: where it lies in the folder, or its number in the test split; its class; the answers.

    result: an engine Result.
    """
    networks = {"teacher": result.teacher, **{r.name: r for r in result.learners}}
    answers = {name: r.answers.tolist() for name, r in networks.items() if r is not None}
    files, names = dataset.test.sources, dataset.class_names
    root = dataset.name.removeprefix(FOLDER)
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", *answers])
        for i, label in enumerate(dataset.test.labels.tolist()):
            image = i if files is None else os.path.relpath(files[i], root)
            writer.writerow([image, names[label], *(names[said[i]] for said in answers.values())])
