"""Two models on a whole test set, as HTML: matrix, pairs, classes, calibration, and the images behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Optional

import numpy as np

from iekd.config.methods import method_name
from iekd.language import N_, _, ngettext
from iekd.models.artifact import TEACHER
from iekd.results.calibration import Calibration
from iekd.results.confusion import cell_rows
from iekd.results.mistakes import Mistake
from iekd.results.test_set import Analysis, TestSetPredictions
from iekd.ui.render.examples import data_url, smaller
from iekd.ui.render.template import render
from iekd.ui.render.words import listed, method_style, teacher_title

MOST_CLASSES = 30  # in a matrix; of more, the pairs alone are listed
MOST_IMAGES = 12  # of each group of a cell
MOST_SUSPICIOUS = 24
SIDE = 96  # pixels of an image on the page at most
GONE = N_("gone")
FEW = 10  # images of a bin, whose share then says little
PLOT = 220  # sides of a reliability diagram
STRONGEST = 38  # percent of colour behind a number, which stays readable on it
Read = Callable[[Sequence[int]], Sequence[Optional[np.ndarray]]]  # rows -> images, None for one that is gone


@dataclass(frozen=True)
class ShownImage:
    """One image. url: empty where the image is gone."""

    url: str
    name: str
    text: str


def title_of(model: str) -> str:
    """A model's name on the page."""
    return teacher_title() if model == TEACHER else method_name(model)


def overview_html(found: Analysis) -> str:
    """The headline, the matrices and the pairs of classes that are confused."""
    of, names = found.of, found.of.class_names
    right = {m: of.right(m) for m in (found.first, found.second)}
    return render(
        "test_set", first=_model(found, found.first), second=_model(found, found.second), images=len(of.labels),
        gained=int((right[found.second] & ~right[found.first]).sum()),
        lost=int((right[found.first] & ~right[found.second]).sum()),
        classes=names, rows=_cells(found) if len(names) <= MOST_CLASSES else [],
        pairs=[
            {
                "key": f"{p.label},{p.predicted}", "label": names[p.label], "predicted": names[p.predicted],
                "first": f"{p.first:,}", "second": f"{p.second:,}", "change": _signed(p.change),
                "tone": _tone(-p.change),
            }
            for p in found.pairs
        ],
    )  # fmt: skip


def cell_html(found: Analysis, label: int, predicted: int, read: Read, missing: str = GONE) -> str:
    """The images of one cell of the matrices, by which of the two models puts them there.

    missing: what is said in place of an image that cannot be shown.
    """
    of, names = found.of, found.of.class_names
    first, second = of.predictions[found.first], of.predictions[found.second]
    only_first, only_second, both = cell_rows(of.labels, first, second, label, predicted)
    one, other = title_of(found.first), title_of(found.second)
    groups = []
    for title, rows in (
        (_("Only {model}", model=one), only_first),
        (_("Only {model}", model=other), only_second),
        (_("Both"), both),
    ):
        chosen = [int(row) for row in rows[:MOST_IMAGES]]
        # what the model predicts that does not put the image into this cell
        texts = [
            f"{other}: {names[second[row]]}" if rows is only_first
            else f"{one}: {names[first[row]]}" if rows is only_second else ""
            for row in chosen
        ]  # fmt: skip
        groups.append({"title": title, "count": len(rows), "images": _images(of, chosen, texts, read)})
    if label == predicted:
        title = _("{label}, classified correctly", label=names[label])
    else:
        title = _("{label}, predicted as {prediction}", label=names[label], prediction=names[predicted])
    return render("test_images", title=title, groups=groups, missing=_(missing))


def details_html(
    found: Analysis, read: Read, waiting: bool = False, tell: Callable[[str], str] = str, missing: str = GONE
) -> str:
    """Classes, calibration, mistakes and suspicious labels.

    Args:
        waiting: the probabilities are being computed; what needs them has a placeholder.
        missing: see `cell_html`.
        tell: what makes a text fit for whoever looks.
    """
    of, names = found.of, found.of.class_names

    def shown(of_images: Sequence[Mistake]) -> list[ShownImage]:
        texts = [
            f"{names[m.label]} → {names[m.predicted]}"
            + ("" if m.confidence is None else f", {100 * m.confidence:.1f}\N{NO-BREAK SPACE}%")
            for m in of_images
        ]
        return _images(of, [m.row for m in of_images], texts, read)

    agreeing = [title_of(name) for name in found.agreeing]
    return render(
        "test_details", first=_model(found, found.first), second=_model(found, found.second), images=len(of.labels),
        waiting=waiting, without=tell(of.without), missing=_(missing),
        class_rows=[
            {
                "name": names[row.label], "images": row.images, "first": _percent(row.first),
                "second": _percent(row.second), "gain": "–" if row.gain is None else _signed(row.gain, ".1f"),
                "tone": _tone(row.gain or 0),
            }
            for row in found.classes
        ],
        bins=len(next(iter(found.calibration.values())).bins) if found.calibration else 0, plot=PLOT, few=FEW,
        diagrams=[_diagram(name, one) for name, one in found.calibration.items()],
        mistakes=[
            {"title": title_of(name), "images": [] if waiting else shown(ones)} for name, ones in found.mistakes.items()
        ],
        agreeing=listed(agreeing), suspicious_count=len(found.suspicious),
        suspicious=[] if waiting else shown(found.suspicious[:MOST_SUSPICIOUS]),
    )  # fmt: skip


