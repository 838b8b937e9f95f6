"""Figures are drawn from numbers alone."""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from iekd.config.methods import CROSS_ENTROPY, METHODS, combined, method_spec
from iekd.config.run import make_config
from iekd.runs.store import Store
from iekd.ui.render.colours import method_colours
from iekd.ui.render.curves import MOST, Line, figures, term_figures
from iekd.ui.render.figures import MAX_POINTS, Figure, Series, draw, mean_over_seeds, number, short, thin, ticks
from iekd.ui.render.words import method_style


def svg_of(figure: Figure) -> ET.Element:
    html = draw(figure)
    return ET.fromstring(html[html.index("<svg") : html.index("</svg>") + 6])


def figure(*series: Series, **values: object) -> Figure:
    return Figure("Test accuracy", "percent", series, (0, 10), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "span", [(0.0, 1.0), (86.64, 92.57), (-0.026, -0.022), (3e-5, 7e-5), (0.0, 1e6), (5.0, 5.0), (0.0, 0.0)]
)
def test_ticks_enclose_the_values_evenly(span: tuple[float, float]) -> None:
    marks = ticks(*span)
    assert marks[0] <= span[0] + 1e-12
    assert marks[-1] >= span[1] - 1e-12
    steps = [b - a for a, b in pairwise(marks)]
    assert 1 <= len(steps) <= 7
    assert max(steps) - min(steps) < 1e-6 * max(steps)


@pytest.mark.parametrize("epochs", [2, 3, 4, 7, 10, 160])
def test_epochs_are_counted_in_whole_numbers(epochs: int) -> None:
    svg = svg_of(replace(figure(Series("KD", "kd", ((1, 2.0), (2, 3.0)))), x_range=(0, epochs)))
    below = [t.text or "" for t in svg.iter("text") if t.get("text-anchor") == "middle" and not t.get("transform")]
    assert below.pop() == "epoch"
    assert below[0] == "0"
    assert all(text.isdigit() for text in below)
    assert 3 <= len(below) <= 9


def test_tick_labels_differ_from_each_other() -> None:
    marks = ticks(0.0231, 0.0244)
    assert len({number(m, marks) for m in marks}) == len(marks)


@pytest.mark.parametrize("top", [2.4e5, 1.4e13, 6e37])
def test_large_losses_keep_their_labels_short_and_inside(top: float) -> None:
    svg = svg_of(figure(Series("KD", "kd", ((1, 2.0), (2, top)))))
    labels = [t for t in svg.iter("text") if t.get("text-anchor") == "end"]
    texts = [t.text or "" for t in labels]
    assert max(map(len, texts)) <= 7
    assert len(set(texts)) == len(texts)
    assert all(float(t.get("x") or 0) - 7.2 * len(t.text or "") > 16 for t in labels), "beside the axis' title"
    assert f"e{math.floor(math.log10(top))}" in draw(figure(Series("KD", "kd", ((1, 2.0), (2, top)))))


def test_long_labels_get_the_room_they_need() -> None:
    svg = svg_of(figure(Series("IE-FT", "ie-ft", ((1, -0.01910), (2, -0.01902)))))
    for text in svg.iter("text"):
        if text.get("text-anchor") == "end":
            assert float(text.get("x") or 0) - 7.2 * len(text.text or "") > 16


def test_values_are_short() -> None:
    assert [short(v) for v in (91.27, 1.5, 0.274, 0.0123, -0.5)] == ["91.3", "1.50", "0.274", "0.0123", "\u22120.500"]
    assert short(math.nan) == "not a number"
    assert [short(v) for v in (99_999.0, 138_222.0, -1.38e13)] == ["99999.0", "1.38e5", "\u22121.38e13"]


def test_thinning_keeps_ends_and_order() -> None:
    points = [(float(i), float(i * i)) for i in range(5000)]
    kept = thin(points)
    assert len(kept) == MAX_POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == sorted(kept)


def test_mean_over_seeds_uses_what_all_have() -> None:
    assert mean_over_seeds([[(1, 10.0), (2, 20.0), (3, 1.0)], [(1, 20.0), (2, 40.0)]]) == [(1, 15.0), (2, 30.0)]
    assert mean_over_seeds([]) == []


