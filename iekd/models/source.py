"""Where weights come from and how they expect their images: checked without torch or a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from iekd.errors import UserError
from iekd.hub_names import PREFIX, parse_repository
from iekd.models.artifact import CARD
from iekd.models.model_folder import weights_in
from iekd.paths import absolute, as_typed
from iekd.plural import counted

Numbers = tuple[float, ...]
AUTO, TRAIN, RUN = "auto", "train", "run:"  # the words for a teacher; anything else is a path
HUB = PREFIX  # of the weights of a repository on the Hub
PRETRAINED = "pretrained"  # the weights that the library of a network has for it
PER_CHANNEL = "one number per channel with commas, such as 0.491,0.482,0.447"
FILE_ONLY = (
    "Teacher mean and std are for a teacher's file only; other teachers bring their own. "
    "Leave them out, or give the file as teacher from."
)


def check_source(text: str) -> str:
    """Where a network may come from: "auto", "train", "pretrained", "run:ID", "run:ID/LEARNER", "hf:ORG/NAME", or else
    the absolute path of a file or folder. Nothing is looked up; `check_path` does that.

    Raises:
        UserError: it is empty.
    """
    text = text.strip()
    if not text:
        raise _no_file(text)
    if text.startswith(HUB):
        return f"{HUB}{parse_repository(text)}"
    return absolute(text) if is_path(text) else text


def check_start(text: str) -> str:
    """The same for the first weights of a student, which are not those of a teacher that is looked for or trained.

    Raises:
        UserError: it is empty, or one of these words.
    """
    if text.strip() in (AUTO, TRAIN):
        raise UserError(
            f"Student from '{text.strip()}' cannot be used. Give 'pretrained', run:ID, run:ID/LEARNER, hf:ORG/NAME or "
            "the path of a file or a model's folder; leave it out for random weights."
        )
    return check_source(text)


def is_path(source: str | None) -> bool:
    """Whether weights come from a file or folder: everything but the words for other sources is a path."""
    return source not in (None, AUTO, TRAIN, PRETRAINED) and not str(source).startswith((RUN, HUB))


def check_path(text: str) -> str:
    """The absolute path of a file, or of a folder that holds a model of ours; its content is not looked at. Of a folder
    of timm or transformers it is the path of the weights inside.

    Raises:
        UserError: there is no such file, or it is a folder of something else.
    """
    text = text.strip()
    try:
        path = Path(absolute(text))  # not resolved: links have the telling names
        if text and (path.is_file() or (path / CARD).is_file()):
            return str(path)
        if text and (weights := weights_in(path)):
            return str(weights)
        file, found, _ = str(path).rpartition("::")  # one of several networks in a file: models/weight_files.py
        if found and Path(file).is_file():
            return str(path)
        is_folder = bool(text) and path.is_dir()
    except (OSError, RuntimeError, ValueError):  # a name that no file can have
        is_folder = False
    if is_folder:
        raise UserError(
            f"'{as_typed(text)}' is a folder without a model in it ('{CARD}' is missing). "
            "Give the file of weights itself."
        )
    raise _no_file(text)


def _no_file(text: str) -> UserError:
    return UserError(
        f"There is no file '{as_typed(text)}'. Give the path of a file of weights, such as resnet56.pth, "
        "or of a model's folder."
    )


def parse_numbers(field: str, text: str) -> Numbers:
    """ "0.49, 0.48,0.45" -> (0.49, 0.48, 0.45).

    Raises:
        UserError: something in it is not a number.
    """
    try:
        return tuple(float(word) for word in text.replace(";", ",").replace(" ", ",").split(",") if word)
    except ValueError:
        raise UserError(f"{field} '{text}' cannot be used: give {PER_CHANNEL}.") from None


def check_normalisation(mean: Sequence[float] | None, std: Sequence[float] | None, owner: str = "") -> None:
    """Mean and standard deviation of pixel values scaled to 0..1: both or neither, one number or three.

    owner: whose they are, such as "teacher ", for the message.

    Raises:
        UserError: one is missing, they differ in length, or they are of 0..255 pixel values or otherwise impossible.
    """
    both = {f"{owner}mean": mean, f"{owner}std": std}
    if all(values is None for values in both.values()):
        return
    for name, values in both.items():
        shown = name.capitalize()
        if values is None:
            other = next(n for n in both if n != name)
            raise UserError(f"{shown} is missing, but {other} is given. Give both or neither.")
        if len(values) not in (1, 3):
            raise UserError(
                f"{shown} has {counted(len(values), 'number')}. Give one, or three for red, green and blue."
            )
        listed = ",".join(f"{v:g}" for v in values)
        if max(values) > 1 and all(map(math.isfinite, values)):
            raise UserError(
                f"{shown} '{listed}' is not of pixel values from 0 to 1. If it is of 0 to 255, divide by 255."
            )
        least = 0.0 if values is mean else 1e-6
        if not all(least <= v <= 1 for v in values):
            rule = "from 0 to 1" if values is mean else "above 0, up to 1"
            raise UserError(f"{shown} '{listed}' cannot be used: it should be {rule}.")
    if len(mean or ()) != len(std or ()):
        raise UserError(f"{owner}mean and std have different numbers of values. Give as many of each.".capitalize())


def per_channel(values: Sequence[float], channels: int, shown: str) -> Numbers:
    """One number for each channel; a single one is used for all.

    Raises:
        UserError: there are more or fewer numbers than channels.
    """
    if len(values) not in (1, channels):
        raise UserError(
            f"{shown} has {counted(len(values), 'number')}, but the images have {counted(channels, 'channel')}. "
            f"Give {channels}."
        )
    return tuple(values) if len(values) == channels else tuple(values) * channels
