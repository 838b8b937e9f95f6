"""The few held-out images that people watch while a run trains, and what its networks predict for them.

In the run folder, written by the worker and read by the page:

watched/images.json        their split, classes and small copies of them; replaced in one step
watched/predictions.jsonl  one line for each network and epoch, at most engine.watched.MOST_REPORTS for a network

Which images, and why they cost nothing: engine/watched.py. They stay on this machine: exports of a run leave them out.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from iekd.data.base import Dataset
from iekd.runs.files import LineWriter, read_json, read_lines, truncate_lines, write_json
from iekd.runs.store import WATCHED, Run

IMAGES, PREDICTIONS = f"{WATCHED}/images.json", f"{WATCHED}/predictions.jsonl"
SIDE = 64  # pixels of a copy, at most


class WatchedWriter:
    """What the worker does."""

    def __init__(self, run: Run, dataset: Dataset, split: str, rows: tuple[int, ...]) -> None:
        """rows: the images, by their number in `split`, "validation" or "test"."""
        chosen = dataset.validation if split == "validation" else dataset.test
        assert chosen is not None
        images = chosen.images[np.array(rows, np.int64)]
        (run.path / WATCHED).mkdir(exist_ok=True)
        values = {
            "split": split, "class_names": list(dataset.class_names),
            "images": [{"row": row, "label": int(chosen.labels[row]), "png": _png(image)}
                       for row, image in zip(rows, images, strict=True)],
        }  # fmt: skip
        write_json(run.path / IMAGES, values)
        self.lines = LineWriter(run.path / PREDICTIONS)

    def append(self, event: Any) -> None:
        """An engine Watched."""
        self.lines.append({
            "learner": event.learner, "epoch": event.epoch, "predictions": event.predictions,
            "probabilities": event.probabilities,
        })  # fmt: skip

    @property
    def count(self) -> int:
        """Lines so far."""
        return self.lines.count

    def close(self) -> None:
        self.lines.close()


def go_back_to(run: Run, count: int) -> None:
    """Cut off the lines after the first `count`, which came after the checkpoint that an attempt continues from."""
    truncate_lines(run.path / PREDICTIONS, count)


def size(run: Run) -> int:
    """Bytes of predictions so far: what tells whether there is anything new to draw."""
    try:
        return (run.path / PREDICTIONS).stat().st_size
    except OSError:
        return 0


class WatchedPrediction(NamedTuple):
    """epoch: how many were done. label: the name of the predicted class; probability: of that class, 0..1."""

    epoch: float
    label: str
    probability: float


@dataclass(frozen=True)
class WatchedImage:
    """One image: its class, a PNG in base64, and by learner what was predicted for it, oldest first."""

    label: str
    png: str
    predictions: dict[str, list[WatchedPrediction]]


@dataclass(frozen=True)
class WatchedImages:
    """split: "validation" or "test"."""

    split: str
    images: tuple[WatchedImage, ...]


def read_watched(run: Run) -> WatchedImages | None:
    """The images and everything predicted for them so far; None for runs that have none, or whose files are damaged."""
    found = read_json(run.path / IMAGES)
    if found is None:
        return None
    try:
        lines, _ = read_lines(run.path / PREDICTIONS)
        names = found["class_names"]
        images = []
        for i, image in enumerate(found["images"]):
            by_learner: dict[str, list[WatchedPrediction]] = {}
            for line in lines:
                said = WatchedPrediction(line["epoch"], names[line["predictions"][i]], line["probabilities"][i])
                by_learner.setdefault(line["learner"], []).append(said)
            images.append(WatchedImage(names[image["label"]], image["png"], by_learner))
        return WatchedImages(found["split"], tuple(images))
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def class_names(run: Run) -> list[str]:
    """The classes of the run's dataset; [] while nothing is watched."""
    found = read_json(run.path / IMAGES)
    names = found.get("class_names") if isinstance(found, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _png(image: np.ndarray) -> str:
    """(H,W,C) uint8 -> a PNG of at most SIDE pixels, in base64."""
    small = Image.fromarray(image.squeeze())
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
