"""What several classifiers predict for the same images, side by side. Leaves out: why (explain/).

Images are read and predicted in batches as `iekd predict` does it (predict_files.py).
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from iekd.data.decoding import ImageSource, open_image
from iekd.data.folder_names import without_trifles
from iekd.errors import DataError, UserError
from iekd.inference.classifier import OpenedModel
from iekd.inference.images import FoundImage, as_trained, resized
from iekd.inference.predict import TOP, Prediction, best, load_predictor
from iekd.inference.predict_files import answers_of, read_in_batches
from iekd.models.artifact import TEACHER, ModelCard
from iekd.plural import counted

NAMED = 20  # classes that are listed by name
MOST_BATCH = 64


@dataclass(frozen=True)
class ImageResult:
    """One image: what the networks saw (H,W,C) uint8 and what each said; or why it could not be read.

    inverted: bright and dark were swapped first, because the training images have dark backgrounds.
    right: its class, where the folder that it is in is named as one; else "".
    classes: the most likely ones of all models together; shares: of each model, its probabilities of those, 0..1.
    teachers: which of the models are teachers.
    original: the image itself, made smaller, as the bytes of a PNG or JPEG; None unless it was asked for.
    """

    name: str
    seen: np.ndarray | None
    inverted: bool = False
    predictions: dict[str, Prediction] = field(default_factory=dict)
    error: str | None = None
    right: str = ""
    classes: tuple[str, ...] = ()
    shares: dict[str, tuple[float, ...]] = field(default_factory=dict)
    teachers: tuple[str, ...] = (TEACHER,)
    original: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        """What the command line and the endpoint say of it, without its name."""
        said = {name: prediction.to_json() for name, prediction in self.predictions.items()}
        notes = {"error": self.error or "", "unlike": self.unlike}
        return {"predictions": said, **{key: text for key, text in notes.items() if text}}

    @property
    def is_unlike(self) -> bool | None:
        """Whether the image is unlike the training images: more than half of those that decide say so.

        None where nobody can tell.
        """
        known = {name: p.unlike for name, p in self.predictions.items() if p.unlike is not None}
        decide = [known[name] for name in who_decides(known, self.teachers)]
        return 2 * sum(decide) > len(decide) if decide else None

    @property
    def unlike(self) -> str:
        """One sentence where the image is unlike the training images; empty where it is not, or nobody can tell."""
        if not self.is_unlike:
            return ""
        return unlike_words([name for name, p in self.predictions.items() if p.unlike is not None], self.teachers)


def who_decides(names: Collection[str], teachers: Collection[str] = (TEACHER,)) -> list[str]:
    """Of the networks that can tell whether an image is unlike the training images, those that count.

    Teachers alone, because a small network is often just as sure of what it has never seen (benchmarks/RESULTS.md);
    without a teacher all of them.
    """
    return [name for name in names if name in teachers] or list(names)


def unlike_words(names: Collection[str], teachers: Collection[str] = (TEACHER,)) -> str:
    """What is said of an image that is unlike the training images. names: of the networks that can tell."""
    deciding = who_decides(names, teachers)
    who = "the teacher is" if deciding[0] in teachers else "the network is"
    who = "most of these networks are" if len(deciding) > 1 else who
    return (
        f"Unlike the training images: {who} less sure of this image than of 95 % of the test images. It may show "
        "none of the classes, and what is predicted then means nothing."
    )


def compare(
    models: Mapping[str, Path], images: Sequence[tuple[str, ImageSource]], match_background: bool = True,
    device: str = "cpu",
) -> list[ImageResult]:  # fmt: skip
    """Every model's answer for every image. An image that cannot be read has its reason instead of answers.

    Args:
        models: shown name -> folder of a saved model, or an ONNX file; all must know the same classes.
        images: (shown name, anything that data.images.open_image takes).
        match_background: see `images.as_trained`.
    Raises:
        UserError: a model cannot be loaded, or the models do not belong together.
    """
    loaded = open_alike(models, device)
    found = (FoundImage(name, partial(_itself, source)) for name, source in images)  # type: ignore[arg-type]
    return list(compare_found(loaded, found, match_background))


def open_alike(models: Mapping[str, Path], device: str = "cpu") -> dict[str, OpenedModel]:
    """The models, opened, by their shown names.

    Raises:
        UserError: one cannot be loaded, or they do not know the same classes.
    """
    loaded = {name: load_predictor(folder, device).classifier for name, folder in models.items()}
    first_name, first = next(iter(loaded.items()))
    for name, other in loaded.items():
        if why := other_classes(name, other.card, first_name, first.card):
            raise UserError(f"{why} Choose models of one dataset.")
    return loaded


def other_classes(name: str, card: ModelCard, first_name: str, first: ModelCard) -> str:
    """Why a model cannot be compared with another, as a sentence; "" if both know the same classes."""
    ours, theirs = card.class_names, first.class_names
    if ours == theirs:
        return ""
    if set(ours) == set(theirs):
        return f"'{name}' and '{first_name}' do not have the same order of classes, so they cannot be compared."
    strange = next((c for c in ours if c not in theirs), None)
    example = f"only the first knows '{strange}'" if strange else "the first knows fewer"
    return (
        f"'{name}' and '{first_name}' do not know the same classes ({len(ours)} and {len(theirs)}; {example}), so they "
        "cannot be compared."
    )


def compare_found(
    models: Mapping[str, OpenedModel], found: Iterable[FoundImage], match_background: bool = True, thumbnail: int = 0
) -> Iterator[ImageResult]:  # fmt: skip
    """`compare` with models that are open and have the same classes, and images that come one by one.

    Args:
        thumbnail: pixels of the longer side of `original`; 0 for none.
    """
    first = next(iter(models.values()))
    names = first.card.class_names
    shapes = {_shape(classifier.card): classifier.card for classifier in models.values()}
    teachers = tuple(name for name, classifier in models.items() if TEACHER in (name, classifier.card.role))

    def read(name: str, source: ImageSource | DataError) -> tuple[ImageResult, list[np.ndarray]]:
        """What is known before anything is predicted, and the image of each shape."""
        try:
            if isinstance(source, DataError):
                raise source
            seen, inverted = as_trained(source, first.card, name, match_background)
            others = [resized(source, card, name) for shape, card in shapes.items() if shape != _shape(first.card)]
            small = original(source, thumbnail, name) if thumbnail else None
        except DataError as error:
            return ImageResult(name, None, error=str(error), teachers=teachers), []
        right = class_in(name, names)
        result = ImageResult(name, seen, inverted, right=right, teachers=teachers, original=small)
        return result, [seen, *(255 - other if inverted else other for other in others)]

    order = list(shapes)
    batch = min(MOST_BATCH, *(classifier.batch_size for classifier in models.values()))
    for read_images in read_in_batches(found, read, batch):
        pixels = [images for _, images in read_images if images]
        answers = {
            name: _timed(classifier, [images[order.index(_shape(classifier.card))] for images in pixels])
            for name, classifier in models.items() if pixels
        }  # fmt: skip
        at = 0
        for result, images in read_images:
            if not images:
                yield result
                continue
            rows = {name: found.probabilities[at] for name, found in answers.items()}
            said = {
                name: Prediction(best(models[name], row, TOP), answers[name].milliseconds, answers[name].unlike[at])
                for name, row in rows.items()
            }
            likely = likely_classes(np.stack(list(rows.values())))
            shares = {name: tuple(float(row[k]) for k in likely) for name, row in rows.items()}
            yield replace(result, predictions=said, classes=tuple(names[k] for k in likely), shares=shares)
            at += 1


class _Answers(NamedTuple):
    """Of B images: probabilities (B,K), and whether each is unlike the training images; milliseconds for each."""

    probabilities: np.ndarray
    unlike: list[bool | None]
    milliseconds: float


def _timed(classifier: OpenedModel, images: Sequence[np.ndarray]) -> _Answers:
    start = time.perf_counter()
    found = answers_of(classifier, images)
    return _Answers(*found, 1000 * (time.perf_counter() - start) / len(images))


def likely_classes(probabilities: np.ndarray, most: int = TOP) -> list[int]:
    """Of (M,K) probabilities of M models for one image: the classes with the highest mean, and every model's best."""
    mean = probabilities.mean(0)
    chosen = {*np.argsort(-mean, kind="stable")[:most].tolist(), *probabilities.argmax(1).tolist()}
    return sorted(chosen, key=lambda k: (-mean[k], k))


