"""The large chart: the data that the page gets, and what can be done with it in the browser."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ui_helpers import CLIENT, PATIENCE

from iekd.config.run import make_config
from iekd.runs.store import Run, Store
from iekd.ui.render.chart import chart_data, chart_html
from iekd.ui.render.curves import metrics_size


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two methods and two seeds, three epochs of ten steps, a second each; one loss is not a number."""
    config = make_config(methods=("baseline", "ie-ft"), seeds=(0, 1), epochs=4, name="<b>mine</b>")
    made, handle = Store(tmp_path).create(config)
    assert handle is not None
    rows = [
        {
            "time": 100.0 + epoch, "stage": "students", "learner": f"{method}-seed{seed}", "kind": kind,
            "epoch": float(epoch), "step": 10 * epoch,
            "values": {"accuracy": 10.0 * epoch + seed} if kind == "test" else
                      {"loss": 1.0, "cross_entropy": float("nan") if epoch == 2 else 1 / epoch},
        }
        for epoch in (1, 2, 3) for kind in ("train", "test") for method in config.methods for seed in (0, 1)
    ]  # fmt: skip
    (made.path / "metrics.jsonl").write_text("".join(json.dumps({"seq": i, **r}) + "\n" for i, r in enumerate(rows)))
    return made


def test_the_data_has_means_seeds_and_both_other_axes(run: Run) -> None:
    found = chart_data(run, run.config)
    assert found["axis"] == {"epoch": [1, 2, 3], "step": [10, 20, 30], "time": [0, 1, 2]}
    accuracy = found["figures"][0]
    assert (accuracy["title"], accuracy["epochs"], accuracy["students"]) == ("Test accuracy", 4, True)
    plain, _ = accuracy["series"]
    assert plain["points"] == [[1, 2, 3], [10.5, 20.5, 30.5]]
    assert [seed[1] for seed in plain["seeds"]] == [[10, 20, 30], [11, 21, 31]]
    loss = found["figures"][1]["series"][0]
    assert loss["points"][1] == [1.0, None, pytest.approx(1 / 3, rel=1e-5)]


def test_the_element_is_json_that_no_name_breaks_out_of(run: Run) -> None:
    text = chart_html(run, run.config)
    (data,) = re.findall(r'data-chart="([^"]*)"', text)
    assert json.loads(html.unescape(data))["title"] == "<b>mine</b>"
    assert "<b>" not in text
    stamp = re.findall(r'data-stamp="(\w+)"', text)
    assert stamp == re.findall(r'data-stamp="(\w+)"', chart_html(run, run.config))
    # benchmarks/page.py measures with it how late the page is
    assert f'data-bytes="{metrics_size(run)}"' in text


def test_the_code_is_served_under_an_address_that_changes_with_it(server: str) -> None:
    (address,) = re.findall(r'src="(/iekd/chart\.js\?v=\w+)" defer', CLIENT.get(server).text.split("<meta")[0])
    answer = CLIENT.get(server + address)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]
    assert "uPlot" in answer.text
    assert "iekdChart" in answer.text


