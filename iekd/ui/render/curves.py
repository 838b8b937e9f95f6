"""metrics.jsonl -> thinned series -> the figures of a run.

Only new bytes are read each time. The series in memory are a cache of the file and are rebuilt if they are gone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from iekd.config.methods import CROSS_ENTROPY, Term, known_specs, method_name, sort_methods
from iekd.config.run import RunConfig, learner_name
from iekd.errors import UserError
from iekd.language import N_, _
from iekd.models import hub_configs
from iekd.models.source import PRETRAINED
from iekd.runs.store import Run
from iekd.runs.teachers import find_teacher
from iekd.ui.render.figures import Figure, Point, Series, draw, mean_over_seeds
from iekd.ui.render.template import html_text
from iekd.ui.render.words import method_style, teacher_title

STUDENTS = "students"  # the stage
ACCURACY = N_("Test accuracy")  # the first figure
CACHED_RUNS = 16
MOST = 400  # points of one series; then neighbours are joined


@dataclass
class Line:
    """One series that never grows long: once full, pairs are joined and later points arrive in larger groups."""

    averaged: bool
    points: list[Point] = field(default_factory=list)
    waiting: list[Point] = field(default_factory=list)
    group: int = 1

    def add(self, x: float, y: float) -> None:
        self.waiting.append((x, y))
        if len(self.waiting) >= self.group:
            self.points.append(self._join(self.waiting))
            self.waiting = []
        if len(self.points) >= MOST:
            pairs = zip(self.points[::2], self.points[1::2], strict=False)
            self.points = [self._join(list(pair)) for pair in pairs]
            self.group *= 2

    def read(self) -> tuple[Point, ...]:
        """All points; the newest is among them even while its group is not full."""
        return (*self.points, self._join(self.waiting)) if self.waiting else tuple(self.points)

    def _join(self, points: list[Point]) -> Point:
        last = points[-1]
        return (last[0], sum(y for _, y in points) / len(points)) if self.averaged else last


@dataclass
class Curves:
    """Everything plotted of one run: lines by (learner, kind, key), read up to byte `offset`."""

    offset: int = 0
    lines: dict[tuple[str, str, str], Line] = field(default_factory=dict)
    stages: list[str] = field(default_factory=list)
    times: list[tuple[float, int, float]] = field(default_factory=list)  # (epoch, step, clock) while students train

    def line(self, learner: str, kind: str, key: str) -> tuple[Point, ...]:
        found = self.lines.get((learner, kind, key))
        return found.read() if found else ()

    def last(self, learner: str, kind: str, key: str) -> float | None:
        points = self.line(learner, kind, key)
        return points[-1][1] if points else None


_cache: OrderedDict[tuple[Path, int], Curves] = OrderedDict()  # another attempt may cut the file
_lock = threading.Lock()


def read_curves(run: Run) -> Curves:
    """The run's curves up to now."""
    which = run.path, run.attempt
    with _lock:
        curves = _cache.pop(which, None) or Curves()
        if curves.offset > metrics_size(run):  # the file was cut: begin again
            curves = Curves()
        rows, curves.offset = run.metrics(curves.offset)
        for row in rows:
            if row["stage"] not in curves.stages:
                curves.stages.append(row["stage"])
            if row["stage"] == STUDENTS and (not curves.times or row["epoch"] > curves.times[-1][0]):
                curves.times.append((row["epoch"], row["step"], row.get("time", 0.0)))
                if len(curves.times) > 2 * MOST:
                    del curves.times[1:-1:2]
            for key, value in row["values"].items():
                if key in ("lr", "loss") or (key == "accuracy" and row["kind"] == "train"):
                    continue
                where = (row["learner"], row["kind"], key)
                curves.lines.setdefault(where, Line(averaged=row["kind"] == "train")).add(row["epoch"], value)
        _cache[which] = curves
        while len(_cache) > CACHED_RUNS:
            _cache.popitem(last=False)
        return curves


def metrics_size(run: Run) -> int:
    """Bytes of metrics so far: what tells whether there is anything new to draw."""
    try:
        return (run.path / "metrics.jsonl").stat().st_size
    except OSError:
        return 0


def teacher_accuracy(run: Run, config: RunConfig, curves: Curves) -> float | None:
    """Percent on the test images: from the report, the teacher's own training, or the card of the teacher in use."""
    report = run.report
    if report and report.get("teacher"):
        return float(report["teacher"]["accuracy"])
    trained = curves.last("teacher", "test", "accuracy")
    if trained is not None or not config.needs_teacher:
        return trained
    from iekd.models.artifact import ModelCard

    of_weights = config.teacher if config.teacher_from == PRETRAINED else config.teacher_from
    try:
        if hub_configs.is_one(of_weights) and not hub_configs.is_described_here(of_weights):
            return None  # the Hub is not asked in order to draw a page
        found = find_teacher(config, run.path.parent)
        return ModelCard.read(found).accuracy if isinstance(found, Path) else None
    except UserError:  # a file has no accuracy, and its origin may be gone by now
        return None


