"""Predictions for any number of images: decoded in threads, predicted in batches, and handed on as they come.

In memory are two batches of images, whatever the number of images is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, Union

import numpy as np

from iekd.data.control_groups import cores
from iekd.data.decoding import ImageSource
from iekd.errors import DataError, UserError
from iekd.inference.classifier import OpenedModel, open_classifier
from iekd.inference.images import FoundImage, as_trained, find_images
from iekd.inference.predict import TOP, best, top_json
from iekd.models.shipped import shipped_folder

T = TypeVar("T")
ENCODED = 64 * 2**20  # bytes of files from archives that wait to be decoded, from which a batch is not filled up


@dataclass(frozen=True)
class FilePrediction:
    """What a model predicts for one image.

    Attributes:
        name: where the image is.
        top: (label, score in 0..1), best first; empty if the image cannot be read.
        label: the best label; empty if its score is below the threshold, or the image cannot be read.
        unlike: whether the image is unlike the training images; None where the model does not know that.
        inverted: whether bright and dark were swapped, because the training images have the opposite background.
        error: why the image cannot be read; empty if it can.
    """

    name: str
    top: tuple[tuple[str, float], ...] = ()
    label: str = ""
    unlike: bool | None = None
    inverted: bool = False
    error: str = ""

    @property
    def unsure(self) -> bool:
        """Whether no label is given because the best score is below the threshold."""
        return bool(self.top) and not self.label

    def to_json(self) -> dict[str, Any]:
        if self.error:
            return {"path": self.name, "error": self.error}
        return {
            "path": self.name, "label": self.label, "predictions": top_json(list(self.top)), "unlike": self.unlike,
            "inverted": self.inverted,
        }  # fmt: skip


def predict(
    model: Union[str, Path, OpenedModel], paths: Union[str, Path, Iterable[Union[str, Path]]], *, top: int = TOP,
    threshold: float = 0.0, batch: int | None = None, device: str = "auto", match_background: bool = True,
) -> Iterator[FilePrediction]:  # fmt: skip
    """Predict images in files, folders, zip and tar archives, in their order and one by one.

    Args:
        model: a model's folder, an ONNX file, the name of a shipped checkpoint, or what `open_classifier` returned.
        paths: one path, or several.
        top: labels for each image. threshold: score from 0 to 1 below which an image gets no label.
        batch: images at a time; None for what suits the device.
        device: "auto", "cpu", "cuda" or "mps"; a classifier that is open already stays where it is.
        match_background: see `images.as_trained`.
    Yields:
        One prediction for each image. One that cannot be read has an `error` instead of labels.
    Raises:
        UserError: the model cannot be used, or a value is out of range. It is raised at once, not at the first image.
    """
    check_options(top, threshold, batch)
    classifier = (
        model if isinstance(model, OpenedModel) else open_classifier(shipped_folder(model) or Path(model), device)
    )
    names = [paths] if isinstance(paths, (str, Path)) else paths
    return predict_found(classifier, find_images(map(str, names)), top, threshold, batch, match_background)


def check_options(top: int, threshold: float, batch: int | None) -> None:
    """Raises UserError if one is out of range."""
    if top < 1:
        raise UserError(f"Top '{top}' cannot be used: give how many labels each image gets, 1 or more.")
    if not 0 <= threshold <= 1:
        raise UserError(f"Threshold '{threshold:g}' cannot be used: give a score from 0 to 1.")
    if batch is not None and batch < 1:
        raise UserError(f"Batch '{batch}' cannot be used: give how many images are predicted at a time, 1 or more.")


def predict_found(
    classifier: OpenedModel, found: Iterable[FoundImage], top: int = TOP, threshold: float = 0.0,
    batch: int | None = None, match_background: bool = True,
) -> Generator[FilePrediction, None, None]:  # fmt: skip
    """`predict` with images that were found by somebody else."""
    card = classifier.card

    def decode(name: str, source: ImageSource | DataError) -> _Decoded:
        if isinstance(source, DataError):
            return _Decoded(name, error=str(source))
        try:
            return _Decoded(name, *as_trained(source, card, name, match_background))
        except DataError as error:
            return _Decoded(name, error=str(error))

    for images in read_in_batches(found, decode, batch or classifier.batch_size):
        readable = [image.pixels for image in images if image.pixels is not None]
        answers = zip(*answers_of(classifier, readable), strict=True) if readable else iter(())
        for image in images:
            if image.pixels is None:
                yield FilePrediction(image.name, error=image.error)
                continue
            probabilities, unlike = next(answers)
            labels = tuple(best(classifier, probabilities, top))
            label = labels[0][0] if labels[0][1] >= threshold else ""
            yield FilePrediction(image.name, labels, label, unlike, image.inverted)


def answers_of(classifier: OpenedModel, images: Sequence[np.ndarray]) -> tuple[np.ndarray, list[bool | None]]:
    """((B,K) probabilities of images (H,W,C) uint8; of each, whether it is unlike the training images).

    Raises:
        UserError: the model answers with NaN or infinity.
    """
    scores = classifier.scores(np.stack(images))
    if not np.isfinite(scores.probabilities).all():
        raise UserError("The model answers with values that are no numbers. Get or export it again.")
    return scores.probabilities, classifier.unlike(scores)


@dataclass(frozen=True)
class _Decoded:
    """pixels: (H,W,C) uint8, or None if the image cannot be read."""

    name: str
    pixels: np.ndarray | None = None
    inverted: bool = False
    error: str = ""


def read_in_batches(
    found: Iterable[FoundImage], read: Callable[[str, ImageSource | DataError], T], batch: int
) -> Iterator[list[T]]:  # fmt: skip
    """What `read` makes of each image's name and source, in batches; while one is used, the next is read.

    Args:
        read: called in threads; gets the error instead of the source where an image cannot be had.
    """
    waiting: deque[list[Future[T]]] = deque()
    pool = ThreadPoolExecutor(min(32, cores()))
    try:
        for images in _batches(found, batch):
            waiting.append([pool.submit(read, name, source) for name, source in images])
            if len(waiting) > 1:
                yield [image.result() for image in waiting.popleft()]
        while waiting:
            yield [image.result() for image in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(found: Iterable[FoundImage], batch: int) -> Iterator[list[tuple[str, ImageSource | DataError]]]:
    """(name, source or what is wrong with it) of some images at a time."""
    images: list[tuple[str, ImageSource | DataError]] = []
    encoded = 0
    for image in found:
        source: ImageSource | DataError
        try:
            source = image.source if isinstance(image.source, Path) else image.source()
        except DataError as error:
            source = error
        if isinstance(source, bytes):
            encoded += len(source)
        images.append((image.name, DataError(image.error) if image.error else source))
        if len(images) == batch or encoded > ENCODED:
            yield images
            images, encoded = [], 0
    if images:
        yield images
