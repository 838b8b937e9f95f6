"""A trained classifier on disk: `model.safetensors` (weights) + `model.json` (everything needed to use them).

Used for the shipped checkpoints, the models of a run and exports alike. Leaves out: optimiser state.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from uuid import uuid4

from iekd.data.decoding import CROP, Fit
from iekd.errors import UserError
from iekd.models import hub_configs
from iekd.models.aliases import canonical

if TYPE_CHECKING:
    from iekd.data.base import Dataset, DatasetInfo

WEIGHTS, CARD = "model.safetensors", "model.json"
TEACHER = "teacher"  # a role; and what the teacher is called among the models of a run, an export or a comparison
LARGEST = 4096  # pixels of a side that a card may ask for


@dataclass(frozen=True)
class ModelCard:
    """What `model.json` says.

    model: a name of the registry. datasets: names of the datasets whose images and classes it was made for.
    mean, std: per channel, of pixel values scaled to 0..1. background: brightness of the training images' edges, 0..1.
    accuracy: percent on the test split.
    role: TEACHER or "student"; method and seed: how it was trained. command: what trained it.
    origin: a fingerprint of a teacher's training, to know when it can be used again.
    inheritance_channels: of an IE student, the channels that inherit in each stage that is split, the last stage last.
    energy_threshold: an image whose negative energy (`engine.scoring.energy`) is below it is unlike the training
        images: one test image in twenty is; None where it is not known.
    fit, white: how files became its training images, see `data.decoding.to_array`.
    architecture: of a network of the Hub its config.json as text, so that it can be built without the Hub.
    """

    model: str
    datasets: tuple[str, ...]
    class_names: tuple[str, ...]
    channels: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    accuracy: float | None
    params: int
    background: float | None = None
    role: str = "student"
    method: str = "baseline"
    seed: int = 0
    command: str = ""
    origin: str = ""
    inheritance_channels: tuple[tuple[int, ...], ...] = ()
    fit: str = CROP
    white: float | None = None
    energy_threshold: float | None = None
    architecture: str = ""

    @staticmethod
    def read(folder: Path) -> ModelCard:
        """The card of a model's folder.

        Raises:
            UserError: missing or not a card.
        """
        path = folder / CARD
        try:
            values = json.loads(path.read_text())
        except FileNotFoundError:
            raise UserError(f"There is no model in '{folder}': '{CARD}' is missing.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"'{path}' is not a model card ({error}). Export the model again.") from None
        return ModelCard.from_json(values, path)

    @staticmethod
    def from_json(values: Any, path: Path) -> ModelCard:
        """The card that `model.json` holds; `path` is for messages. Fields of later versions are ignored.

        Raises:
            UserError: not a card.
        """
        try:
            if not isinstance(values, dict):
                raise TypeError("it is not an object")
            known = {f.name for f in fields(ModelCard)}
            card = ModelCard(**{k: _frozen(v) for k, v in values.items() if k in known})
            if isinstance(card.model, str):  # old names stay usable
                card = replace(card, model=canonical(card.model))
            if wrong := next(_impossible(card), ""):
                raise TypeError(f"'{wrong}' cannot be {json.dumps(values[wrong])[:80]}")
        except TypeError as error:
            raise UserError(f"'{path}' is not a model card ({error}). Export the model again.") from None
        return card

    def make_known(self) -> None:
        """Let its network be built here also if it is the Hub's or a folder's, without either.

        Raises:
            UserError: it is none that can be built.
        """
        if self.architecture:
            config = hub_configs.check_config(self.model, json.loads(self.architecture))
            hub_configs.remember({self.model: config})


def check_classes(card: ModelCard, dataset: Dataset | DatasetInfo, folder: Path) -> None:
    """Check that a model knows a dataset's classes; their order may differ, see `class_names.reordered`.

    Raises:
        UserError: it knows others.
    """
    if sorted(card.class_names) != sorted(dataset.class_names):
        raise UserError(
            f"The classes of the model in '{folder}', {len(card.class_names)} in all, are not those of {dataset.name}. "
            "Choose one that was trained on this dataset."
        )


def check_fits(card: ModelCard, dataset: Dataset, folder: Path) -> None:
    """Check that a model can be used with a dataset.

    Raises:
        UserError: its classes are not the dataset's, or it expects grey images and gets colour, or the reverse.
    """
    check_classes(card, dataset, folder)
    if card.channels != dataset.channels:
        kinds = {1: "grey", 3: "colour"}
        raise UserError(
            f"The model in '{folder}' is for {kinds[card.channels]} images, but those of {dataset.name} are "
            f"{kinds[dataset.channels]}. Choose one that was trained on this dataset."
        )


def save_model(folder: Path, model: Any, card: ModelCard, keep: bool = False) -> None:
    """Write a torch module and its card; the folder appears whole or not at all, also where several processes save one.

    keep: leave one that is there by then; else it is replaced.
    """
    from safetensors.torch import save_file

    if hub_configs.is_one(card.model) and not card.architecture:
        card = replace(card, architecture=json.dumps(hub_configs.config_of(card.model)))
    part = folder.with_name(f".{folder.name}.{uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, part / WEIGHTS)
        (part / WEIGHTS).chmod(0o644)  # safetensors writes 0600; another user may serve what this one trained
        (part / CARD).write_text(json.dumps(asdict(card), indent=2) + "\n")
        for name in (WEIGHTS, CARD):
            with open(part / name, "rb") as written:
                os.fsync(written.fileno())
        while not _renamed(part, folder) and not keep:
            old = part.with_name(f".{folder.name}.{uuid4().hex}.part")
            with suppress(FileNotFoundError):  # another process is replacing it too
                folder.rename(old)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _renamed(part: Path, folder: Path) -> bool:
    """Give a folder its name; False if there is one of that name already."""
    try:
        part.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def load_model(folder: Path) -> tuple[Any, ModelCard]:
    """(torch module in evaluation mode on the CPU, its card).

    Raises:
        UserError: missing, broken, or weights that do not fit the network the card names.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from iekd.models.registry import build

    card = ModelCard.read(folder)
    card.make_known()
    model = build(card.model, len(card.class_names), card.channels)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"The weights in '{folder}' cannot be loaded ({reason}). Export the model again.") from None
    return model.eval(), card


def _impossible(card: ModelCard) -> Iterator[str]:
    """The fields without which nothing works and that hold what cannot be: cards come from anywhere."""

    def numbers(values: Any) -> bool:
        return isinstance(values, tuple) and all(isinstance(v, (int, float)) and math.isfinite(v) for v in values)

    def texts(values: Any) -> bool:
        return isinstance(values, tuple) and all(isinstance(v, str) for v in values)

    possible = {
        "model": isinstance(card.model, str), "datasets": texts(card.datasets),
        "class_names": texts(card.class_names) and len(card.class_names) > 0, "channels": card.channels in (1, 3),
        "resolution": isinstance(card.resolution, int) and 0 < card.resolution <= LARGEST,
        "mean": numbers(card.mean) and len(card.mean) == card.channels,
        "std": numbers(card.std) and len(card.std) == card.channels and min(card.std) > 0,
        "fit": card.fit in get_args(Fit), "command": isinstance(card.command, str),
        "architecture": _is_object(card.architecture),
    }  # fmt: skip
    yield from (name for name, fine in possible.items() if not fine)


def _is_object(text: Any) -> bool:
    """Whether it is empty, or the text of a JSON object."""
    try:
        return text == "" or isinstance(json.loads(text), dict)
    except (TypeError, ValueError):
        return False


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples, inside as well."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