@pytest.fixture
def chart(browser: Any, server: str, finished_run: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(1000 * PATIENCE)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(f"{server}/?run={finished_run}")
    page.wait_for_selector(".chart-plot canvas")
    yield page
    assert page.complaints == []
    page.close()


def axis_labels(page: Any) -> str:
    """What the plot's picture is, as a stand-in for its labels, which are painted."""
    return str(page.evaluate("document.querySelector('.chart-plot canvas').toDataURL()"))


PLANTED = {
    "title": "planted", "axis": {"epoch": [1, 4, 10], "step": [10, 40, 100], "time": [0, 5, 60]},
    "figures": [
        {"title": title, "y": "y", "unit": unit, "hint": f"about {title}", "level": level, "levelLabel": "Teacher",
         "epochs": 10, "students": True, "series": [
            {"label": "Plain student", "style": "baseline", "points": [[1, 4, 10], [10, 60, 80]],
             "seeds": [[[1, 4, 10], [8, 55, 79]], [[1, 4, 10], [12, 65, 81]]]},
            {"label": "IE-FT", "style": "ie-ft", "points": [[1, 4, 10], [20, 70, 85]], "seeds": []}]}
        for title, unit, level in (("Test accuracy", " %", 90), ("Loss", "", None))
    ],
}  # fmt: skip
PLANT = """(text) => {
  const element = document.querySelector('#chart-data [data-chart]').cloneNode();
  element.dataset.chart = text;
  element.dataset.stamp = 'planted';
  document.querySelector('#chart-data [data-chart]').replaceWith(element);
}"""


@pytest.mark.browser
def test_every_control_changes_the_picture_and_can_be_taken_back(chart: Any) -> None:
    chart.evaluate(PLANT, json.dumps(PLANTED))
    chart.locator(".chart [name=curve] option[value=Loss]").wait_for(state="attached")
    seen = {axis_labels(chart)}
    for name in ("zoom", "log"):
        chart.locator(f".chart [name={name}]").check()
        seen.add(axis_labels(chart))
        chart.locator(f".chart [name={name}]").uncheck()
    for axis in ("step", "time", "epoch"):
        chart.locator(".chart [name=axis]").select_option(axis)
        seen.add(axis_labels(chart))
    assert len(seen) == 5
    chart.locator(".chart [name=smooth]").fill("60")
    seen.add(axis_labels(chart))
    assert len(seen) == 6
    chart.locator(".chart [name=smooth]").fill("0")
    chart.locator(".chart [name=curve]").select_option("Loss")
    assert "about Loss" in chart.locator(".chart-hint").inner_text()
    chart.locator(".chart [name=curve]").select_option("Test accuracy")
    assert axis_labels(chart) in seen


BEFORE = {**PLANTED, "figures": [
    {**PLANTED["figures"][1], "title": "Auto-encoder"}, {**PLANTED["figures"][0], "series": []},
]}  # fmt: skip
PAINTED = """() => {
  window.painted = [];
  const paint = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {
    painted.push(text);
    paint.call(this, text, ...where);
  };
}"""


@pytest.mark.browser
def test_the_students_accuracy_takes_over_unless_a_curve_was_picked(chart: Any) -> None:
    curve = chart.locator(".chart [name=curve]")
    chart.evaluate(PLANT.replace("'planted'", "'before'"), json.dumps(BEFORE))
    chart.wait_for_function("document.querySelector('.chart [name=curve]').value === 'Auto-encoder'")
    after = {**PLANTED, "figures": [*PLANTED["figures"], BEFORE["figures"][0]]}
    chart.evaluate(PLANT, json.dumps(after))
    chart.wait_for_function("document.querySelector('.chart [name=curve]').value === 'Test accuracy'")
    curve.select_option("Loss")
    chart.evaluate(PLANT.replace("'planted'", "'more'"), json.dumps({**after, "title": "more"}))
    chart.locator("#chart-data [data-stamp=more]").wait_for(state="attached")
    assert curve.input_value() == "Loss"


@pytest.mark.browser
def test_the_axes_have_whole_epochs_and_round_numbers_up_to_100_percent(chart: Any) -> None:
    short = json.loads(json.dumps(PLANTED).replace("10, ", "2, ").replace("10]", "5]"))
    short["figures"][0]["epochs"] = 5
    chart.evaluate(PAINTED)
    chart.evaluate(PLANT, json.dumps(short))
    chart.locator(".chart [name=curve] option[value=Loss]").wait_for(state="attached")
    chart.evaluate("painted.length = 0")
    chart.locator(".chart [name=log]").check()
    chart.wait_for_function("painted.length > 0")
    numbers = {float(text) for text in chart.evaluate("painted") if re.fullmatch(r"[\d.]+", text)}
    assert numbers >= {0, 1, 2, 3, 4, 5}, "epochs"
    assert all(number == int(number) for number in numbers), numbers
    assert {50, 100} <= numbers
    assert max(numbers) == 100


@pytest.mark.browser
def test_a_short_run_has_no_ticks_between_epochs(chart: Any) -> None:
    chart.evaluate("""() => {
      window.painted = [];
      const paint = CanvasRenderingContext2D.prototype.fillText;
      CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
        window.painted.push(text);
        return paint.call(this, text, ...rest);
      };
    }""")
    series = [{"label": "A", "style": "baseline", "points": [[1, 2], [10.5, 60.5]], "seeds": []}]
    figure = {**PLANTED["figures"][0], "epochs": 2, "level": None, "series": series}
    chart.evaluate(PLANT, json.dumps({**PLANTED, "axis": {"epoch": [1, 2]}, "figures": [figure]}))
    chart.wait_for_function("window.painted.includes('epoch')")
    written = chart.evaluate("window.painted")
    assert {"0", "1", "2"} <= set(written)
    assert [text for text in written if re.fullmatch(r"[01]\.\d+", text)] == []


@pytest.mark.browser
def test_the_legend_hides_a_curve_and_the_mouse_reads_values(chart: Any) -> None:
    button = chart.locator(".chart-legend [data-line='IE-FT']")
    before = axis_labels(chart)
    button.click()
    assert chart.locator(".chart-legend [data-line='IE-FT']").get_attribute("aria-pressed") == "false"
    assert axis_labels(chart) != before
    chart.locator(".chart-legend [data-line='IE-FT']").click()
    assert axis_labels(chart) == before
    box = chart.locator(".chart .u-over").bounding_box()
    chart.mouse.move(box["x"] + box["width"] - 2, box["y"] + 30)
    chart.wait_for_function("document.querySelector('.chart-at').textContent === 'epoch 2'")
    chart.mouse.move(box["x"] + box["width"] - 2, box["y"] - 60)
    chart.wait_for_function("document.querySelector('.chart-at').textContent === ''")
    words = chart.locator(".chart-plot").get_attribute("aria-label")
    assert re.search(r"Test accuracy: .*Plain student [\d.]+ %.*IE-FT [\d.]+ %", words)


@pytest.mark.browser
def test_it_can_be_saved(chart: Any, finished_run: str) -> None:
    with chart.expect_download() as got:
        chart.locator(".chart [name=csv]").click()
    assert got.value.suggested_filename == f"{finished_run}-test-accuracy.csv"
    rows = list(csv.DictReader(Path(got.value.path()).read_text().splitlines()))
    assert {row["curve"] for row in rows} == {"Plain student", "IE-FT"}
    assert [row["epoch"] for row in rows if row["curve"] == "Plain student"] == ["1", "2"]
    with chart.expect_download() as got:
        chart.locator(".chart [name=png]").click()
    assert Path(got.value.path()).read_bytes().startswith(b"\x89PNG")


@pytest.mark.browser
def test_a_phone_shows_it_whole(chart: Any) -> None:
    chart.set_viewport_size({"width": 390, "height": 800})
    chart.wait_for_function("document.querySelector('.chart-plot canvas').getBoundingClientRect().width < 390")
    assert chart.evaluate("document.documentElement.scrollWidth <= innerWidth")
