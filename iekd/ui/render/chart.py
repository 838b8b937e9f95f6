"""A run's curves as the JSON that the large chart draws in the browser (chart.js, with uPlot)."""

from __future__ import annotations

import hashlib
import json
import math
from html import escape
from typing import Any

from iekd.config.run import RunConfig
from iekd.runs.store import Run
from iekd.ui.render.curves import STUDENTS, figures, read_curves
from iekd.ui.render.figures import Figure, Point
from iekd.ui.render.words import run_title, teacher_title

DIGITS = 6  # of a number; more than anybody can see


def chart_html(run: Run, config: RunConfig) -> str:
    """The data as an element that chart.js reads: `data-chart` is JSON, `data-stamp` changes with it.

    `data-bytes` says how much of metrics.jsonl is in it: benchmarks/page.py measures with it how late the page is.
    """
    text = json.dumps(chart_data(run, config), separators=(",", ":"))
    stamp = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f'<div data-stamp="{stamp}" data-bytes="{read_curves(run).offset}" data-chart="{escape(text)}"></div>'


def chart_data(run: Run, config: RunConfig) -> dict[str, Any]:
    """Every figure of a run. x is the epoch; `axis` gives step and seconds at some epochs of the students."""
    times = read_curves(run).times
    began = times[0][2] if times else 0.0
    return {
        "title": run_title(config),
        "axis": {
            "epoch": [_rounded(epoch) for epoch, _, _ in times], "step": [step for _, step, _ in times],
            "time": [round(at - began, 1) for _, _, at in times],
        },
        "figures": [_figure(figure) for figure in figures(run, config)],
    }  # fmt: skip


def _figure(figure: Figure) -> dict[str, Any]:
    series = []
    for line in figure.series:
        if line.faint or not line.points:
            continue
        seeds = [_points(one.points) for one in figure.series if one.faint and one.style == line.style]
        series.append({"label": line.label, "style": line.style, "points": _points(line.points), "seeds": seeds})
    return {
        "title": figure.title, "y": figure.y_label, "unit": figure.unit, "hint": figure.hint, "level": figure.level,
        "levelLabel": teacher_title(), "epochs": figure.x_range[1], "students": figure.stage == STUDENTS,
        "series": series,
    }  # fmt: skip


def _points(points: tuple[Point, ...]) -> list[list[float | None]]:
    """[x of each, y of each]; JSON has no NaN or infinity."""
    return [[_rounded(x) for x, _ in points], [_rounded(y) if math.isfinite(y) else None for _, y in points]]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
