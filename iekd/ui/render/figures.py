"""Series of numbers -> one figure as inline SVG. Pure functions: no files, no Gradio.

Colours are CSS classes (`colours.py` gives them a light and a dark tone), so that a figure fits both modes. The drawing
is 420 wide on purpose: on a phone it keeps its size, on a large screen figures stand side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from iekd.language import _

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 72, 10, 10, 40  # left: at least; longer labels get more
LETTER = 7.2  # width of a digit
LARGE = 1e5  # from here on numbers have a power of ten
MAX_MARKS = 24  # points of a series that carry a tooltip
MAX_POINTS = 200

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line. `style` is CSS classes (words.method_style); a faint line is one seed among several."""

    label: str
    style: str
    points: tuple[Point, ...]
    faint: bool = False


@dataclass(frozen=True)
class Figure:
    """What to draw. `level` is a dashed horizontal line (the teacher); x runs over all of `x_range` from the start.

    x_label: empty for epochs. stage: in which it was measured.
    """

    title: str
    y_label: str
    series: tuple[Series, ...]
    x_range: tuple[float, float]
    x_label: str = ""
    unit: str = ""
    level: float | None = None
    hint: str = ""
    stage: str = "students"


def draw(figure: Figure) -> str:
    """The figure as a `<figure>` element: title, SVG and a legend that says the newest values."""
    values = [y for s in figure.series for _, y in s.points if math.isfinite(y)]
    if figure.level is not None:
        values.append(figure.level)
    percent = figure.unit == " %"
    ticks_y = ticks(min(values), max(values)) if values else [0.0, 100.0 if percent else 1.0]
    ticks_y = [t for t in ticks_y if t <= 100 or not percent]
    across = figure.x_range[1] - figure.x_range[0]
    about = min(5, int(across)) if across >= 2 else 2  # two or three epochs have no halves, one has no fifths
    ticks_x = [t for t in ticks(*figure.x_range, about) if figure.x_range[0] <= t <= figure.x_range[1] + 1e-9]
    low, high = ticks_y[0], ticks_y[-1]
    labels_y = [number(y, ticks_y) for y in ticks_y]
    left = max(LEFT, 28 + LETTER * max(map(len, labels_y)))
    x0, x1 = figure.x_range[0], max(figure.x_range[1], figure.x_range[0] + 1e-9)

    def px(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (WIDTH - left - RIGHT)

    def py(y: float) -> float:
        return TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(figure.title)}">']
    for y, text in zip(ticks_y, labels_y, strict=True):
        parts.append(f'<path class="grid" d="M{left:.0f} {py(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{left - 6:.0f}" y="{py(y) + 4:.1f}" text-anchor="end">{text}</text>')
    for x in ticks_x:
        parts.append(
            f'<text x="{px(x):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{number(x, ticks_x)}</text>'
        )
    parts.append(f'<path class="axis" d="M{left:.0f} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    middle, across_label = (left + WIDTH - RIGHT) / 2, figure.x_label or _("epoch")
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 5}" text-anchor="middle">{escape(across_label)}</text>')
    parts.append(f'<text transform="translate(10 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle">'
                 f"{escape(figure.y_label)}</text>")  # fmt: skip
    if figure.level is not None:
        tip = f"{escape(_('Teacher'))}: {figure.level:.2f}{figure.unit}"
        line = f"M{left:.0f} {py(figure.level):.1f}H{WIDTH - RIGHT}"
        parts.append(f'<path class="line teacher level" d="{line}"><title>{tip}</title></path>')
    for s in sorted(figure.series, key=lambda s: not s.faint):  # faint lines lie below the means
        points = [(x, y) for x, y in thin(s.points) if math.isfinite(y)]
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        if len(points) > 1:
            parts.append(f'<polyline class="line {s.style}{" faint" if s.faint else ""}" points="{path}"/>')
        if not s.faint:
            few = len(points) <= MAX_MARKS
            for x, y in thin(points, MAX_MARKS):
                tip = f"{escape(s.label)}, {escape(across_label)} {x:g}: {short(y)}{figure.unit}"
                place = f'cx="{px(x):.1f}" cy="{py(y):.1f}" r="{3 if few else 6}"'
                kind = f"mark {s.style}" if few else f"mark {s.style} quiet"
                parts.append(f'<circle class="{kind}" {place}><title>{tip}</title></circle>')
    parts.append("</svg>")
    hint = f'<span class="hint">{escape(figure.hint)}</span>' if figure.hint else ""
    head = f"<figcaption><b>{escape(figure.title)}</b>{hint}</figcaption>"
    return f'<figure class="fig">{head}{"".join(parts)}{_legend(figure)}</figure>'


def _legend(figure: Figure) -> str:
    rows = []
    if figure.level is not None:
        rows.append(f'<span><i class="key teacher dashed"></i>{escape(_("Teacher"))} '
                    f"<b>{short(figure.level)}{figure.unit}</b></span>")  # fmt: skip
    for s in figure.series:
        if not s.faint:
            last = f" <b>{short(s.points[-1][1])}{figure.unit}</b>" if s.points else ""
            rows.append(f'<span><i class="key {s.style}"></i>{escape(s.label)}{last}</span>')
    return f'<div class="legend">{"".join(rows)}</div>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) that enclose low..high; at least two."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return [0.0, 1.0]
    if high - low < 1e-12 * max(1.0, abs(high)):
        pad = abs(high) * 0.1 or 0.5
        low, high = low - pad, high + pad
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float, beside: Sequence[float]) -> str:
    """A tick's label with as many decimals as the distance between ticks needs."""
    step = abs(beside[1] - beside[0]) if len(beside) > 1 else abs(value) or 1
    if max(map(abs, beside), default=0.0) >= LARGE:
        return _with_power(value)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0
    text = f"{value:.{min(decimals, 6)}f}"
    return text.replace("-", "\u2212")


def _with_power(value: float) -> str:
    """2e13; zero has no power."""
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e").replace("-", "\u2212")


def short(value: float) -> str:
    """A value with about three significant digits: 91.3, 0.274, 0.0123, 1.38e13."""
    if not math.isfinite(value):
        return _("not a number")
    if abs(value) >= LARGE:
        return _with_power(value)
    size = abs(value)
    decimals = 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:.{decimals}f}".replace("-", "\u2212")


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most `most` of the points, evenly picked; the first and the last stay."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(i * step)] for i in range(most)]


def mean_over_seeds(lines: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean of y at each x that every line has (learners train in step, so their x agree)."""
    if not lines:
        return []
    tables = [{round(x, 6): y for x, y in line} for line in lines]
    common = set(tables[0]).intersection(*tables[1:])
    return [(x, sum(t[x] for t in tables) / len(tables)) for x in sorted(common)]
