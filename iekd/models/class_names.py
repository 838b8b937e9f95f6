"""Which output of a classifier stands for which class: lists of names that come with weights, and the order of outputs.

Two people who sort the same folders differently train networks whose outputs are in different orders. Where the names
are known, a network is brought into the order of the dataset (`in_order_of`).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iekd.data.registry import AS_TEXT
from iekd.errors import UserError
from iekd.models import hub_configs
from iekd.plural import counted

if TYPE_CHECKING:
    from torch import nn

BESIDE = (  # files beside weights that list their classes
    "classes.txt", "class_names.txt", "labels.txt", "class_to_idx.json", "classes.json", "id2label.json",
    "label_names.json", "class_names.json", "labels.json", "categories.json", "label_map.json", "config.json",
)  # fmt: skip
KEYS = (
    "class_to_idx",
    "class_names",
    "classes",
    "id2label",
    "idx_to_class",
    "label_names",
    "label2id",
    "names",
    "categories",
)
LARGEST = 16 * 2**20  # bytes
NUMBERED = (  # lines with the number of a class before or after its name, such as "0 cat" or "cat,0"
    re.compile(r"(?P<index>\d+)\s*[\s:,;=]\s*(?P<name>.*\S)", re.ASCII),
    re.compile(r"(?P<name>.*\S)\s*[\s:,;=]\s*(?P<index>\d+)", re.ASCII),
)
NAMED, NUMBERED_BY = ("name", "class_name", "label"), ("id", "index", "idx", "class_id", "category_id")  # in records
SETTING = "--class-order; on the page: Order of the classes"  # that is called class order in messages
NO_NAME = re.compile(r"\d+|LABEL_\d+", re.ASCII)  # what the Hub calls a class that has no name


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
        raise UserError(
            f"There are no class names in '{path}', or it is not clear which number each has. Give a text file with "
            "one name per line."
        )
    return names


def class_order_of(setting: Sequence[str]) -> tuple[str, ...]:
    """The names that the setting "class order" asks for: those given, or those in the file that it names.

    Raises:
        UserError: the file cannot be read.
    """
    if len(setting) != 1 or setting[0] == AS_TEXT:
        return tuple(setting)
    names = read_class_names(Path(setting[0]))
    return _without_numbers(names) or names


def gives_order(class_order: Sequence[str]) -> bool:
    """Whether a setting "class order" says which output is which class: it has names, and not only how to sort them."""
    return bool(class_order) and class_order[0] != AS_TEXT


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


def class_names_on_hub(name: str, classes: Sequence[str] = ()) -> tuple[str, ...] | None:
    """What the outputs of a network on the Hub stand for, as its config.json says; None where that is not said.

    classes: a dataset's. Numbers are names only where they are those of the dataset, such as digits.

    Raises:
        UserError: it has not been looked up.
    """
    listed = find_class_names(hub_configs.config_of(name)) if hub_configs.is_one(name) else None
    unnamed = listed is None or (all(map(NO_NAME.fullmatch, listed)) and matched(listed, classes) is None)
    return None if unnamed else listed


def find_class_names(value: Any) -> tuple[str, ...] | None:
    """The names in what a checkpoint or a JSON file holds; None if there are none.

    Args:
        value: a list of names, or of records such as {"id": 0, "name": "cat"}; a dict from name to index or from index
            to name; or a dict with one of these under a usual key such as "class_to_idx".
    """
    if isinstance(value, (list, tuple)) and value and all(isinstance(record, dict) for record in value):
        return _in_records(value)
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


def _in_records(records: Sequence[dict[str, Any]]) -> tuple[str, ...] | None:
    """The names in [{"id": 0, "name": "cat"}, ...], by their numbers from 0 or 1, or in their order if none has one."""
    names = [next((r[key] for key in NAMED if isinstance(r.get(key), str)), "") for r in records]
    numbers = [next((r[key] for key in NUMBERED_BY if key in r), None) for r in records]
    if not all(names) or len(set(names)) < len(names):
        return None
    if all(number is None for number in numbers):
        return tuple(names)
    by_number = {number: name for number, name in zip(numbers, names, strict=True) if type(number) is int}
    count = len(names)
    in_order = sorted(by_number) in ([*range(count)], [*range(1, count + 1)])  # else outputs may have gaps
    return tuple(by_number[number] for number in sorted(by_number)) if in_order else None


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


def in_order_of(
    model: nn.Module, listed: Sequence[str] | None, where: str, classes: Sequence[str], sure: bool = False
) -> list[str]:  # fmt: skip
    """Put a classifier's outputs into a dataset's order of classes, by the list of names that came with its weights.

    Args:
        model: with an output for each class; changed in place.
        listed: the names; None: no list. where: what holds the list, for messages.
        classes: the dataset's.
        sure: whether the user has given the order of the classes (`gives_order`), which then counts, whatever the list
            says: lists may be wrong, and `classes` are in the order that was given.
    Returns:
        What to tell the user, in sentences.
    Raises:
        UserError: the list has other names.
    """
    if listed is None:
        return []
    if len(listed) != len(classes) or len(set(listed)) != len(listed):
        count = len(set(listed))
        sizes = f"{counted(count, 'name')} for {counted(len(classes), 'output')}"
        return [f"The list of classes in {where} was ignored: it has {sizes}."]
    names = matched(listed, classes)
    if names is None and all(NO_NAME.fullmatch(name) for name in listed):
        return []
    if names == tuple(classes):
        return []
    if sure:
        other = "other names" if names is None else f"another order ({some_of(names)})"
        return [f"The list of classes in {where} has {other} and was ignored: the class order is the one given."]
    if names is None:
        raise _of_others(listed, where, classes)
    reordered(model, names, classes)
    return [
        f"Its classes are in another order ({some_of(names)}), as {where} says; "
        "the outputs were put into the dataset's."
    ]


def check_listed(listed: Sequence[str], where: str, classes: Sequence[str]) -> None:
    """Check that a list of as many names has those of a dataset, in any order. Raises UserError if it has not."""
    if matched(listed, classes) is None and not all(NO_NAME.fullmatch(name) for name in listed):
        raise _of_others(listed, where, classes)


def _of_others(listed: Sequence[str], where: str, classes: Sequence[str]) -> UserError:
    return UserError(
        f"The classes that {where} lists ({some_of(listed)}) are not those of the dataset ({some_of(classes)}). Choose "
        f"weights of these classes. {advice_on_names()}"
    )


def advice_on_names() -> str:
    """What to do where two lists may mean the same classes, in a sentence."""
    return f"If only the names differ, give the dataset's names in the order of the outputs as class order ({SETTING})."


def some_of(names: Sequence[str]) -> str:
    """A list of names for a message: the first five."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def matched(given: Sequence[str], classes: Sequence[str]) -> tuple[str, ...] | None:
    """A list of names in a dataset's own spelling, if they are its classes but for numbers before or after all names,
    capitals, spaces, signs and leading zeros; else None."""
    for names in filter(None, (tuple(given), _without_numbers(given))):
        if sorted(names) == sorted(classes):
            return names
        # classes such as "A" and "a" differ in their capitals alone, which then count
        plain = _plain if len(set(map(_plain, classes))) == len(classes) else _plain_but_capitals
        by_plain = {plain(name): name for name in classes}
        found = tuple(by_plain.get(plain(name), "") for name in names)
        if len(by_plain) == len(classes) and sorted(found) == sorted(classes):
            return found
    return None


def _without_numbers(lines: Sequence[str]) -> tuple[str, ...] | None:
    """The names in the order of their numbers, which count up from 0 or 1; None if these are no numbered lines."""
    for pattern in NUMBERED:
        found = [match for match in map(pattern.fullmatch, lines) if match]
        by_index = {int(match["index"]): match["name"] for match in found}
        numbers = sorted(by_index)
        if len(found) == len(lines) > 1 and numbers in ([*range(len(lines))], [*range(1, len(lines) + 1)]):
            names = tuple(by_index[number] for number in numbers)
            if len(set(names)) == len(names):  # else the number is a part of the name, as in "grade 1", "grade 2"
                return names
    return None


def _plain(name: str) -> str:
    return _plain_but_capitals(name.casefold())


def _plain_but_capitals(name: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKC", name) if c.isalnum())
    return re.sub(r"^0+(?=\d+$)", "", plain)
