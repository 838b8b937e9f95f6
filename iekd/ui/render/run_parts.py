"""HTML of what stands below the headline of a run's page: watched images, classes, certainty, and the tools."""

from __future__ import annotations

import itertools
from typing import Any

from iekd.config.methods import method_name
from iekd.config.run import RunConfig, learner_name
from iekd.errors import UserError
from iekd.plural import counted
from iekd.results.card import named, student_name
from iekd.results.classes import SAME, ClassGain, class_gains, in_words
from iekd.results.main_pair import PLAIN, main_pair
from iekd.results.report import accuracies, class_columns, is_imbalanced, on_other_images, summaries
from iekd.results.significance import p_text, summarise
from iekd.runs.card import card_of, notes
from iekd.runs.store import Run
from iekd.runs.watched import Prediction, WatchedImage, read_watched
from iekd.ui.render.figures import number, ticks
from iekd.ui.render.template import render
from iekd.ui.render.words import method_style

FIRST, LAST = 10, 5  # classes that are shown of a long list
CELLS = 24  # of the strip of earlier predictions
TEACHER = "teacher"
ABOUT = {
    "validation": "Chosen by their place in the split alone, before training. No network trains on them.",
    "test": "Chosen by their place in the split alone, before training. This run has no validation split, so they are "
    "test images: they are only shown, and decide nothing.",
}  # fmt: skip


def classes_html(report: dict[str, Any] | None) -> str:
    """A dumbbell for each class, largest gain first, and the exact table folded below; "" without a result."""
    pair = main_pair(report) if report else None
    gains = class_gains(report, pair) if report and pair else []
    if not report or "class_accuracy" not in report["learners"][0]:
        return ""
    if not gains or pair is None:
        return f'<div class="card">{class_table(report)}</div>'
    compared, reference = map(student_name, pair)
    values = [v for one in gains for v in (one.reference, one.compared, one.teacher) if v is not None]
    marks = ticks(min(values), max(values), 4)
    low, high = max(0.0, marks[0]), min(100.0, marks[-1])
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / span, 2)

    def row(one: ClassGain) -> dict[str, Any]:
        ends = sorted((place(one.reference), place(one.compared)))
        return {
            "name": one.name, "direction": "same" if abs(one.gain) < SAME else "gain" if one.gain > 0 else "loss",
            "reference": place(one.reference), "compared": place(one.compared), "left": ends[0],
            "width": round(ends[1] - ends[0], 2), "teacher": None if one.teacher is None else place(one.teacher),
            "before": f"{one.reference:.1f}", "after": f"{one.compared:.1f}",
            "change": "0.0" if abs(one.gain) < SAME else signed(one.gain, 1),
        }  # fmt: skip

    rows = [row(one) for one in gains]
    few = len(rows) <= FIRST + LAST + 2
    shown = render(
        "classes", compared=compared, reference=reference, named=named(pair[1]), compared_style=method_style(pair[0]),
        reference_style=method_style(pair[1]), has_teacher=any(one.teacher is not None for one in gains),
        said=in_words(gains, f"The {compared}", f"the {named(pair[1])}"), weight=_weight(gains),
        scale=[{"at": place(mark), "text": f"{number(mark, marks)} %"} for mark in marks if low <= mark <= high],
        first=rows if few else rows[:FIRST], between=[] if few else rows[FIRST:-LAST], last=[] if few else rows[-LAST:],
    )  # fmt: skip
    return f'<div class="card">{shown}{class_table(report)}</div>'


def class_table(report: dict[str, Any]) -> str:
    """Accuracy per class and network, folded away."""
    columns, counts = class_columns(report), report["class_counts"] if is_imbalanced(report) else {}
    heads = ["Teacher" if column == TEACHER else method_name(column) for column in columns]
    heads += [f"{'Training' if split == 'train' else 'Test'} images" for split in counts]
    rows = [
        {
            "name": name,
            "cells": [
                *("–" if (v := own[name]) is None else f"{v:.1f}" for own in columns.values()),
                *(f"{int(own[name]):,}" for own in counts.values()),
            ],
        }
        for name in report["learners"][0]["class_accuracy"]
    ]
    return render("class_table", heads=heads, rows=rows)


