"""The held-out images on which the landing page compares the shipped students, and what the networks predict for them.

They are chosen by one rule, so that nobody can pick the flattering ones: of the test images that exactly one of the two
students classifies correctly, the first in the order of the test split, gains and losses in the proportion that they
have over the whole split. `benchmarks/showcase.py` writes the file; the page only reads it, and opens without torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iekd.config.methods import BASELINE, explores
from iekd.engine.scoring import is_right, predicted
from iekd.errors import UserError

FILE = "showcase.json"
SHOWN = 12  # images
TOP = 3  # classes of each prediction


@dataclass(frozen=True)
class Shown:
    """One image: its row in the test split, its class, and by model the most probable classes with probabilities."""

    index: int
    label: str
    predictions: dict[str, list[tuple[str, float]]]


@dataclass(frozen=True)
class Showcase:
    """What the landing page tells.

    dataset: whose test split the images are of; it needs no download.
    models: the folders among the shipped models, by the name that a run would give them: "teacher", "baseline", an IE
    method, and others to stand beside it.
    tested: how many test images the accuracies in the cards are of; the test split may be a sample of them.
    images: in the test split, of which both students classify `both` correctly, only the plain one `lost`, only the IE
    student `gained`, and none `neither`.
    """

    dataset: str
    models: dict[str, str]
    tested: int
    images: int
    both: int
    gained: int
    lost: int
    neither: int
    shown: tuple[Shown, ...]

    @property
    def taught(self) -> str:
        """The method of the IE student."""
        return _taught(self.models)


def make_showcase(
    dataset: str, models: Mapping[str, str], probabilities: Mapping[str, np.ndarray], labels: np.ndarray,
    class_names: tuple[str, ...], tested: int | None = None,
) -> Showcase:  # fmt: skip
    """The showcase of a test split; only benchmarks/showcase.py makes one.

    Args:
        models: folder by name: "teacher", "baseline", an IE method, and others.
        probabilities: by the same names, (N,K) of the whole test split, in its order.
        labels: (N,) the right classes.
        tested: see Showcase; None: as many as there are labels.
    """
    taught = _taught(models)
    plain_right, taught_right = (is_right(predicted(probabilities[name]), labels) for name in (BASELINE, taught))
    rows = chosen_rows(plain_right, taught_right, SHOWN)

    def top(answers: np.ndarray) -> list[tuple[str, float]]:
        return [(class_names[k], round(float(answers[k]), 4)) for k in np.argsort(-answers, kind="stable")[:TOP]]

    return Showcase(
        dataset, dict(models), tested or len(labels), len(labels), int((plain_right & taught_right).sum()),
        int((taught_right & ~plain_right).sum()), int((plain_right & ~taught_right).sum()),
        int((~plain_right & ~taught_right).sum()),
        tuple(
            Shown(row, class_names[labels[row]], {name: top(probabilities[name][row]) for name in models})
            for row in rows
        ),
    )  # fmt: skip


def _taught(models: Mapping[str, str]) -> str:
    return next(filter(explores, models))


def chosen_rows(plain_right: np.ndarray, taught_right: np.ndarray, most: int) -> list[int]:
    """The rows that are shown, in order: at most `most`, gains and losses in their proportion.

    Args:
        plain_right, taught_right: (N,) bool, whether each student classifies an image correctly.
    """
    gains, losses = np.flatnonzero(taught_right & ~plain_right), np.flatnonzero(plain_right & ~taught_right)
    count = min(most, len(gains) + len(losses))
    share = len(gains) / max(1, len(gains) + len(losses))
    of_gains = min(len(gains), max(count - len(losses), round(count * share)))
    return sorted(int(row) for row in (*gains[:of_gains], *losses[: count - of_gains]))


def write_showcase(folder: Path, showcase: Showcase) -> None:
    """Write it among the shipped models, as benchmarks/showcase.py does."""
    (folder / FILE).write_text(json.dumps(asdict(showcase), indent=1) + "\n")


def read_showcase(folder: Path) -> Showcase | None:
    """The showcase among the shipped models in `folder`; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE
    try:
        values: Any = json.loads(path.read_text())
        shown = tuple(
            Shown(one["index"], one["label"], {n: [(c, p) for c, p in top] for n, top in one["predictions"].items()})
            for one in values.pop("shown")
        )
        show = Showcase(**{"tested": values["images"], **values}, shown=shown)
        if not {"teacher", BASELINE} <= show.models.keys() or not any(map(explores, show.models)):
            raise ValueError("it names no teacher, no plain student or no IE student")
        return show
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"'{path}' cannot be read ({error}). Write it again with benchmarks/showcase.py.") from None