def test_a_line_for_each_series_and_the_teachers_level() -> None:
    svg = svg_of(
        figure(
            Series("Plain student", "baseline", ((1, 80.0), (2, 82.0))),
            Series("IE-FT", "ie-ft", ((1, 81.0), (2, 85.0))),
            level=93.0,
        )
    )
    ns = [e.get("class") for e in svg.iter() if "line" in (e.get("class") or "").split()]
    assert ns == ["line teacher level", "line baseline", "line ie-ft"]
    assert any("IE-FT, epoch 2: 85.0" in (t.text or "") for t in svg.iter("title"))


def test_everything_stays_inside_the_drawing() -> None:
    svg = svg_of(figure(Series("KD", "kd", tuple((i / 10, math.sin(i)) for i in range(100))), level=4.0))
    for line in svg.iter("polyline"):
        for pair in str(line.get("points")).split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 420
            assert 0 <= y <= 250


def test_no_points_or_broken_numbers_still_give_a_figure() -> None:
    assert not [e for e in svg_of(figure()).iter() if e.tag in ("polyline", "circle")]
    broken = svg_of(figure(Series("Plain student", "baseline", ((1, math.nan), (2, math.inf), (3, 1.0)))))
    assert [e.findtext("title") for e in broken.iter("circle")] == ["Plain student, epoch 3: 1.00"]
    numbers = [value for e in broken.iter() for name, value in e.items() if name not in ("class", "aria-label")]
    assert not [value for value in numbers if "nan" in value or "inf" in value]


@pytest.mark.parametrize("level", [None, 94.4, 99.9, 100.0])
def test_no_axis_of_percents_goes_above_a_hundred(level: float | None) -> None:
    marks = [float(text.text or "") for text in svg_of(figure(unit=" %", level=level)).iter() if text.tag == "text"
             and text.get("text-anchor") == "end"]  # fmt: skip
    assert len(marks) >= 2
    assert max(marks) <= 100


def test_losses_are_drawn_before_the_first_test(tmp_path: Path) -> None:
    run, handle = Store(tmp_path).create(make_config())
    assert handle is not None
    row = {"stage": "students", "learner": "baseline-seed0", "kind": "train", "epoch": 0.2, "step": 15,
           "values": {"cross_entropy": 2.3}}  # fmt: skip
    writer = run.metrics_writer()
    writer.append(row)
    writer.close()
    assert [f.title for f in figures(run, run.config)] == ["Test accuracy", "Loss on the labels"]
    os.close(handle)


def test_terms_of_different_size_have_figures_of_their_own(tmp_path: Path) -> None:
    """ie-od inherits by a sum in the tens, ie-ft by a mean in the thousandths: in one figure one of them is a line."""
    config = make_config(methods=("ie-ft", "ie-od", "ie-ft+kd"))
    run, handle = Store(tmp_path).create(config)
    assert handle is not None
    writer = run.metrics_writer()
    for method, size in (("ie-ft", 0.01), ("ie-ft+kd", 0.01), ("ie-od", 15.0)):
        values = {"cross_entropy": 2.3, "inheritance": size, "exploration": -size}
        writer.append({"stage": "students", "learner": f"{method}-seed0", "kind": "train", "epoch": 0.2, "step": 15,
                       "values": values})  # fmt: skip
    writer.close()
    os.close(handle)
    found = {f.title: [s.style for s in f.series] for f in figures(run, config)}
    assert found["Inheritance loss"] == ["ie-ft", "ie-ft with-kd"]
    assert found["Inheritance loss, by overhaul"] == ["ie-od"]
    assert found["Exploration loss"] == ["ie-ft", "ie-ft with-kd", "ie-od"]


def test_students_that_diverged_are_named_and_not_drawn(tmp_path: Path) -> None:
    """Their last numbers are so large that those of the others would be a flat line."""
    config = make_config(methods=("baseline", "kd", "dml"), seeds=(0, 1))
    run, handle = Store(tmp_path).create(config)
    assert handle is not None
    writer = run.metrics_writer()
    for learner, size in (("baseline-seed0", 2.0), ("baseline-seed1", 2.2), ("kd-seed0", 2.4), ("kd-seed1", 9e30)):
        values = {"cross_entropy": size, **({"kd": size} if learner[:2] == "kd" else {})}
        row = {"stage": "students", "learner": learner, "epoch": 1.0, "step": 15}
        writer.append({**row, "kind": "train", "values": values})
        if size < 3:
            writer.append({**row, "kind": "test", "values": {"accuracy": 50.0}})
    writer.close()
    status = run.status
    status.diverged = {"kd-seed1": "it did", "dml-seed0": "at once", "dml-seed1": "at once"}
    run.write_status(status)
    found = {f.title: {s.label: s.points for s in f.series if not s.faint} for f in figures(run, config)}
    assert found["Test accuracy"]["DML: diverged"] == ()
    assert found["Loss on the labels"] == {"Plain student, mean of 2": ((1.0, 2.1),), "KD": ((1.0, 2.4),)}
    assert found["Distillation loss"] == {"KD": ((1.0, 2.4),)}
    status.diverged = {f"{m}-seed{s}": "it did" for m in config.methods for s in config.seeds}
    run.write_status(status)
    every = {f.title: [s.points for s in f.series if not s.faint] for f in figures(run, config)}
    assert every["Loss on the labels"] == [((1.0, 2.1),), ((1.0, 4.5e30),)], "who looks for the cause sees it"
    labels = [s.label for f in figures(run, config) for s in f.series if not s.faint and s.points]
    assert all("diverged" in label for label in labels)
    os.close(handle)