def _weight(gains: list[ClassGain]) -> str:
    """What one image more or less changes: how coarse these numbers are."""
    counts = [one.images for one in gains if one.images]
    if not counts:
        return ""
    images = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    return f"{images} test images in a class; one more or less is {100 / min(counts):.1f} points" + (
        "." if min(counts) == max(counts) else " in the smallest."
    )


def watched_html(run: Run, config: RunConfig, live: bool, allowed: bool) -> str:
    """The watched images with the newest predictions; "" for runs that have none, or for whoever may not see them."""
    found = read_watched(run) if allowed else None
    if found is None or not (live or any(image.predictions for image in found.images)):
        return ""
    networks = [(TEACHER, "Teacher", TEACHER)] * any(TEACHER in image.predictions for image in found.images)
    networks += [(learner_name(m, config.seeds[0]), method_name(m), method_style(m)) for m in config.methods]
    about = ABOUT.get(found.split, "")
    if len(config.seeds) > 1:
        about += f" Students of seed {config.seeds[0]}."
    return render(
        "watched", split=found.split, live=live, about=about,
        images=[
            {"label": image.label, "png": image.png,
             "networks": [_network(image, name, title, style) for name, title, style in networks]}
            for image in found.images
        ],
    )  # fmt: skip


def _network(image: WatchedImage, name: str, title: str, style: str) -> dict[str, Any]:
    said: list[Prediction] = image.predictions.get(name, [])
    values: dict[str, Any] = {"title": title, "style": style, "label": ""}
    if not said:
        return values
    changed = sum(a.label != b.label for a, b in itertools.pairwise(said))
    step = max(1.0, (len(said) - 1) / (CELLS - 1))
    picked = [said[round(i * step)] for i in range(min(len(said), CELLS))]
    history = [
        f"{'yes' if one.label == image.label else 'no'}{' changed' if i and one.label != picked[i - 1].label else ''}"
        for i, one in enumerate(picked)
    ]
    return {
        **values, "label": said[-1].label, "right": said[-1].label == image.label, "history": history,
        "percent": f"{100 * said[-1].probability:.0f}",
        "changes": f"changed {counted(changed, 'time')}" if changed else "never changed",
    }  # fmt: skip


def certainty_html(report: dict[str, Any] | None) -> str:
    """How sure the differences of a report are, as a table and in words."""
    if report is None:
        return render("certainty", rows=[], reference="", sentences=["This is known when the run has finished."])
    pair, known = main_pair(report), summaries(report)
    if pair is None:
        return render("certainty", rows=[], reference="", sentences=["One method only: there is nothing to compare."])
    found = known if pair[1] == PLAIN else summarise(accuracies(report), baseline=pair[1])
    rows = []
    for one in found:
        if (difference := one.difference) is None:
            continue
        low_high = difference.low is not None and difference.high is not None
        rows.append({
            "name": method_name(one.method), "seeds": difference.n, "difference": signed(difference.mean, 2),
            "over_seeds": f"{signed(difference.low or 0, 2)} to {signed(difference.high or 0, 2)}" if low_high else "–",
            "p": p_text(difference.p_adjusted).removeprefix("= ") if difference.p_adjusted is not None else "–",
            "over_images": on_other_images(one).replace("-", "\u2212") or "–",
        })  # fmt: skip
    several = any(row["over_seeds"] != "–" for row in rows)
    tested = counted(report["test_images"], "test image")
    sentences = [
        f"Points of accuracy, method minus {method_name(pair[1])}, on the {tested}.",
        "Over seeds: what training again with other seeds may change, on these test images. The test is paired: the "
        "students of a seed start alike and see the same batches. p is corrected for the number of methods (Holm)."
        if several
        else "There are too few seeds for an interval over seeds, or they agree exactly. What training again may "
        "change is not known: train with three seeds or more.",
    ]
    if any(row["over_images"] != "–" for row in rows):
        sentences.append("Over test images: what other images like those of the test may change, with these networks.")
    return render("certainty", rows=rows, reference=method_name(pair[1]), sentences=sentences)


def tools_html(run: Run, with_card: bool) -> str:
    """Present, and of a run with a result its share card with the alt text."""
    try:
        card = card_of(run) if with_card else None
    except UserError:
        card = None
    return render("run_tools", run=run.id, alt_text=card and card.alt_text(), notes=notes(card) if card else [])


def signed(value: float, decimals: int) -> str:
    """+2.3 or −0.4, with a real minus."""
    return f"{value:+.{decimals}f}".replace("-", "\u2212")
