"""What several classifiers say of the same images, side by side.

Predictions run on the CPU, one image at a time, which is also how the shown latency is measured. Leaves out: why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from iekd.data.decoding import SUFFIXES, ImageSource, to_array
from iekd.errors import DataError, UserError
from iekd.inference.predict import Prediction, load_predictor
from iekd.models.artifact import ModelCard
from iekd.paths import as_typed, typed

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

    @property
    def unlike(self) -> str:
        """One sentence where the picture is unlike the training images; empty where it is not, or nobody can tell.

        The teacher decides, because a small network is often just as sure of what it has never seen
        (benchmarks/RESULTS.md); without a teacher, more than half of the students.
        """
        known = {name: p.unlike for name, p in self.predictions.items() if p.unlike is not None}
        if "teacher" in known:
            known, who = {"teacher": known["teacher"]}, "the teacher is"
        else:
            who = "most of these networks are" if len(known) > 1 else "the network is"
        if 2 * sum(known.values()) <= len(known):
            return ""
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
        inside = [
            file for file in sorted(path.rglob("*"))
            if file.suffix.lower() in SUFFIXES and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]  # fmt: skip
        if not inside:
            raise UserError(
                f"The folder '{as_typed(str(path))}' has no images ({', '.join(sorted(SUFFIXES))}). "
                "Give a folder of images, or image files."
            )
        found += inside
    return found


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
    loaded = {name: load_predictor(folder) for name, folder in models.items()}
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
            seen = _as_trained(source, first.card, shown)
        except DataError as error:
            results.append(ImageResult(shown, None, error=str(error)))
            continue
        inverted = match_background and _opposite_background(seen, first.card)
        seen = 255 - seen if inverted else seen
        answers = {}
        for name, classifier in loaded.items():
            image, card = seen, classifier.card
            if _shape(card) != _shape(first.card):
                image = _as_trained(source, card, shown)
                image = 255 - image if inverted else image
            answers[name] = classifier.predict(image)
        results.append(ImageResult(shown, seen, inverted, answers))
    return results


def classes_known(models: Mapping[str, Path]) -> str:
    """Which classes these networks can name, as a sentence; all know the same."""
    names = ModelCard.read(next(iter(models.values()))).class_names
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
    return f"These networks can name {len(names)} classes and nothing else: {shown}."


def _shape(card: ModelCard) -> tuple[object, ...]:
    return (card.resolution, card.channels, card.fit, card.white)


def _as_trained(source: ImageSource, card: ModelCard, name: str) -> np.ndarray:
    """An image as those that the model was trained with."""
    return to_array(source, card.resolution, card.channels, name, card.fit, card.white)


def _opposite_background(seen: np.ndarray, card: ModelCard) -> bool:
    """True for a grey picture with bright edges where the training images' were dark, or the other way round."""
    if card.channels != 1 or card.background is None:
        return False
    edges = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]]).mean() / 255
    return bool(edges > 0.6 and card.background < 0.3) or bool(edges < 0.3 and card.background > 0.7)
