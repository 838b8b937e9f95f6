"""The models that come with the program: one folder each, read-only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from iekd.errors import UserError
from iekd.models.artifact import ModelCard
from iekd.paths import checkpoints_dir


def shipped_models() -> dict[str, ModelCard]:
    """Every readable shipped model by the name of its folder."""
    return dict(cards(checkpoints_dir()))


def shipped_folder(name: str | Path) -> Path | None:
    """The folder of a shipped model by its name, as `iekd models` lists them; None if there is none of that name."""
    return checkpoints_dir() / name if str(name) in shipped_models() else None


def cards(root: Path) -> Iterator[tuple[str, ModelCard]]:
    """The name and card of every readable model among the folders in `root`."""
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            yield folder.name, ModelCard.read(folder)
        except UserError:
            continue  # a stray folder is not a model; asking for it by name says why