def test_a_run_that_is_over_has_no_empty_figures(tmp_path: Path) -> None:
    run, handle = Store(tmp_path).create(make_config())
    assert handle is not None
    writer = run.metrics_writer()
    row = {"stage": "students", "learner": "baseline-seed0", "kind": "train", "epoch": 0.2, "step": 15}
    writer.append({**row, "values": {"cross_entropy": 2.3}})
    writer.close()
    status = run.status
    status.state = "stopped"
    run.write_status(status)
    assert [f.title for f in figures(run, run.config)] == ["Loss on the labels"]
    os.close(handle)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_colour_in_both_tones(name: str) -> None:
    rules, spec = method_colours(), METHODS[name]
    light, dark = (line for line in rules.splitlines() if "--m-baseline:" in line)
    assert f"--m-{name}: {spec.colour[0]};" in light
    assert f"--m-{name}: {spec.colour[1]};" in dark
    assert dark.startswith(".dark")
    assert f".{method_style(name)} {{ --c: var(--m-{name}); }}" in rules


@pytest.mark.parametrize("name", [*METHODS, *combined()])
def test_every_term_of_a_method_has_a_figure(name: str) -> None:
    spec = method_spec(name)
    found = term_figures(("baseline", name))
    assert next(iter(found)) == CROSS_ENTROPY
    assert set(found) == {CROSS_ENTROPY, *spec.terms}
    assert all(methods == [name] for term, methods in found.items() if term != CROSS_ENTROPY)


def test_names_cannot_smuggle_markup_in() -> None:
    html = draw(Figure("<script>", "y", (Series("<b>", "kd", ((1, 1.0),)),), (0, 1)))
    assert "<script>" not in html
    assert "<b>" not in html.replace("<b>&lt;script&gt;</b>", "").replace("<b>1.00</b>", "")


def test_a_long_line_keeps_its_newest_point_and_stays_short() -> None:
    line = Line(averaged=True)
    for i in range(10_001):
        line.add(i, float(i))
    points = line.read()
    assert len(points) <= MOST + 1
    assert points[-1][0] == 10_000
    assert all(a[0] < b[0] for a, b in pairwise(points))


def test_curves_are_read_once_and_again_after_another_attempt(tmp_path: Path) -> None:
    from iekd.config.run import RunConfig
    from iekd.runs.store import Store
    from iekd.ui.render.curves import read_curves

    run, handle = Store(tmp_path).create(RunConfig())
    assert handle is not None
    row = {"stage": "students", "learner": "ie-ft-seed0", "kind": "test", "epoch": 1.0, "step": 1}
    writer = run.metrics_writer()
    for accuracy in (10.0, 20.0):
        writer.append({**row, "values": {"accuracy": accuracy}})
    first = read_curves(run)
    assert read_curves(run) is first, "nothing is read twice"
    writer.append({**row, "values": {"accuracy": 30.0}})
    assert read_curves(run).last("ie-ft-seed0", "test", "accuracy") == 30.0
    os.close(handle)
    # another attempt cuts the file, which then grows beyond what was read before
    os.close(run.reopen())
    (run.path / "metrics.jsonl").unlink()
    writer = run.metrics_writer()
    for accuracy in (1.0, 2.0, 3.0, 4.0):
        writer.append({**row, "values": {"accuracy": accuracy}})
    assert [y for _, y in read_curves(run).line("ie-ft-seed0", "test", "accuracy")] == [1.0, 2.0, 3.0, 4.0]
