"""What models predict for uploaded images, zips of images and examples: small enough to be kept for every page of it.

In memory are a batch of images at a time; of each image stay two small pictures and the predictions. Leaves out: which
models there are (runs/choices.py) and how it looks (ui/render/comparison.py).
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Union

import numpy as np
from PIL import Image

from iekd.errors import UserError
from iekd.inference.classifier import OpenedModel
from iekd.inference.compare import ImageResult, compare_found, other_classes
from iekd.inference.images import FoundImage, in_uploads
from iekd.inference.predict import Predictor, load_predictor
from iekd.models.artifact import ModelCard

SIDE = 160  # pixels of the longer side of a picture that is shown
PIXELS = 64  # of the side of a picture whose pixels can be told apart
REPEATS = 7  # predictions of one image; the latency shown is the shortest, which other work has disturbed least


@dataclass(frozen=True)
class Example:
    """An image that the page has itself: its name, file or pixels (H,W,C), and its class where that is known."""

    name: str
    image: Union[Path, np.ndarray]
    right: str = ""


@dataclass(frozen=True)
class ComparedImage:
    """One image.

    key: the same for the same image whatever is compared with it. label: its name without folders.
    result: without the pixels that were seen.
    side: of those, in pixels; seen: as a PNG or JPEG, at most SIDE wide; empty if the image cannot be read.
    """

    key: str
    label: str
    result: ImageResult
    side: int = 0
    seen: bytes = b""


@dataclass(frozen=True)
class ComparedModel:
    """A model: its card, the bytes of its file, and how long one image takes on the processor (0: not measured)."""

    card: ModelCard
    size: int
    milliseconds: float = 0.0


@dataclass(frozen=True)
class ComparedUploads:
    """All that was found.

    problems: by model, why it was left out. left_out: whether there were more images than are compared at a time.
    others: files in zips that are no images, by ending. notes: sentences on how zips were read.
    """

    models: Mapping[str, ComparedModel]
    images: tuple[ComparedImage, ...]
    problems: Mapping[str, str]
    left_out: bool = False
    others: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        return next(iter(self.models.values())).card.class_names


def compare_uploads(
    models: Mapping[str, Path], uploads: Sequence[Path], examples: Sequence[Example] = (), most: int = 32,
    device: str = "cpu",
) -> ComparedUploads:  # fmt: skip
    """Predict images with every model that has the classes of the first one that can be used.

    Args:
        models: name -> folder of a saved model, or a file that `open_classifier` takes.
        uploads: files of images, and zips of them.
        most: images; those after it are left out.
    Raises:
        UserError: none of the models can be used.
    """
    loaded, problems = open_all(models, device)
    keys: list[str] = []
    known: dict[str, str] = {}  # of examples, the right class by key
    others, notes = Counter[str](), list[str]()
    left_out = False

    def found() -> Iterator[FoundImage]:
        nonlocal left_out
        for path, one in in_uploads(uploads, others, notes):
            if len(keys) == most:
                left_out = True
                return
            keys.append(_key(str(path), one.name))
            yield one
        for example in examples:
            if len(keys) == most:
                left_out = True
                return
            image = example.image
            keys.append(_key(str(image) if isinstance(image, Path) else image.tobytes().hex(), example.name))
            known[keys[-1]] = example.right
            # `FoundImage` has functions for what is read late; an array is there already
            yield FoundImage(example.name, image if isinstance(image, Path) else lambda image=image: image)  # type: ignore[misc]

    images: list[ComparedImage] = []
    first: np.ndarray | None = None
    for result in compare_found({n: p.classifier for n, p in loaded.items()}, found(), thumbnail=SIDE):
        key, seen = keys[len(images)], result.seen
        first = seen if first is None else first
        label = result.name if key in known else PurePosixPath(result.name).name
        right = result.right or known.get(key, "")
        small = replace(result, seen=None, right=right if right in _names(loaded) else "")
        images.append(
            ComparedImage(key, label, small)
            if seen is None
            else ComparedImage(key, label, small, seen.shape[0], _picture(seen))
        )  # fmt: skip
    # on ZeroGPU they predict on a GPU, but what is shown is the processor's time
    times = latencies({name: load_predictor(models[name]) for name in loaded}, first) if first is not None else {}
    facts = {n: ComparedModel(p.card, p.bytes, times.get(n, 0.0)) for n, p in loaded.items()}
    return ComparedUploads(facts, tuple(images), problems, left_out, dict(others), tuple(notes))


def open_all(models: Mapping[str, Path], device: str = "cpu") -> tuple[dict[str, Predictor], dict[str, str]]:
    """(the models that can be compared with one another, why each of the others cannot).

    Raises:
        UserError: none can be used.
    """
    loaded: dict[str, Predictor] = {}
    problems: dict[str, str] = {}
    for name, path in models.items():
        try:
            one = load_predictor(path, device)
        except UserError as error:
            problems[name] = str(error).replace(str(path), name)  # pages do not say where files are
            continue
        reference = next(iter(loaded), "")
        why = other_classes(name, one.card, reference, loaded[reference].card) if loaded else ""
        if why:
            problems[name] = why
        else:
            loaded[name] = one
    if not loaded:
        raise UserError(" ".join(problems.values()) or "No model is chosen. Choose at least one.")
    return loaded, problems


def latencies(models: Mapping[str, Predictor], image: np.ndarray) -> dict[str, float]:
    """Milliseconds that one image takes, by model. What is built and run alike gets the same: how it was taught makes
    a network no faster.

    Args:
        image: (H,W,C) uint8; models that expect another size get a black one.
    """
    alike = {name: (type(one.classifier), one.card.model, _shape(one.classifier)) for name, one in models.items()}
    times: dict[object, list[float]] = {}
    for _ in range(REPEATS):
        for name, one in models.items():
            shape = _shape(one.classifier)
            shown = image if image.shape == shape else np.zeros(shape, np.uint8)
            times.setdefault(alike[name], []).append(one.predict(shown).milliseconds)
    return {name: min(times[alike[name]]) for name in models}


def _shape(classifier: OpenedModel) -> tuple[int, int, int]:
    card = classifier.card
    return (card.resolution, card.resolution, card.channels)


def _names(loaded: Mapping[str, Predictor]) -> tuple[str, ...]:
    return next(iter(loaded.values())).card.class_names


def _picture(seen: np.ndarray) -> bytes:
    """PNG while pixels can be told apart, else JPEG, which is a fifth of it."""
    buffer, image = io.BytesIO(), Image.fromarray(seen.squeeze(2) if seen.shape[2] == 1 else seen)
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, "PNG" if image.width <= PIXELS else "JPEG", quality=90)
    return buffer.getvalue()


def _key(place: str, name: str) -> str:
    return hashlib.sha256(f"{place}\0{name}".encode(errors="replace")).hexdigest()[:12]
