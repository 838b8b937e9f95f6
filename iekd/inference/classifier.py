"""A trained classifier that answers batches of images, whatever it comes from: `open_classifier`.

A model's folder and anyone's file of weights are run by torch, an ONNX file by onnxruntime. Leaves out: how files
become images (images.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from iekd.config.run import make_config
from iekd.data.decoding import CROP
from iekd.engine.scoring import energy
from iekd.errors import UserError
from iekd.inference.onnx_file import SUFFIX, OnnxFile, open_onnx
from iekd.models.aliases import canonical
from iekd.models.artifact import CARD, WEIGHTS, ModelCard, load_model
from iekd.models.model_folder import weights_in
from iekd.models.source import check_normalisation, per_channel
from iekd.plural import counted

ONNX_BATCH = 64
SUM_TOLERANCE = 1e-3  # of probabilities, whose sum is one


@dataclass(frozen=True)
class Scores:
    """Of B images and K classes.

    probabilities: (B,K) float32. energies: (B,) `engine.scoring.energy`; None where the model does not give its logits.
    """

    probabilities: np.ndarray
    energies: np.ndarray | None


class OpenedModel(ABC):
    """What every classifier has.

    Attributes:
        card: class names in the order of the outputs, and which images it expects.
        size: bytes of its file. batch_size: images at a time that suit its device, which `device` names.
    """

    card: ModelCard
    size: int
    batch_size: int
    device: str

    @abstractmethod
    def scores(self, images: np.ndarray) -> Scores:
        """Scores of images (B,H,W,C) uint8, as `card` describes them."""

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """(B,K) float32 of images (B,H,W,C) uint8."""
        return self.scores(images).probabilities

    def unlike(self, scores: Scores) -> list[bool | None]:
        """Of each image, whether it is unlike the training images; None where that is not known."""
        if scores.energies is None or self.card.energy_threshold is None:
            return [None] * len(scores.probabilities)
        unlike: list[bool | None] = (scores.energies < self.card.energy_threshold).tolist()
        return unlike


@dataclass(frozen=True)
class Described:
    """What the user says of a file that does not say it itself; None where nothing was said.

    model: a network's name. mean, std: of pixel values scaled to 0..1. fit: crop, pad or squash.
    """

    model: str | None = None
    class_names: tuple[str, ...] | None = None
    resolution: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: str | None = None


OPTIONS = {"class_names": "--classes", "resolution": "--resolution", "mean": "--mean", "std": "--std", "fit": "--fit"}


def open_classifier(path: Path, device: str = "cpu", described: Described = Described()) -> OpenedModel:
    """The classifier in a folder or file.

    Args:
        path: a model's folder, an ONNX file, or a file of anyone's weights.
        device: "auto", "cpu", "cuda" or "mps".
        described: what a file that is not ours does not say.
    Raises:
        UserError: missing, unreadable, not a classifier, or something that it does not say was not said either.
    """
    make_config(device=device, resolution=described.resolution, fit=described.fit)  # checks them
    check_normalisation(described.mean, described.std)
    if path.suffix.lower() == SUFFIX and not path.is_dir():
        return OnnxClassifier(open_onnx(path, device), described)
    from iekd.engine.accelerate import choose_device

    place = choose_device(device)
    if path.is_dir() and not (path / CARD).is_file():
        path = weights_in(path) or path
    if path.is_dir() or (path.name == CARD and path.is_file()):
        folder = path if path.is_dir() else path.parent
        model, card = load_model(folder)
        _check_described(folder, card, described)
        return TorchClassifier(model, card, (folder / WEIGHTS).stat().st_size, place)
    return _of_weights(path, place, described)


class TorchClassifier(OpenedModel):
    """A torch module with logits, in float32."""

    def __init__(self, model: Any, card: ModelCard, size: int, device: Any) -> None:
        from iekd.engine.accelerate import channels_last
        from iekd.engine.learner import evaluation_batch_size
        from iekd.models.normalise import Normalise

        self.card, self.size, self.place, self.device = card, size, device, str(device)
        self.model = channels_last(model.eval(), device)
        self.normalise = Normalise(card.mean, card.std).to(device)
        self.batch_size = evaluation_batch_size(device, card.resolution)

    def scores(self, images: np.ndarray) -> Scores:
        import torch

        from iekd.engine.accelerate import whole_float32

        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())  # (B,C,H,W)
        with torch.inference_mode(), whole_float32(self.place, torch.float32):
            logits = self.model(self.normalise(pixels.to(self.place))).logits.float()  # (B,K)
            return Scores(logits.softmax(-1).cpu().numpy(), energy(logits).cpu().numpy())


class OnnxClassifier(OpenedModel):
    """An ONNX file. Pixels go in as bytes where it normalises them itself, as ours do."""

    def __init__(self, file: OnnxFile, described: Described = Described()) -> None:
        """Raises UserError if neither the file nor `described` says what is needed to use it."""
        if file.card:
            _check_described(file.path, file.card, described)
        self.file, self.card = file, file.card or _foreign_card(file, described)
        self.size, self.device = file.path.stat().st_size, file.device
        self.batch_size = max(1, min(ONNX_BATCH, ONNX_BATCH * 64 * 64 // self.card.resolution**2))

    def scores(self, images: np.ndarray) -> Scores:
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))  # (B,C,H,W)
        if not self.file.takes_bytes:
            mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (self.card.mean, self.card.std))
            pixels = (pixels.astype(np.float32) / 255 - mean) / std
        outputs = self.file.run(pixels)
        answers = outputs[0]
        if answers.ndim > 2 and set(answers.shape[2:]) == {1}:  # (B,K,1,1), as after a global pooling
            answers = answers.reshape(answers.shape[:2])
        if answers.ndim != 2 or len(answers) != len(images):
            raise UserError(
                f"'{self.file.path}' gives numbers of shape {list(answers.shape)} for {counted(len(images), 'image')}, "
                "not one number per image and class. Give a classifier with an output of logits or probabilities."
            )
        if answers.shape[1] != len(self.card.class_names):
            raise UserError(
                f"'{self.file.path}' gives {answers.shape[1]} numbers for an image, but {len(self.card.class_names)} "
                "classes are named. Name all its classes."
            )
        if self.file.card is None and not _are_probabilities(answers):
            answers = np.exp(answers - answers.max(-1, keepdims=True))
            answers /= answers.sum(-1, keepdims=True)
        energies = None
        if self.file.gives_logits:
            from scipy.special import logsumexp

            energies = logsumexp(outputs[-1], axis=-1)
        return Scores(answers.astype(np.float32), energies)


def _are_probabilities(values: np.ndarray) -> bool:
    return bool((values >= 0).all() and (abs(values.sum(-1) - 1) < SUM_TOLERANCE).all())


def _check_names(names: tuple[str, ...]) -> None:
    """Raises UserError if these cannot be the classes of a classifier."""
    if len(names) < 2:
        raise UserError(f"A classifier has two classes or more, but only {list(names)} are named. Name all of them.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"The class '{twice[0]}' is named twice. Name each class once, in the order of the outputs.")


def _check_described(path: Path, card: ModelCard, described: Described) -> None:
    """What a model of ours says itself cannot be said otherwise: it would answer wrongly."""
    if described.model is not None and canonical(described.model) != card.model:
        raise UserError(f"The model in '{path}' is a {card.model}, not a {described.model}. Leave --model out.")
    said = [option for name, option in OPTIONS.items() if getattr(described, name) is not None]
    if said:
        raise UserError(f"The model in '{path}' says itself what it needs. Leave {' and '.join(said)} out.")


def _foreign_card(file: OnnxFile, described: Described) -> ModelCard:
    """A card for an ONNX file of another tool."""
    names, side = described.class_names or file.class_names, file.height or described.resolution
    if described.model is not None:
        raise UserError(f"'{file.path}' holds its network itself. Leave --model out.")
    if described.resolution not in (None, side):
        raise UserError(f"'{file.path}' takes images of {side} x {file.width}. Leave --resolution out.")
    missing = []
    if names is None:
        missing.append("names of its classes: give --classes")
    if side is None:
        missing.append("size of its images: give --resolution")
    if not file.takes_bytes and described.mean is None:
        missing.append("mean and standard deviation of its pixels: give --mean and --std, or 0 and 1 if there are none")
    if missing:
        raise UserError(
            f"'{file.path}' was not exported by this program and does not say the {'; the '.join(missing)}."
        )
    if file.takes_bytes and described.mean is not None:
        raise UserError(f"'{file.path}' takes bytes and normalises them itself. Leave --mean and --std out.")
    if file.height != file.width:
        raise UserError(
            f"'{file.path}' takes images of {file.height} x {file.width}. Only square ones can be given, and their "
            "channels come before height and width."
        )
    channels = file.channels or len(described.mean or (0, 0, 0))
    if channels not in (1, 3):
        raise UserError(
            f"'{file.path}' takes images of {counted(channels, 'channel')}. Only grey (1) and colour (3) can be given."
        )
    return _card("onnx", names or (), channels, side or 0, replace(described, fit=described.fit or file.fit), 0)


def _card(
    model: str, names: tuple[str, ...], channels: int, resolution: int, described: Described, params: int
) -> ModelCard:
    _check_names(names)
    return ModelCard(
        model=model, datasets=(), class_names=names, channels=channels, resolution=resolution,
        mean=per_channel(described.mean or (0.0,), channels, "Mean"),
        std=per_channel(described.std or (1.0,), channels, "Std"), accuracy=None, params=params,
        fit=described.fit or CROP,
    )  # fmt: skip


def _of_weights(path: Path, device: Any, described: Described) -> OpenedModel:
    """A file of anyone's weights."""
    from iekd.models.weight_files import read_weights, split_selection
    from iekd.models.weights import fit_weights

    file = read_weights(path)
    if file.card:
        _check_described(path, file.card, described)
    names, said = described.class_names or file.class_names, file.card or file.config
    wanted, side = described.model or (said.model if said else ""), described.resolution
    if file.config and side is None:
        side = file.config.resolution
    missing = []
    if not wanted:
        missing.append("network: give --model, such as resnet56")
    if names is None:
        missing.append("names of its classes: give --classes")
    if file.card is None and side is None:
        missing.append("size of the images that it was trained with: give --resolution")
    if missing:
        raise UserError(f"The file '{path}' does not say the {'; the '.join(missing)}.")
    channels = file.card.channels if file.card else len(described.mean or (0, 0, 0))
    fitted = fit_weights(file, wanted, len(names or ()), channels)
    card = file.card
    if card is None:
        own = Described(mean=described.mean or fitted.mean, std=described.std or fitted.std, fit=described.fit)
        if own.mean is None:
            raise UserError(
                f"The file '{path}' does not say the mean and standard deviation of its pixels: give --mean and --std."
            )
        params = sum(p.numel() for p in fitted.model.parameters())
        card = _card(fitted.name, names or (), channels, side or 0, own, params)
    return TorchClassifier(fitted.model, card, split_selection(path)[0].stat().st_size, device)
