"""What the models of a run, or the shipped ones, predict for their whole test set, and the images to show with it.

Predictions are read from the run's answers.csv, also when its dataset is gone. answers.csv has no probabilities: they
are computed once from the saved models, where the test images are on this machine, and stored in the run folder. A run
without answers.csv, of an earlier version or stopped, has its predictions computed in the same way. Predictions of the
shipped models are shipped too (benchmarks/showcase.py writes them), else they are stored in the cache.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iekd import data
from iekd.config.run import learner_name
from iekd.data.base import Dataset
from iekd.data.decoding import to_array
from iekd.engine.scoring import predicted
from iekd.errors import UserError
from iekd.export.base import Say
from iekd.inference.classifier import open_classifier
from iekd.models.artifact import WEIGHTS, ModelCard, check_fits
from iekd.paths import cache_dir
from iekd.results.predictions import ANSWERS, Answers, original, read_answers
from iekd.results.test_set import TestSetPredictions
from iekd.runs.export import dataset_of
from iekd.runs.models import models_called
from iekd.runs.store import TEST_SET, Run, Store

SHIPPED = f"{TEST_SET}.npz"  # in the folder of a shipped model
NOT_YET = "They have not been computed yet."
SIZE = 64  # pixels of an image that is shown, where no model says which it expects


class Computed(NamedTuple):
    """Of one model and N images: labels (N,) int64, predictions (N,) int64, confidences (N,) float32, names (N,)."""

    labels: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    names: np.ndarray


def predicted_set(
    store: Store, source: str, compute: bool = True, say: Say = lambda _: None
) -> TestSetPredictions | None:
    """The predictions of a run's models by its id, of one of its seeds as ID/SEED, or of the shipped models for "".

    Args:
        compute: whether what is not stored yet is computed, which takes as long as predicting the whole test set on the
            processor.
        say: told what is being done.
    Returns:
        None if nothing is known without computing.
    Raises:
        UserError: there is no such run or seed, or neither answers.csv nor the test images are there.
    """
    run_id, _, seed = source.partition("/")
    run = store.get(run_id) if source else None
    answers = _answers_of(run, seed) if run else None
    if answers is None:
        models = models_called(store, source)
        computed = _computed(run, models, compute, say)
        if not computed:
            return None
        first = next(iter(computed.values()))
        return TestSetPredictions(
            ModelCard.read(next(iter(models.values()))).class_names, first.labels, tuple(map(str, first.names)),
            {name: found.predictions for name, found in computed.items()},
            {name: found.confidences for name, found in computed.items()},
        )  # fmt: skip
    class_names, found = answers
    confidences, without = {}, ""
    try:
        models = {name: path for name, path in models_called(store, source).items() if name in found.predictions}
        computed = _computed(run, models, compute, say)
        if any(not np.array_equal(one.labels, found.labels) for one in computed.values()):
            raise UserError("The test images are not those of the run any more.")
        confidences = {name: one.confidences for name, one in computed.items()}
        without = "" if computed else NOT_YET
    except UserError as error:
        without = str(error)
    return TestSetPredictions(class_names, found.labels, found.images, found.predictions, confidences, without)


def ship_predictions(models: Mapping[str, Path], dataset: Dataset) -> None:
    """Store what the shipped models predict for a dataset's test images beside them, as benchmarks/showcase.py does."""
    for path in models.values():
        _write(path / SHIPPED, _fingerprint(path), _predict(path, dataset))


def read_images(store: Store, source: str, of: TestSetPredictions, rows: Sequence[int]) -> list[np.ndarray | None]:
    """Some test images as the networks see them, (H,W,C) uint8 each; None for one that is not there any more.

    Args:
        of: what `predicted_set` gave for the same source.
    """
    run = store.get(source.partition("/")[0]) if source else None
    try:
        card = ModelCard.read(next(iter(models_called(store, source).values())))
    except UserError:  # its models were removed; files can still be shown
        card = None
    root = data.own_path(run.config.dataset) if run else None
    if root is not None and not of.images[0].isdecimal():
        return [_file_image(root, original(of.images[row]), card) for row in rows]
    try:
        images = _test_images(card, run)
    except UserError:
        return [None] * len(rows)
    return [images[row] if row < len(images) else None for row in rows]


