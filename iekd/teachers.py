"""Where a run's teacher comes from: the shipped checkpoints, a teacher that an earlier run trained, or nowhere yet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from iekd.config import RunConfig
from iekd.data.registry import FOLDER, describe
from iekd.errors import UserError
from iekd.models.artifact import CARD, ModelCard


def checkpoints_dir() -> Path:
    """The shipped models: `$IEKD_CHECKPOINTS_DIR`, `checkpoints/` beside the package, or the copy inside a wheel."""
    if own := os.environ.get("IEKD_CHECKPOINTS_DIR"):
        return Path(own)
    beside = Path(__file__).parents[1] / "checkpoints"
    return beside if beside.is_dir() else Path(__file__).parent / "_checkpoints"


def shipped_models() -> dict[str, ModelCard]:
    """Every readable shipped model by the name of its folder."""
    return dict(_cards(checkpoints_dir()))


def origin(config: RunConfig) -> str:
    """A fingerprint of all that decides how this run would train its teacher.

    Two runs with the same fingerprint may share one; the split is part of it, so that no teacher has seen the test
    images of a run that uses it.
    """
    parts = config.model_dump(
        include={
            "dataset", "teacher", "teacher_epochs", "batch_size", "lr", "momentum", "weight_decay", "schedule",
            "milestones", "nesterov", "limit_train", "validation_fraction", "test_fraction", "resolution", "data_seed",
        }
    )  # fmt: skip
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()[:16]


def find_teacher(config: RunConfig, runs_dir: Path) -> Path | None:
    """The folder of a trained teacher for this configuration, or None if the run has to train it."""
    datasets = {config.dataset}
    if not config.dataset.startswith(FOLDER):
        datasets.add(describe(config.dataset).part_of)
    for name, card in _cards(checkpoints_dir()):
        fits = card.role == "teacher" and card.model == config.teacher and not datasets.isdisjoint(card.datasets)
        if fits and config.resolution in (None, card.resolution):
            return checkpoints_dir() / name
    trained = teacher_folder(config, runs_dir)
    return trained if (trained / CARD).is_file() else None


def teacher_folder(config: RunConfig, runs_dir: Path) -> Path:
    """Where a teacher trained by this run is kept for later ones."""
    return runs_dir / "teachers" / f"{config.teacher}-{origin(config)}"


def _cards(root: Path) -> Iterator[tuple[str, ModelCard]]:
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            yield folder.name, ModelCard.read(folder)
        except UserError:
            continue  # a stray folder is not a model; asking for it by name says why
