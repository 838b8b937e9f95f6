"""Which output of a classifier stands for which class: lists of names that come with weights, and the order of outputs.

Two people who sort the same folders differently train networks whose outputs are in different orders. Where the names
are known, a network is brought into the order of the dataset.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iekd.errors import UserError

if TYPE_CHECKING:
    from torch import nn

BESIDE = (  # files beside weights that list their classes
    "classes.txt", "class_names.txt", "labels.txt", "class_to_idx.json", "classes.json", "id2label.json",
    "label_names.json", "config.json",
)  # fmt: skip
KEYS = ("class_to_idx", "class_names", "classes", "id2label", "idx_to_class", "label_names", "label2id", "names")
LARGEST = 16 * 2**20  # bytes


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a file: one per line, or JSON as torchvision (class_to_idx) and the Hub (id2label) write it.

    Raises:
        UserError: no such file, or no names in it.
    """
    try:
        text = path.expanduser().read_bytes()[:LARGEST].decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text"
        raise UserError(
            f"The class order '{path}' cannot be read ({reason}). Name all classes with commas, or give a text file "
            "with one name per line."
        ) from None
    names: tuple[str, ...] | None
    try:
        names = find_class_names(json.loads(text))
    except ValueError:
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not names:
        raise UserError(f"There are no class names in '{path}'. Give a text file with one name per line.")
    return names


def class_names_beside(weights: Path) -> tuple[tuple[str, ...], str] | None:
    """(names, the file's name) of a list of classes in the folder of a file of weights; None if there is none."""
    for name in BESIDE:
        path = weights.parent / name
        if path.is_file():
            try:
                return read_class_names(path), name
            except UserError:
                continue
    return None


def find_class_names(value: Any) -> tuple[str, ...] | None:
    """The names in what a checkpoint or a JSON file holds; None if there are none.

    Args:
        value: a list of names, a dict from name to index or from index to name, or a dict with one of these under
            a usual key such as "class_to_idx".
    """
    if isinstance(value, (list, tuple)):
        return tuple(value) if value and all(isinstance(name, str) for name in value) else None
    if not isinstance(value, dict):
        return None
    for key in KEYS:
        if key in value and (names := find_class_names(value[key])):
            return names
    pairs = list(value.items())
    if pairs and all(isinstance(index, int) and isinstance(name, str) for name, index in pairs):
        by_index = {index: name for name, index in pairs}
    else:
        try:
            by_index = {int(index): name for index, name in pairs if isinstance(name, str)}
        except (TypeError, ValueError):
            return None
    if len(by_index) != len(pairs) or sorted(by_index) != list(range(len(by_index))):
        return None
    return tuple(by_index[index] for index in range(len(by_index))) or None


def reordered(model: nn.Module, known: Sequence[str], wanted: Sequence[str]) -> nn.Module:
    """The same classifier with its outputs in another order: the rows of its last linear layer are moved.

    Args:
        model: changed in place. known: its class names, in the order of its outputs. wanted: the same names in the
            order that is asked for.
    Raises:
        UserError: these are not the same names, or it has no linear layer with an output for each class.
    """
    import torch
    from torch import nn

    if tuple(known) == tuple(wanted):
        return model
    if sorted(known) != sorted(wanted) or len(set(known)) != len(known):
        raise UserError(
            f"The model knows other classes ({', '.join(known[:5])}, ...) than {', '.join(wanted[:5])}, ..."
        )
    rows = torch.tensor([list(known).index(name) for name in wanted])
    heads = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == len(known)]
    if not heads:
        raise UserError(
            "The order of the model's classes cannot be changed: it has no linear layer with one output each."
        )
    with torch.no_grad():
        heads[-1].weight.copy_(heads[-1].weight[rows])
        if heads[-1].bias is not None:
            heads[-1].bias.copy_(heads[-1].bias[rows])
    return model


def matched(given: Sequence[str], classes: Sequence[str]) -> tuple[str, ...] | None:
    """A list of names in a dataset's own spelling, if they are its classes but for capitals, spaces and underlines."""
    by_plain = {_plain(name): name for name in classes}
    found = tuple(by_plain.get(_plain(name), "") for name in given)
    return found if len(by_plain) == len(classes) and sorted(found) == sorted(classes) else None


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
