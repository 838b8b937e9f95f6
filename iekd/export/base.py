"""What a format is: how a model becomes a file, how that file answers, and the script that shows how to use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from iekd.errors import UserError
from iekd.models.artifact import ModelCard

if TYPE_CHECKING:
    from iekd.data.base import Dataset

Answer = Callable[[np.ndarray], np.ndarray]  # pixels (B,C,H,W) uint8 -> probabilities (B,K) float32
Say = Callable[[str], None]  # called with a sentence about what is being done


@dataclass(frozen=True)
class ExportJob:
    """What a format works with.

    folder: of the saved model; model, card: what it holds. dataset: its images, None where they are not on this
    machine. beside: folders of other models for the same classes by name, "teacher" among them if there is one.
    """

    folder: Path
    model: Any
    card: ModelCard
    dataset: Dataset | None
    license: str
    beside: Mapping[str, Path]
    say: Say


class Format(Protocol):
    """One way to write a model.

    name: what the user types. title: the same for people. summary: what it is good for, as a sentence. file: the name
    of its main file, from whose ending a format of one file is known; `whole_folder`: it only makes sense as a folder,
    in which `file` is the one to open. approximate: its probabilities may differ from the original's by more than
    rounding.
    """

    name: str
    title: str
    summary: str
    file: str
    whole_folder: bool
    approximate: bool

    def write(self, job: ExportJob, target: Path) -> None:
        """Write `target`, which is called like `file`, and whatever else the format needs beside it."""

    def open(self, target: Path, threads: int | None = None) -> Answer:
        """The written file at work; threads: CPU threads to use, None for as many as there are."""

    def script(self, card: ModelCard, file: str, script: str) -> str:
        """The text of `script`, which lies beside `file` and predicts for images."""

    def packages(self) -> tuple[str, ...]:
        """The packages whose versions the result depends on."""


def require(format_name: str, *packages: str) -> None:
    """Import packages that a format needs.

    Raises:
        UserError: one is missing.
    """
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise UserError(
                f"The format '{format_name}' needs the package '{package}', which cannot be imported ({error}). "
                f"Install it with: pip install {' '.join(packages)}."
            ) from None
