"""What leaves this machine inside an exported file: without the places of its files."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import PurePath

from iekd.data import short_name
from iekd.models.artifact import ModelCard


def shareable(card: ModelCard) -> ModelCard:
    """The card in which folders and files have their names, and not where they lie."""
    return replace(card, datasets=tuple(map(short_name, card.datasets)), command=without_places(card.command))


def without_places(command: str) -> str:
    """A command whose paths, alone or behind a scheme such as `folder:`, are cut down to their last part."""
    try:
        words = shlex.split(command)
    except ValueError:  # not one of ours
        return ""
    return shlex.join(_without_place(word) for word in words)


def _without_place(word: str) -> str:
    scheme, colon, rest = word.partition(":")
    path = rest if colon else scheme
    if not path.startswith(("/", "~", "./", "../")):
        return word
    return f"{f'{scheme}:' if colon else ''}.../{PurePath(path).name}"
