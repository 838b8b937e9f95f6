"""Predictions as rows of CSV: what they are called, and which columns each model has."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from iekd.results.predictions import harmless

Top = Sequence[tuple[str, float]]  # (label, score in 0..1), best first


@dataclass(frozen=True)
class PredictionRow:
    """One image.

    said: of each model, the label that it is sure of ("" for none) and its best labels; empty if there is an error.
    unlike: whether the image is unlike the training images; None where that is not known.
    inverted: whether bright and dark were swapped first.
    right: its class, "" where that is not known; None in a table without that column.
    """

    name: str
    said: Sequence[tuple[str, Top]] = ()
    unlike: bool | None = None
    inverted: bool = False
    error: str = ""
    right: str | None = None


class PredictionTable:
    """The columns for some models: of the image, then a group of each model.

    Args:
        top: labels of each model.
        models: their names, which their columns begin with; one without a name needs none.
        labelled: whether there is a column of right classes.
    """

    def __init__(self, top: int, models: Sequence[str] = ("",), labelled: bool = False) -> None:
        self.top = top
        group = ["prediction", *(f"{kind}_{i}" for i in range(1, top + 1) for kind in ("label", "score"))]
        self.header = [
            "image", "unlike", "inverted", "error", *(["right"] if labelled else []),
            *(harmless(f"{model} {column}" if model else column) for model in models for column in group),
        ]  # fmt: skip

    def cells(self, row: PredictionRow) -> list[str]:
        """The texts of one row. None can be taken for a formula by a spreadsheet."""
        unlike = "" if row.unlike is None else _word(row.unlike)
        cells = [harmless(row.name), unlike, "" if row.error else _word(row.inverted), harmless(row.error)]
        if row.right is not None:
            cells.append(harmless(row.right))
        for label, best in row.said:
            cells.append(harmless(label))
            for name, score in best[: self.top]:
                cells += [harmless(name), f"{score:.6f}"]
            cells += [""] * 2 * (self.top - len(best))
        return cells + [""] * (len(self.header) - len(cells))


def to_csv(table: PredictionTable, rows: Sequence[PredictionRow]) -> str:
    """All of it as one text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows(map(table.cells, rows))
    return text.getvalue()


def _word(yes: bool) -> str:
    return "yes" if yes else "no"
