"""HTML of what follows the chart on a run's page: watched images, classes, what to take home, and certainty."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from iekd.config.methods import BASELINE, method_name
from iekd.config.run import RunConfig, learner_name
from iekd.language import N_, _, ngettext
from iekd.models.artifact import TEACHER
from iekd.plural import signed
from iekd.results.card import student_name
from iekd.results.classes import SAME, ClassGain, class_gains, has_classes, in_words
from iekd.results.lead import lead_method, lead_of
from iekd.results.report import class_columns, is_imbalanced, on_other_images, summaries
from iekd.results.significance import p_text
from iekd.runs.card import card_of, notes
from iekd.runs.status import FINISHED, Status
from iekd.runs.store import Run
from iekd.runs.watched import WatchedImage, WatchedPrediction, read_watched
from iekd.ui.render.downloads import downloads_html
from iekd.ui.render.figures import number, ticks
from iekd.ui.render.template import render
from iekd.ui.render.words import method_style, teacher_title
from iekd.ui.rights.hidden_paths import Tell

FIRST, LAST = 10, 5  # classes that are shown of a long list
CELLS = 24  # of the strip of earlier predictions
ABOUT = {
    "validation": N_("Chosen by their place in the split alone, before training. No network trains on them."),
    "test": N_(
        "Chosen by their place in the split alone, before training. This run has no validation split, so they are test "
        "images: they are only shown, and decide nothing."
    ),
}  # fmt: skip


def classes_html(report: dict[str, Any]) -> str:
    """A dumbbell for each class, largest gain first, and the exact table folded below.

    Only the table where there is no plain student to compare with, or nothing but it.
    """
    if not has_classes(report):
        return _note(_("The report of this run has no accuracy by class: an earlier version of the program wrote it."))
    found = lead_of(report)
    gains = class_gains(report, found.own.method) if found and found.plain else []
    if not gains or found is None:
        return f'<div class="card">{class_table(report)}</div>'
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

    shown = _dumbbells(
        [row(one) for one in gains], found.own.method, any(one.teacher is not None for one in gains),
        said=in_words(gains, found.own.method), weight=_weight(gains),
        scale=[{"at": place(mark), "text": f"{number(mark, marks)} %"} for mark in marks if low <= mark <= high],
    )  # fmt: skip
    return f'<div class="card">{shown}{class_table(report)}</div>'


def classes_to_come_html(config: RunConfig, names: Sequence[str]) -> str:
    """The same before there is a result: the classes without numbers, so that nothing moves when they come."""
    method = lead_method(config.methods)
    if BASELINE not in config.methods or method == BASELINE or not names:
        return ""
    said = _("The accuracy of each class is measured at the end. The largest gain then comes first.")
    rows = [{"name": name, "direction": "same", "change": "", "before": ""} for name in names]
    shown = _dumbbells(rows, method, config.needs_teacher, said=said, weight="", scale=[])
    return f'<div class="card to-come">{shown}</div>'


def _dumbbells(rows: list[dict[str, Any]], method: str, has_teacher: bool, **values: Any) -> str:
    few = len(rows) <= FIRST + LAST + 2
    return render(
        "classes", compared=student_name(method), compared_style=method_style(method),
        reference=student_name(BASELINE), reference_style=method_style(BASELINE), has_teacher=has_teacher,
        first=rows if few else rows[:FIRST], between=[] if few else rows[FIRST:-LAST], last=[] if few else rows[-LAST:],
        **values,
    )  # fmt: skip


def class_table(report: dict[str, Any]) -> str:
    """Accuracy per class and network, folded away."""
    columns, counts = class_columns(report), report["class_counts"] if is_imbalanced(report) else {}
    heads = [teacher_title() if column == TEACHER else method_name(column) for column in columns]
    heads += [_("Training images") if split == "train" else _("Test images") for split in counts]
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
    least, most, points = min(counts), max(counts), f"{100 / min(counts):.1f}"
    if least == most:
        return ngettext(
            "{number} test images in a class; one more or less is {points} points.",
            "{number} test images in a class; one more or less is {points} points.", least, points=points,
        )  # fmt: skip
    return _(
        "{least} to {most} test images in a class; one more or less is {points} points in the smallest.",
        least=f"{least:,}", most=f"{most:,}", points=points,
    )  # fmt: skip


def watched_html(run: Run, config: RunConfig, status: Status, allowed: bool) -> str:
    """The watched images with the newest predictions, or in words why there are none.

    allowed: whether whoever looks may see images of this dataset.
    """
    found, live = read_watched(run), status.live
    if found is None and live:
        return _note(_("A few held-out images appear here when training begins."), "to-come")
    if found is None and status.state == FINISHED:
        return _note(_(
            "No watched images are stored with this run: earlier versions of the program recorded none, and an "
            "imported run comes without them."
        ))  # fmt: skip
    if found is None or not (live or any(image.predictions for image in found.images)):
        return _note(_("The run ended before its networks had predicted any of the images to watch."))
    if not allowed:
        return _note(_("The images of this dataset are shown only to those who may download from this run."))
    networks = [(TEACHER, teacher_title(), TEACHER)] * any(TEACHER in image.predictions for image in found.images)
    networks += [(learner_name(m, config.seeds[0]), method_name(m), method_style(m)) for m in config.methods]
    about = _(ABOUT[found.split]) if found.split in ABOUT else ""
    if len(config.seeds) > 1:
        about += " " + _("Students of seed {seed}.", seed=config.seeds[0])
    return render(
        "watched", heading=_watched_heading(found.split, len(found.images)), about=about,
        images=[
            {"label": image.label, "png": image.png,
             "networks": [_network(image, name, title, style) for name, title, style in networks]}
            for image in found.images
        ],
    )  # fmt: skip


def _watched_heading(split: str, images: int) -> str:
    if split == "validation":
        return ngettext("{number} image of the validation split, epoch by epoch",
                        "{number} images of the validation split, epoch by epoch", images)  # fmt: skip
    return ngettext("{number} image of the test split, epoch by epoch",
                    "{number} images of the test split, epoch by epoch", images)  # fmt: skip


def _note(text: str, style: str = "") -> str:
    return render("run_note", text=text, style=style)


def _network(image: WatchedImage, name: str, title: str, style: str) -> dict[str, Any]:
    said: list[WatchedPrediction] = image.predictions.get(name, [])
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
        "changes": (
            ngettext("changed {number} time", "changed {number} times", changed) if changed else _("never changed")
        ),
    }  # fmt: skip


def certainty_html(report: dict[str, Any] | None) -> str:
    """How sure the differences of a report are, as a table and in words; report: None while there is none."""
    known = summaries(report) if report else []
    rows = []
    for one in known:
        if (difference := one.difference) is None:
            continue
        low, high = difference.low, difference.high
        over_seeds = "–" if low is None or high is None else _range(low, high)
        rows.append({
            "name": method_name(one.method), "seeds": difference.n, "difference": signed(difference.mean, 2),
            "over_seeds": over_seeds,
            "p": p_text(difference.p_adjusted).removeprefix("= ") if difference.p_adjusted is not None else "–",
            "over_images": on_other_images(one).replace("-", "\u2212") or "–",
        })  # fmt: skip
    if report is None:
        sentences = [_("This is known when the run has finished.")]
    elif not rows:
        plain = any(one.method == BASELINE for one in known)
        sentences = [
            _("There is no other student to compare with.") if plain else
            _("There is no plain student to compare with.")
        ]  # fmt: skip
    else:
        sentences = _meaning(report, rows)
    return render("certainty", rows=rows, sentences=sentences)


def _range(low: float, high: float) -> str:
    return _("{low} to {high}", low=signed(low, 2), high=signed(high, 2))


def _meaning(report: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    said = [ngettext(
        "Points of accuracy, each method minus the plain student, on {number} test image.",
        "Points of accuracy, each method minus the plain student, on {number} test images.", report["test_images"],
    )]  # fmt: skip
    if any(row["over_seeds"] != "–" for row in rows):
        said.append(_(
            "Over seeds: what training again with other seeds may change, on these test images. The test is paired: "
            "the students of a seed start alike and see the same batches. p is corrected for the number of methods "
            "(Holm)."
        ))  # fmt: skip
    else:
        said.append(_(
            "There are too few seeds for an interval over seeds, or they agree exactly. What training again may "
            "change is not known: train with three seeds or more."
        ))  # fmt: skip
    if any(row["over_images"] != "–" for row in rows):
        said.append(_("Over test images: what other images like those of the test may change, with these networks."))
    return said


def take_home_html(run: Run, status: Status, report: dict[str, Any] | None, with_networks: bool, tell: Tell) -> str:
    """Downloads of a run that is over, and of one with a result its share card with the alt text.

    report: with the seeds that other runs add. with_networks: offer models too. tell: makes texts fit for whoever
    looks.
    """
    if status.live:
        return render("take_home", live=True)
    card = card_of(run, report) if report and report.get("learners") else None
    return render(
        "take_home", live=False, run=run.id, downloads=Markup(downloads_html(run, with_networks, tell)),
        alt_text=card.alt_text() if card else "", notes=notes(card) if card else [],
    )  # fmt: skip
