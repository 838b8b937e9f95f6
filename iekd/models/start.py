"""What a network begins with instead of random weights: somebody's, but for what other classes or images ask for.

The head, the layers whose shapes the number of classes decides, is new where the weights are of another number of
classes. The first layer of a network for images in colour takes grey ones. Everything else has to fit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from iekd.errors import UserError
from iekd.models import hub_configs, pretrained
from iekd.models.artifact import WEIGHTS, ModelCard
from iekd.models.class_names import class_names_on_hub, in_order_of, matched, some_of
from iekd.models.registry import build
from iekd.models.weight_files import StateDict, WeightFile, read_weights
from iekd.models.weight_values import COUNTER, check_values, size_text
from iekd.models.weights import Match, best_match, check_shapes, normalisation_of, notes_on, shapes
from iekd.plural import counted

Numbers = tuple[float, ...]
KINDS = {1: "grey", 3: "colour"}


@dataclass(frozen=True)
class Start:
    """Weights for a network of `name`; `new` are the names of its parameters that have none and are drawn at random.

    mean, std: what its images have to be normalised with, per channel, of pixels from 0 to 1; None: as the run likes.
    notes: what was taken and what not, in sentences.
    """

    name: str
    weights: StateDict
    new: tuple[str, ...] = ()
    mean: Numbers | None = None
    std: Numbers | None = None
    notes: tuple[str, ...] = ()

    def put_into(self, network: nn.Module) -> None:
        """Give a fresh network of that name these weights, and a new head torch's own random ones.

        Its library's may be meant for a thousand classes: EfficientNet's, for two, are 25 times as large as torch's
        and so wrong at first that the other layers forget what they knew (benchmarks/RESULTS.md).
        """
        network.load_state_dict({**network.state_dict(), **self.weights})
        for name in dict.fromkeys(name.rpartition(".")[0] for name in self.new):  # in order: they share one generator
            layer = network.get_submodule(name)
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                layer.reset_parameters()

    def loaded(self, network: nn.Module) -> frozenset[str]:
        """The names of the parameters that begin with these weights."""
        return frozenset(name for name, _ in network.named_parameters()) - set(self.new)


@dataclass(frozen=True)
class Starts:
    """Of a run's networks; None for random weights."""

    teacher: Start | None = None
    student: Start | None = None


def from_library(name: str, class_names: Sequence[str], channels: int, whose: str = "", sure: bool = False) -> Start:
    """A library's pretrained weights.

    Args:
        class_names: of the dataset. Where the Hub says what the outputs stand for, those for the same classes are put
            into that order, and others are new.
        whose: the network of whose weights a network `name` gets, such as "hf:ORG/NAME"; empty: its own.
        sure: whether the user has given the order of the classes, see `class_names.in_order_of`.

    Raises:
        UserError: there are none, they cannot be downloaded, or they do not fit.
    """
    whose = whose or name
    about = pretrained.pretrained(whose)
    given = pretrained.load(whose, channels)
    start = fitted(name, given, len(class_names), channels, f"The pretrained weights of {whose} ({about.title})")
    listed = class_names_on_hub(whose, class_names)
    if listed and not start.new:
        start = _in_order(start, listed, hub_configs.without_commit(whose), class_names, channels, sure)
    side = f"They are {about.title}, trained with images of {about.side} x {about.side} pixels."
    mean, std = (pretrained.for_channels(values, channels) for values in (about.mean, about.std))
    return replace(start, mean=mean, std=std, notes=(side, *start.notes))


def from_file(
    path: Path, name: str, class_names: Sequence[str], channels: int, mean: Numbers | None = None,
    std: Numbers | None = None, sure: bool = False,
) -> Start:  # fmt: skip
    """The weights of a file, or of a folder that this program has saved.

    Args:
        name: the architecture; the answer may have its variant with other shortcuts.
        class_names: of the dataset. Outputs for the same classes are put into that order; others are new.
        mean, std: what the network was trained with, where the user says so.
        sure: whether the user has given the order of the classes, see `class_names.in_order_of`.

    Raises:
        UserError: it cannot be read, or does not fit.
    """
    file, match = _read(path, name)
    whose = f"'{path}'"
    start = fitted(match.name, match.given, len(class_names), channels, whose)
    own = normalisation_of(file, match, channels)
    notes = [*notes_on(match, file, *own), *start.notes]
    start = replace(start, notes=tuple(notes))
    if not start.new and file.class_names:
        loose = file.card is None  # a list beside a file may be another's; what we have saved knows its classes
        start = _in_order(start, file.class_names, file.named_in, class_names, channels, sure and loose, loose)
    given, assumed = (mean, std) if mean and std else own, pretrained.normalisation(name)
    if not (given[0] and given[1]) and assumed:
        given = assumed
    found = [None if values is None else pretrained.for_channels(values, channels) for values in given]
    return replace(start, mean=found[0], std=found[1])


@lru_cache(maxsize=64)
def sizes_in(path: Path, name: str, changed: float) -> tuple[int | None, int | None]:
    """How many classes the weights in a file are of, by the shape of their last layer, None without one; and how many
    channels their images have, None where that cannot be told.

    changed: when it was, so that another file under the same name is read again.

    Raises:
        UserError: it cannot be read, or does not fit.
    """
    file, match = _read(path, name)
    may_differ = {*_head(match.name), *_first(match.name)}
    rest = {key: tensor for key, tensor in shapes(match.name).items() if key not in may_differ}
    check_shapes(file, match.name, match.given, rest)
    check_values(match.given, match.given, f"'{path}'")
    head = [match.given[key] for key in _head(match.name) if key in match.given]
    first = [match.given[key] for key in _first(match.name) if key in match.given and match.given[key].ndim == 4]
    return int(head[0].shape[0]) if head else None, int(first[0].shape[1]) if len(first) == 1 else None


