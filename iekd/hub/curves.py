"""Test accuracy of a run by epoch as a PNG: the Hub does not show SVG in a README."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from typing import TYPE_CHECKING

from iekd.config.methods import METHODS, sort_methods, split_name
from iekd.config.run import learner_name
from iekd.runs.store import Run

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

WIDTH, HEIGHT = 1280, 720
LEFT, RIGHT, TOP, BOTTOM = 110, 330, 90, 90  # margins; the right one has the names
TEXT, GREY, TEACHER = "#222222", "#d5d5d5", "#555555"
STEPS = (0.5, 1, 2, 5, 10, 20)  # between the levels that are named
Line = list[tuple[float, float]]  # of (epoch, percent)


def curves_png(run: Run) -> bytes | None:
    """One line per method, the mean over its seeds, with the seeds faintly behind; the teacher's accuracy as a level.

    None where no test accuracy was written, or the run has no epochs to draw a line through.
    """
    lines = _lines(run)
    if not lines:
        return None
    from PIL import Image, ImageDraw, ImageFont

    teacher = ((run.report or {}).get("teacher") or {}).get("accuracy")
    values = [y for seeds in lines.values() for line in seeds for _, y in line] + ([] if teacher is None else [teacher])
    step = next(step for step in STEPS if max(values) - min(values) <= 5 * step)
    low, high = step * math.floor(min(values) / step), step * math.ceil(max(values) / step)
    high = max(high, low + step)
    last = max(x for seeds in lines.values() for line in seeds for x, _ in line)
    first = min(x for seeds in lines.values() for line in seeds for x, _ in line)

    def at(x: float, y: float) -> tuple[float, float]:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        return (
            LEFT + (right - LEFT) * (x - first) / max(last - first, 1e-9),
            bottom - (bottom - TOP) * (y - low) / max(high - low, 1e-9),
        )

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(26)
    draw.text((LEFT, 24), "Accuracy on the test images (%) by epoch", TEXT, ImageFont.load_default(32))
    for i in range(round((high - low) / step) + 1):
        level = low + step * i
        draw.line([at(first, level), at(last, level)], GREY, 2)
        draw.text((LEFT - 14, at(first, level)[1]), f"{level:g}", TEXT, font, "rm")
    for epoch in sorted({round(first), round((first + last) / 2), round(last)}):
        draw.text((at(epoch, low)[0], HEIGHT - BOTTOM + 16), str(epoch), TEXT, font, "ma")
    names: list[tuple[float, str, str]] = []
    if teacher is not None:
        _dashed(draw, at(first, teacher), at(last, teacher), TEACHER)
        names.append((at(last, teacher)[1], f"teacher {teacher:.2f}", TEACHER))
    for method in sort_methods(tuple(lines)):
        base = split_name(method)[0]
        colour = METHODS[base].colour[0] if base in METHODS else TEXT
        seeds = lines[method]
        if len(seeds) > 1:
            for line in seeds:
                draw.line([at(*point) for point in line], _faint(colour), 2, "curve")
        mean = _mean(seeds)
        draw.line([at(*point) for point in mean], colour, 5, "curve")
        names.append((at(*mean[-1])[1], f"{method} {mean[-1][1]:.2f}", colour))
    place = TOP - 60.0
    for height, name, colour in sorted(names):
        place = max(height, place + 34)
        draw.text((WIDTH - RIGHT + 18, place), name, colour, font, "lm")
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _lines(run: Run) -> dict[str, list[Line]]:
    """Method -> one line per seed that has two points or more."""
    config, by_learner = run.config, defaultdict(list)
    for row in run.metrics()[0]:
        if row["kind"] == "test" and "accuracy" in row["values"]:
            by_learner[row["learner"]].append((float(row["epoch"]), float(row["values"]["accuracy"])))
    found: dict[str, list[Line]] = {}
    for method, seed in config.learner_names:
        line = by_learner.get(learner_name(method, seed), [])
        if len(line) > 1:
            found.setdefault(method, []).append(line)
    return found


def _mean(seeds: list[Line]) -> Line:
    """The mean at every epoch that all seeds have."""
    values: dict[float, list[float]] = defaultdict(list)
    for line in seeds:
        for x, y in line:
            values[x].append(y)
    return [(x, sum(found) / len(found)) for x, found in sorted(values.items()) if len(found) == len(seeds)] or seeds[0]


def _faint(colour: str) -> str:
    """The colour mixed with two thirds of white."""
    parts = [int(colour.lstrip("#")[i : i + 2], 16) for i in (0, 2, 4)]
    return "#" + "".join(f"{(part + 2 * 255) // 3:02x}" for part in parts)


def _dashed(draw: ImageDraw, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    x = start[0]
    while x < end[0]:
        draw.line([(x, start[1]), (min(x + 14, end[0]), start[1])], colour, 3)
        x += 24
