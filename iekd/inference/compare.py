"""What several classifiers say of the same images, side by side.

Predictions run on the CPU, one image at a time, which is also how the shown latency is measured. Leaves out: why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from iekd.data.decoding import ImageSource
from iekd.errors import DataError, UserError
from iekd.inference.images import as_trained, in_folder, resized
from iekd.inference.predict import Prediction, load_predictor
from iekd.models.artifact import ModelCard
from iekd.paths import typed
from iekd.plural import counted

TEACHER = "teacher"  # its name among models
NAMED = 20  # classes that are listed by name


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

    def to_json(self) -> dict[str, Any]:
        """What the command line and the endpoint say of it, without its name."""
        said = {name: prediction.to_json() for name, prediction in self.predictions.items()}
        notes = {"error": self.error or "", "unlike": self.unlike}
        return {"predictions": said, **{key: text for key, text in notes.items() if text}}

    @property
    def is_unlike(self) -> bool | None:
        """Whether the picture is unlike the training images: more than half of those that decide say so.

        None where nobody can tell.
        """
        known = {name: p.unlike for name, p in self.predictions.items() if p.unlike is not None}
        decide = [known[name] for name in who_decides(known)]
        return 2 * sum(decide) > len(decide) if decide else None

    @property
    def unlike(self) -> str:
        """One sentence where the picture is unlike the training images; empty where it is not, or nobody can tell."""
        if not self.is_unlike:
            return ""
        return unlike_words([name for name, p in self.predictions.items() if p.unlike is not None])


def who_decides(names: Collection[str]) -> list[str]:
    """Of the networks that can tell whether an image is unlike the training images, those that count.

    The teacher alone, because a small network is often just as sure of what it has never seen (benchmarks/RESULTS.md);
    without a teacher all of them.
    """
    return [TEACHER] if TEACHER in names else list(names)


def unlike_words(names: Collection[str]) -> str:
    """What is said of an image that is unlike the training images. names: of the networks that can tell."""
    deciding = who_decides(names)
    who = "the teacher is" if TEACHER in deciding else "the network is"
    who = "most of these networks are" if len(deciding) > 1 else who
    return (
        f"Unlike the training images: {who} less sure of this picture than of 95 % of the test images. It may show "
        "none of the classes, and what is predicted then means nothing."
    )


def image_files(paths: Sequence[str]) -> list[Path]:
    """Paths as they were typed, with the images of a folder, and of the folders in it, in place of the folder.

    Raises:
        UserError: a folder has no images.
    """
    found: list[Path] = []
    for text in paths:
        path = Path(typed(text)).expanduser()
        if not path.is_dir():
            found.append(path)
            continue
        for image in in_folder(path, Counter()):
            if image.error:
                raise UserError(image.error)
            found.append(Path(image.name))
    return found


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
    loaded = {name: load_predictor(folder, device) for name, folder in models.items()}
    first_name, first = next(iter(loaded.items()))
    for name, other in loaded.items():
        if other.card.class_names != first.card.class_names:
            raise UserError(
                f"'{name}' and '{first_name}' do not know the same classes ({len(other.card.class_names)} and "
                f"{len(first.card.class_names)}), so they cannot be compared. Choose models of one dataset."
            )
    results = []
    for shown, source in images:
        try:
            seen, inverted = as_trained(source, first.card, shown, match_background)
        except DataError as error:
            results.append(ImageResult(shown, None, error=str(error)))
            continue
        answers = {}
        for name, classifier in loaded.items():
            image, card = seen, classifier.card
            if _shape(card) != _shape(first.card):
                image = resized(source, card, shown)
                image = 255 - image if inverted else image
            answers[name] = classifier.predict(image)
        results.append(ImageResult(shown, seen, inverted, answers))
    return results


def classes_known(models: Mapping[str, Path]) -> str:
    """Which classes these networks can name, as a sentence; all know the same."""
    first = next(iter(models.values()))
    names = (ModelCard.read(first) if first.is_dir() else load_predictor(first).card).class_names
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
    return f"These networks can name {counted(len(names), 'class')} and nothing else: {shown}."


def _shape(card: ModelCard) -> tuple[object, ...]:
    return (card.resolution, card.channels, card.fit, card.white)