def fitted(name: str, given: StateDict, num_classes: int, channels: int, whose: str) -> Start:
    """Weights by the network's own names as a start.

    whose: what has the weights, for messages; at the beginning of a sentence.

    Raises:
        UserError: anything but the head is missing or of another shape, or has values that are no numbers.
    """
    own, head = shapes(name, num_classes, channels), _head(name)
    outputs = next((int(given[key].shape[0]) for key in head if key in given), None)
    is_new = any(key not in given or given[key].shape != own[key].shape for key in head)
    new = head if is_new else ()
    weights = {key: given[key] for key in own if key in given and key not in new}
    notes = []
    if new:
        layer = new[0].rpartition(".")[0].removeprefix("network.")
        of = f"are of {counted(outputs, 'class')}" if outputs is not None else "have none"
        notes.append(f"The last layer ({layer}) is new and random: the weights {of}, the images of {num_classes}.")
    for key in _first(name):
        if key in weights and weights[key].shape != own[key].shape:
            weights[key] = _for_grey(weights[key], own[key], whose)
            notes.append(
                "The first layer's weights for red, green and blue were added up, because the images are grey."
            )
    for key, tensor in own.items():
        if key not in weights and key not in new and not key.endswith(COUNTER):
            raise UserError(f"{whose} cannot be used for {name}: {key} is missing. Is the model the right one?")
        if key in weights and weights[key].shape != tensor.shape:
            sizes = f"{key} is {size_text(weights[key])} and should be {size_text(tensor)}"
            raise UserError(f"{whose} cannot be used for {name}: {sizes}. Is the model the right one?")
    check_values(weights, own, whose)
    return Start(name, weights, tuple(new), notes=tuple(notes))


def save(start: Start, path: Path) -> None:
    """Write it as one file, which appears whole or not at all. Raises OSError if it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = {"name": start.name, "new": start.new, "mean": start.mean, "std": start.std, "notes": start.notes}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        save_file({k: v.contiguous() for k, v in start.weights.items()}, part, {"start": json.dumps(about)})
    except SafetensorError as error:  # which has the system's message, but is not an OSError
        raise OSError(str(error)) from None
    with open(part, "rb") as written:
        os.fsync(written.fileno())
    os.replace(part, path)


def read(path: Path) -> Start:
    """What `save` wrote.

    Raises:
        UserError: it is not there, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(file.metadata()["start"]).items()
            }
            return Start(weights={key: file.get_tensor(key) for key in file.keys()}, **about)  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read ({error}). Start a new run.") from None


def _read(path: Path, name: str) -> tuple[WeightFile, Match]:
    """(the file, the part of it that fits the network); one without a head will do where there is none with it."""
    file = _folder(path) if path.is_dir() else read_weights(path)
    try:
        return file, best_match(file, name)
    except UserError as strict:
        try:
            return file, best_match(file, name, _head)
        except UserError:
            raise strict from None


def _folder(path: Path) -> WeightFile:
    card, file = ModelCard.read(path), read_weights(path / WEIGHTS)
    return replace(file, path=path, card=card, class_names=card.class_names, named_in=f"'{path.name}'")


def _in_order(
    start: Start, listed: Sequence[str], where: str, class_names: Sequence[str], channels: int, sure: bool,
    refused: bool = False,
) -> Start:  # fmt: skip
    """The outputs in the dataset's order of classes; new ones where the weights are of other classes.

    refused: whether others are an error instead, unless the user is sure.
    """
    other = len(listed) == len(class_names) and matched(listed, class_names) is None
    if other and not refused and not sure:
        head = _head(start.name)
        note = f"The last layer is new and random: {where} knows other classes ({some_of(listed)})."
        weights = {key: value for key, value in start.weights.items() if key not in head}
        return replace(start, weights=weights, new=head, notes=(*start.notes, note))
    network = build(start.name, len(class_names), channels)
    start.put_into(network)
    moved = in_order_of(network, listed, where, class_names, sure)
    return replace(start, weights=dict(network.state_dict()), notes=(*start.notes, *moved)) if moved else start


def _for_grey(weight: Tensor, own: Tensor, whose: str) -> Tensor:
    """A first layer (c,3,h,w) for images of one channel; whatever else it is stays, and is refused by its shape."""
    if weight.ndim == 4 and weight.shape[1] == 3 and own.shape[1] == 1:
        return weight.sum(1, keepdim=True)
    if weight.ndim == 4 and weight.shape[1] == 1 and own.shape[1] == 3:
        raise UserError(
            f"{whose} was trained on grey images, but those of the dataset are in colour. Choose a dataset of grey "
            "images, or other weights."
        )
    return weight


@lru_cache(maxsize=64)
def _head(name: str) -> tuple[str, ...]:
    """The parameters whose shapes depend on the number of classes."""
    return _differing(shapes(name, 2, 3), shapes(name, 3, 3))


@lru_cache(maxsize=64)
def _first(name: str) -> tuple[str, ...]:
    """The parameters whose shapes depend on the number of channels of the images."""
    return _differing(shapes(name, 2, 3), shapes(name, 2, 1))


def _differing(one: StateDict, other: StateDict) -> tuple[str, ...]:
    return tuple(key for key, tensor in one.items() if tensor.shape != other[key].shape)