def class_in(name: str, class_names: Sequence[str]) -> str:
    """The class that an image's folder is named after; "" if none. The innermost folder counts first.

    Capitals, and signs that cannot be in a folder's name, make no difference: T-shirt_top is T-shirt/top. Where two
    classes would fit, none is taken.
    """
    folders = PurePosixPath(name).parts[:-1]
    by_letters: dict[str, list[str]] = {}
    for known in class_names:
        by_letters.setdefault(_letters(known), []).append(known)
    for end in range(len(folders), 0, -1):
        for text in (folders[end - 1], "/".join(folders[max(0, end - 2) : end])):
            if text in class_names:
                return text
            fitting = by_letters.get(_letters(text), [])
            if len(fitting) == 1:
                return fitting[0]
    return ""


def _letters(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", without_trifles(text))) or text


def original(source: ImageSource, side: int, name: str = "") -> bytes:
    """An image made smaller for a page: JPEG, or PNG where it is small already.

    Args:
        side: pixels of the longer side.
    Raises:
        DataError: it cannot be read.
    """
    image = open_image(source, name, side)
    small = max(image.size) <= side
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if small else "JPEG", **({} if small else {"quality": 85}))
    return buffer.getvalue()


def _itself(source: ImageSource) -> ImageSource:
    return source


def classes_named(names: Sequence[str]) -> str:
    """Which classes networks can name, as a sentence."""
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
    return f"These networks can name {counted(len(names), 'class')} and nothing else: {shown}."


def _shape(card: ModelCard) -> tuple[object, ...]:
    return (card.resolution, card.channels, card.fit, card.white)
