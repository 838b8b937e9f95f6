"""The test accuracy of a run's students as a line the size of a word.

Only the rows of test accuracy are parsed, and only what is new since the last look: a list of many runs is drawn every
few seconds.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from html import escape
from pathlib import Path

from iekd.config.methods import method_name
from iekd.language import _
from iekd.runs.store import Run
from iekd.ui.render.figures import Point, mean_over_seeds, thin
from iekd.ui.render.words import method_style

WIDTH, HEIGHT, EDGE = 96, 28, 2
MOST = 48  # points of a line: no two of them are closer than two pixels
KEPT = 1000  # runs whose lines are remembered
Lines = dict[str, dict[int, list[Point]]]  # method -> seed -> (epoch, percent)


class Sparklines:
    """Draws them and remembers each until its metrics.jsonl has another size. May be used by several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[Path, tuple[int, int, Lines, str]] = OrderedDict()
        self._lock = threading.Lock()

    def draw(self, run: Run, attempt: int) -> str:
        """The run's lines as `<svg>`; empty where there are not two points yet.

        Args:
            run: whose metrics.jsonl is read.
            attempt: which attempt it is in: another one may have cut the file.
        """
        path = run.path / "metrics.jsonl"
        try:
            size = path.stat().st_size
        except OSError:
            return ""
        with self._lock:
            before, offset, lines, drawn = self._known.pop(path, (attempt, 0, {}, ""))
            if before != attempt or size < offset:
                offset, lines, drawn = 0, {}, ""
            if size > offset:
                offset = _read(path, offset, lines)
                drawn = _svg({method: mean_over_seeds(list(seeds.values())) for method, seeds in lines.items()})
            self._known[path] = attempt, offset, lines, drawn
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return drawn


def _read(path: Path, offset: int, lines: Lines) -> int:
    """Add the rows after byte `offset` to `lines`; returns the offset to continue from."""
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    for line in whole.splitlines():
        if b'"test"' not in line or b'"accuracy"' not in line:
            continue
        row = json.loads(line)
        method, _, seed = str(row["learner"]).rpartition("-seed")
        if row["stage"] == "students" and row["kind"] == "test" and method:
            points = lines.setdefault(method, {}).setdefault(int(seed), [])
            points.append((float(row["epoch"]), float(row["values"]["accuracy"])))
            if len(points) > 8 * MOST:
                points[:] = points[::2]
    return offset + len(whole)


def _svg(lines: dict[str, list[Point]]) -> str:
    drawn = {method: thin(points, MOST) for method, points in lines.items() if len(points) > 1}
    if not drawn:
        return ""
    every = [point for points in drawn.values() for point in points]
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    across, up = (WIDTH - 2 * EDGE) / max(right - left, 1e-9), (HEIGHT - 2 * EDGE) / max(high - low, 1e-9)
    paths = []
    for method, points in drawn.items():
        places = " ".join(f"{EDGE + (x - left) * across:.1f},{HEIGHT - EDGE - (y - low) * up:.1f}" for x, y in points)
        paths.append(f'<polyline class="{escape(method_style(method))}" points="{places}"/>')
    said = "; ".join(
        _("{method} {first} to {last} %", method=method_name(m), first=f"{p[0][1]:.1f}", last=f"{p[-1][1]:.1f}")
        for m, p in drawn.items()
    )
    label = escape(_("Test accuracy: {accuracies}", accuracies=said))
    return f'<svg class="spark" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(paths)}</svg>'