def _answers_of(run: Run, seed: str) -> tuple[tuple[str, ...], Answers] | None:
    """(names of the classes, answers.csv with the models of one seed by method); None where it cannot be read."""
    report = run.report or {}
    scored = [*report.get("learners", []), *filter(None, [report.get("teacher")])]
    class_names = tuple(scored[0].get("class_accuracy", ())) if scored else ()
    found = read_answers(run.path / ANSWERS, class_names)
    if found is None:
        return None
    trained = [(m, s) for m, s in run.config.learner_names if learner_name(m, s) in found.predictions]
    chosen = seed or str(trained[0][1] if trained else "")
    columns = {"teacher": found.predictions["teacher"]} if "teacher" in found.predictions else {}
    own = {m: found.predictions[learner_name(m, s)] for m, s in trained if str(s) == chosen}
    if seed and not own:
        there = ", ".join(dict.fromkeys(str(s) for _, s in trained)) or "none"
        raise UserError(f"The run '{run.id}' has no students of seed '{seed}'. It has those of: {there}.")
    return class_names, Answers(found.images, found.labels, columns | own)


def _computed(run: Run | None, models: Mapping[str, Path], compute: bool, say: Say) -> dict[str, Computed]:
    """Stored, or computed and stored, by model; empty where they would have to be computed and are not to be."""
    folder = run.path / TEST_SET if run else cache_dir() / TEST_SET
    fingerprints, found = {name: _fingerprint(path) for name, path in models.items()}, {}
    for name, path in models.items():
        places = [folder / f"{path.name}.npz", *([] if run else [path / SHIPPED])]
        if one := next(filter(None, (_read(place, fingerprints[name]) for place in places)), None):
            found[name] = one
    if len(found) == len(models):
        return found
    if not compute:
        return {}
    dataset = _dataset(ModelCard.read(next(iter(models.values()))), run, say)
    for name, path in models.items():
        if name not in found:
            say(f"Predicting {len(dataset.test):,} test images with {path.name} ...")
            found[name] = _predict(path, dataset)
            _write(folder / f"{path.name}.npz", fingerprints[name], found[name])
    return {name: found[name] for name in models}


def _dataset(card: ModelCard, run: Run | None, say: Say = lambda _: None) -> Dataset:
    """The dataset that models were tested on.

    Raises:
        UserError: it is not there, or has changed since.
    """
    dataset, without = dataset_of(card, run, "", 0.2, 0, say)
    if dataset is None:
        raise UserError(without)
    return dataset


def _predict(folder: Path, dataset: Dataset) -> Computed:
    classifier = open_classifier(folder)
    check_fits(classifier.card, dataset, folder)
    test = dataset.ordered(classifier.card.class_names).test
    answers, sure = [], []
    for start in range(0, len(test), classifier.batch_size):
        probabilities = classifier.probabilities(test.images[start : start + classifier.batch_size])  # (B,K)
        answers.append(predicted(probabilities))
        sure.append(probabilities.max(1))
    files = test.image_files
    names = [str(i) if files is None else data.relative_name(dataset.name, files[i]) for i in range(len(test))]
    return Computed(test.labels, np.concatenate(answers).astype(np.int64), np.concatenate(sure), np.array(names))


def _fingerprint(folder: Path) -> str:
    """Changes with the weights."""
    try:
        return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"The weights in '{folder}' cannot be read ({error.strerror}).") from None


def _read(path: Path, fingerprint: str) -> Computed | None:
    """What was stored for a model with these weights."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return (
                Computed(*(stored[name] for name in Computed._fields)) if str(stored["mark"]) == fingerprint else None
            )
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _write(path: Path, fingerprint: str, found: Computed) -> None:
    """Store it; where nothing can be written it is computed again the next time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            os.chmod(part, 0o644)
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(file, mark=np.array(fingerprint), **found._asdict())
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)


def _file_image(root: Path, name: str, card: ModelCard | None) -> np.ndarray | None:
    """One file of a dataset's folder. A name that leads out of the folder is not followed: runs may be anybody's."""
    path = Path(os.path.normpath(root / name))  # links inside of it are followed
    if not path.is_relative_to(root):
        return None
    try:
        if card is None:
            return to_array(path, SIZE, 3)
        return to_array(path, card.resolution, card.channels, "", card.fit, card.white)
    except UserError:
        return None


def _test_images(card: ModelCard | None, run: Run | None) -> np.ndarray:
    """All test images of a dataset that is no folder of files, read once as long as it cannot change.

    Raises:
        UserError: it is not at hand, or no model says which images it expects.
    """
    if card is None:
        raise UserError("The models of this run were removed.")
    name = run.config.dataset if run else data.part_at_hand(card.datasets)
    fraction, seed = (run.config.test_fraction, run.config.data_seed) if run else (0.2, 0)
    if data.describe(name, fraction).fingerprint:
        return _dataset(card, run).test.images[:]
    return _unchanging(name, card.resolution, fraction, seed, card.fit)


@lru_cache(maxsize=1)
def _unchanging(name: str, resolution: int, fraction: float, seed: int, fit: str) -> np.ndarray:
    if not data.source_of(name).at_hand(name):
        raise UserError(f"{name} is not on this machine.")
    return data.load(name, resolution=resolution, test_fraction=fraction, seed=seed, fit=fit).test.images[:]