def _model(found: Analysis, name: str) -> dict[str, Any]:
    accuracy = 100 * float((found.of.predictions[name] == found.of.labels).mean())
    return {"title": title_of(name), "accuracy": accuracy}


def _cells(found: Analysis) -> list[list[dict[str, Any]]]:
    """The cells of the matrices, row by row. Colours go with the square root, so that small counts are seen too."""
    names, first, second = found.of.class_names, found.matrices[found.first], found.matrices[found.second]
    change, images = found.difference, np.maximum(1, first.sum(1))
    largest, rows, focusable = max(1, int(abs(change).max())), [], True
    for i, label in enumerate(names):
        row = []
        for j, predicted in enumerate(names):
            a, b, d = int(first[i, j]), int(second[i, j]), int(change[i, j])
            used = bool(a or b)
            row.append({
                "used": used, "key": f"{i},{j}", "tab": 0 if used and focusable else -1, "first": a, "second": b,
                "change": _signed(d) if d else "·", "tone": _tone(d if i == j else -d),
                "title": _("{label} predicted as {prediction}", label=label, prediction=predicted),
                "d": round(STRONGEST * (abs(d) / largest) ** 0.5), "a": round(STRONGEST * (a / images[i]) ** 0.5),
                "b": round(STRONGEST * (b / images[i]) ** 0.5),
            })  # fmt: skip
            focusable = focusable and not used
        rows.append(row)
    return rows


def _diagram(name: str, found: Calibration) -> dict[str, Any]:
    """A reliability diagram's bars and numbers."""
    bars = []
    for one in found.bins:
        height = PLOT * (one.accuracy or 0.0)
        between = _("{low} to {high} %", low=f"{100 * one.low:.0f}", high=f"{100 * one.high:.0f}")
        confidence, accuracy = (_percent(None if v is None else 100 * v) for v in (one.confidence, one.accuracy))
        bars.append({
            "x": f"{PLOT * one.low + 0.5:.1f}", "y": f"{PLOT - height:.1f}", "height": f"{height:.1f}",
            "width": f"{PLOT * (one.high - one.low) - 1:.1f}", "range": between, "images": one.images,
            "confidence": confidence, "accuracy": accuracy, "few": one.images < FEW,
            "title": ngettext(
                "{confidence} sure: {number} image, {accuracy} right",
                "{confidence} sure: {number} images, {accuracy} right",
                one.images, confidence=between, accuracy=accuracy,
            ),
        })  # fmt: skip
    gap = 100 * (found.confidence - found.accuracy)
    points = f"{abs(gap):.1f}"
    if abs(gap) < 0.05:
        words = _("neither over- nor underconfident on average")
    elif gap > 0:
        words = _("{points} points overconfident on average", points=points)
    else:
        words = _("{points} points underconfident on average", points=points)
    style = TEACHER if name == TEACHER else method_style(name)
    return {"title": title_of(name), "style": style, "ece": f"{100 * found.ece:.1f}", "words": words, "bars": bars}


def _images(of: TestSetPredictions, rows: Sequence[int], texts: Sequence[str], read: Read) -> list[ShownImage]:
    images = read(rows)
    return [
        ShownImage("" if image is None else data_url(smaller(image, SIDE)), _image_name(of.images[row]), text)
        for row, image, text in zip(rows, images, texts, strict=True)
    ]


def _image_name(name: str) -> str:
    """What an image is called on the page: its file without the folders, which may be nobody's business."""
    return _("test image {name}", name=name) if name.isdecimal() else PurePath(name).name


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} %"


def _signed(value: float, form: str = ",d") -> str:
    text = f"{abs(value):{form}}"
    return text if not value else f"{'+' if value > 0 else '−'}{text}"


def _tone(good: float) -> str:
    return "better" if good > 0 else "worse" if good < 0 else "same"
