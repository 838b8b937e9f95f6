"""What several classifiers say of the same images, side by side.

Predictions run on the CPU, one image at a time, which is also how the shown latency is measured. Leaves out: why.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from iekd.config import learner_name
from iekd.data.images import ImageSource, to_array
from iekd.errors import DataError, UserError
from iekd.models.artifact import CARD, WEIGHTS, ModelCard
from iekd.runs.store import Run, Store
from iekd.teachers import checkpoints_dir, shipped_models

TOP = 5


@dataclass(frozen=True)
class Prediction:
    """One model's answer for one image: up to five (label, score in 0..1), best first, and the time it took."""

    top: list[tuple[str, float]]
    milliseconds: float

    @property
    def label(self) -> str:
        return self.top[0][0]


@dataclass(frozen=True)
class ImageResult:
    """One image: what the networks saw (H,W,C) uint8 and what each said; or why it could not be read.

    inverted: bright and dark were swapped first, because the training images have dark backgrounds.
    """

    name: str
    seen: np.ndarray | None
    inverted: bool = False
    predictions: dict[str, Prediction] = field(default_factory=dict)
    error: str | None = None


class Classifier:
    """A saved model, ready to answer.

    images (H,W,C) uint8 of the card's resolution and channels -> Prediction.
    """

    def __init__(self, folder: Path) -> None:
        """Raises UserError if the folder holds no usable model."""
        from iekd.engine.learner import Normalise
        from iekd.models.artifact import load_model

        self.model, self.card = load_model(folder)
        self.normalise = Normalise(self.card.mean, self.card.std)
        self.bytes = (folder / WEIGHTS).stat().st_size

    def predict(self, image: np.ndarray) -> Prediction:
        import torch

        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]  # (1,C,H,W)
        start = time.perf_counter()
        with torch.inference_mode():
            scores = self.model(self.normalise(pixels)).logits.softmax(1)[0]
        elapsed = (time.perf_counter() - start) * 1000
        best = scores.topk(min(TOP, len(scores)))
        labels = [self.card.class_names[i] for i in best.indices.tolist()]
        return Prediction(list(zip(labels, best.values.tolist(), strict=True)), elapsed)


def load_classifier(folder: Path) -> Classifier:
    """A Classifier that stays in memory until the folder is written again; the 16 used last are kept."""
    return _cached(folder.resolve(), (folder / CARD).stat().st_mtime_ns if (folder / CARD).is_file() else 0)


@lru_cache(maxsize=16)
def _cached(folder: Path, _: int) -> Classifier:
    return Classifier(folder)


def models_called(store: Store, name: str) -> dict[str, Path]:
    """The models of a run by its id, or of one of its seeds, as ID/SEED; "" for the shipped ones.

    Raises:
        UserError: no such run or seed, or no models.
    """
    if not name:
        return demo_models()
    run_id, _, seed = name.partition("/")
    return run_models(store.get(run_id), seed)


def run_models(run: Run, seed: str = "") -> dict[str, Path]:
    """The models of a run to compare: the teacher, and each method's student of that seed; "": of its first one.

    Raises:
        UserError: the run has saved none.
    """
    saved, chosen = run.model_folders, {}
    if not saved:
        raise UserError(f"The run '{run.id}' has no trained models ({run.status.state}). Choose one that has finished.")
    seeds = saved_seeds(run)
    if seed and seed not in map(str, seeds):
        there = ", ".join(map(str, seeds)) or "none"
        raise UserError(f"The run '{run.id}' has no students of seed '{seed}'. It has those of: {there}.")
    if "teacher" in saved:
        chosen["teacher"] = saved["teacher"]
    for method, own in run.config.learner_names:
        if learner_name(method, own) in saved and seed in ("", str(own)):
            chosen.setdefault(method, saved[learner_name(method, own)])
    return chosen


def saved_seeds(run: Run) -> list[int]:
    """The seeds that have students in a run's folder, in the order of training."""
    saved = run.model_folders
    there = {seed for method, seed in run.config.learner_names if learner_name(method, seed) in saved}
    return [seed for seed in run.config.seeds if seed in there]


def demo_models() -> dict[str, Path]:
    """The shipped models as a run would name them: teacher, baseline, ie-ft.

    Raises:
        UserError: no shipped models on this machine.
    """
    found = {"teacher" if card.role == "teacher" else card.method: name for name, card in shipped_models().items()}
    if not found:
        raise UserError(f"There are no shipped models in '{checkpoints_dir()}'. Finish a run and compare that.")
    order = ["teacher", "baseline", *sorted(set(found) - {"teacher", "baseline"})]
    return {name: checkpoints_dir() / found[name] for name in order if name in found}


def compare(
    models: Mapping[str, Path], images: Sequence[tuple[str, ImageSource]], match_background: bool = True
) -> list[ImageResult]:
    """Every model's answer for every image. An image that cannot be read has its reason instead of answers.

    Args:
        models: shown name -> folder of a saved model; all must know the same classes and see the same size.
        images: (shown name, anything that data.images.open_image takes).
        match_background: swap bright and dark in grey pictures whose background is the opposite of the training
            images', such as a shoe photographed on white for models that know white shoes on black.
    Raises:
        UserError: a model cannot be loaded, or the models do not belong together.
    """
    loaded = {name: load_classifier(folder) for name, folder in models.items()}
    first_name, first = next(iter(loaded.items()))
    for name, other in loaded.items():
        if other.card.class_names != first.card.class_names:
            raise UserError(
                f"'{name}' and '{first_name}' do not know the same classes ({len(other.card.class_names)} and "
                f"{len(first.card.class_names)}), so they cannot be compared. Choose models of one data set."
            )
    results = []
    for shown, source in images:
        try:
            seen = to_array(source, first.card.resolution, first.card.channels, shown)
        except DataError as error:
            results.append(ImageResult(shown, None, error=str(error)))
            continue
        inverted = match_background and _opposite_background(seen, first.card)
        seen = 255 - seen if inverted else seen
        answers = {}
        for name, classifier in loaded.items():
            image, card = seen, classifier.card
            if (card.resolution, card.channels) != (first.card.resolution, first.card.channels):
                image = to_array(source, card.resolution, card.channels, shown)
                image = 255 - image if inverted else image
            answers[name] = classifier.predict(image)
        results.append(ImageResult(shown, seen, inverted, answers))
    return results


def _opposite_background(seen: np.ndarray, card: ModelCard) -> bool:
    """True for a grey picture with bright edges where the training images' were dark, or the other way round."""
    if card.channels != 1 or card.background is None:
        return False
    edges = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]]).mean() / 255
    return bool(edges > 0.6 and card.background < 0.3) or bool(edges < 0.3 and card.background > 0.7)