def figures(run: Run, config: RunConfig) -> list[Figure]:
    """Accuracy first, then each term of the loss, then what was trained before the students."""
    curves, gone = read_curves(run), frozenset(run.status.diverged)
    level = teacher_accuracy(run, config, curves) if STUDENTS in curves.stages or run.report else None
    found = [_by_method(_(ACCURACY), _("percent right"), curves, config, gone, "test", "accuracy", level, " %",
                        _("on images no student has trained on"))]  # fmt: skip
    for term, methods in term_figures(config.methods).items():
        figure = _by_method(
            _(term.title), _(term.unit), curves, config, gone, "train", term.name, None, "", _(term.hint), methods
        )
        if figure.series:
            found.append(figure)
    if not any(figure.series for figure in found):
        found = []
    elif not run.status.live:  # figures that will never have a point
        found = [figure for figure in found if figure.series]
    before = [
        (_("Auto-encoder"), _("reconstruction loss"), "auto-encoder", "train", "reconstruction",
         config.auto_encoder_epochs, "", _("falls as the factor keeps more of the feature")),
        (_("Teacher in training: test accuracy"), _("percent right"), "teacher", "test", "accuracy",
         config.teacher_epochs, " %", ""),
        (_("Teacher in training: loss"), _("cross-entropy"), "teacher", "train", "cross_entropy",
         config.teacher_epochs, "", ""),
    ]  # fmt: skip
    for title, y_label, learner, kind, key, epochs, unit, hint in before:
        points = curves.line(learner, kind, key)
        if points:
            label = teacher_title() if learner == "teacher" else _("Auto-encoder")
            series = (Series(label, "teacher", points),)
            found.append(Figure(title, y_label, series, (0, epochs), unit=unit, hint=hint, stage=learner))
    return found if STUDENTS in curves.stages else found[::-1]


def term_figures(methods: Sequence[str]) -> dict[Term, list[str]]:
    """Terms that have a figure each, with the methods in it: the labels', those of IE methods, then the others'.

    Terms of one name that differ in their words stand side by side.
    """
    specs = sorted(known_specs(methods), key=lambda spec: not spec.explores)
    found: dict[Term, list[str]] = {CROSS_ENTROPY: list(methods)}
    for spec in specs:
        for term in spec.terms:
            found.setdefault(term, []).append(spec.name)
    names = list(dict.fromkeys(term.name for term in found))
    return dict(sorted(found.items(), key=lambda item: names.index(item[0].name)))


def _by_method(title: str, y_label: str, curves: Curves, config: RunConfig, gone: frozenset[str], kind: str, key: str,
               level: float | None, unit: str, hint: str, methods: Sequence[str] | None = None) -> Figure:  # fmt: skip
    """gone: learners that diverged. Beside others they are only named: what they were would hide what those are."""
    series: list[Series] = []
    chosen = sort_methods(tuple(config.methods if methods is None else methods))
    there = {(m, s): curves.line(learner_name(m, s), kind, key) for m in chosen for s in config.seeds}
    left = {which for which, line in there.items() if line and learner_name(*which) not in gone}
    for method in chosen:
        label, style = method_name(method), method_style(method)
        own = {which: line for which, line in there.items() if which[0] == method}
        lost = all(learner_name(*which) in gone for which in own)
        drawn = [line for which, line in own.items() if line and which in (left or own)]
        if not drawn:
            if any(own.values()) or (kind == "test" and lost):
                series.append(Series(_("{method}: diverged", method=label), style, ()))
            continue
        if lost:
            label = _("{method}, diverged", method=label)
        if len(drawn) > 1:
            if kind == "test":
                series += [Series(label, style, line, faint=True) for line in drawn]
            mean = mean_over_seeds(drawn)
            label = _("{method}, mean of {count}", method=label, count=len(drawn))
            if mean:
                series.append(Series(label, style, tuple(mean)))
        else:
            series.append(Series(label, style, drawn[0]))
    return Figure(title, y_label, tuple(series), (0, config.epochs), unit=unit, level=level, hint=hint)


def curves_html(run: Run, config: RunConfig) -> str:
    """All figures of a run; before the students' stage, the place where theirs will be."""
    later, curves = "", read_curves(run)
    if run.status.live and STUDENTS not in curves.stages:
        words = html_text("The students’ curves appear here when their stage begins.")
        later = f'<div class="placeholder">{words}</div>'
    drawn = [figure for figure in figures(run, config) if figure.title != _(ACCURACY)]  # that one is the large chart
    return f'<div class="figs">{"".join(map(draw, drawn))}{later}</div>'
