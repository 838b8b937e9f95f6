"""How long the browser's main thread is busy when the large chart gets new data: 5 series of 2,000 points, 3 seeds.

python benchmarks/chart.py [--points 2000] [--series 5] [--repeats 20]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from typing import Any

from browser import ARGUMENTS, HOW_TO_GET, find_browser
from playwright.sync_api import sync_playwright

from iekd.config.methods import METHODS
from iekd.ui.app import style
from iekd.ui.render.chart import chart_script
from iekd.ui.render.colours import method_colours
from iekd.ui.render.template import render

# microtasks (the observer, uPlot's drawing) are over when a message arrives
UPDATE = """async (texts) => {
  const took = [], arrived = () => new Promise((done) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  });
  for (const [i, text] of texts.entries()) {
    const element = document.createElement('div');
    Object.assign(element.dataset, {chart: text, stamp: String(i)});
    const began = performance.now();
    document.querySelector('#chart-data').replaceChildren(element);
    await arrived();
    took.push(performance.now() - began);
    await new Promise((done) => setTimeout(done, 100));
  }
  return took;
}"""


def data(series: int, points: int, seeds: int) -> str:
    """Curves that rise and rattle, as JSON."""
    x = [round(20 * (i + 1) / points, 4) for i in range(points)]

    def line(top: float) -> list[list[float]]:
        return [x, [round(top * (1 - 0.9 ** (2 * e)) + random.uniform(-1, 1), 4) for e in x]]

    lines: list[dict[str, Any]] = [
        {"label": name, "style": name, "points": line(90), "seeds": [line(90) for _ in range(seeds)]}
        for name in list(METHODS)[:series]
    ]
    axis = {"epoch": x[::10], "step": list(range(0, points, 10)), "time": x[::10]}
    figure = {"title": "Test accuracy", "y": "percent right", "unit": " %", "hint": "", "level": 95.0,
              "levelLabel": "Teacher", "epochs": 20, "students": True, "series": lines}  # fmt: skip
    return json.dumps({"title": "benchmark", "axis": axis, "figures": [figure]})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--series", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    browser = find_browser()
    if browser is None:
        sys.exit(f"No browser was found. {HOW_TO_GET}.")
    random.seed(0)
    page_html = (
        f"<style>{style()}{method_colours()}</style><div id=box>{render('chart')}</div><div id=chart-data></div>"
        f"<script>{chart_script()[0]}</script><script>iekdChart(document.querySelector('#box'))</script>"
    )
    print("| seeds of a series | median ms | largest ms | bytes of data |\n|---:|---:|---:|---:|")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=ARGUMENTS)
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        for seeds in (0, 3):
            page.set_content(f"<!doctype html><title>chart</title>{page_html}")
            texts = [data(arguments.series, arguments.points, seeds) for _ in range(arguments.repeats)]
            took = page.evaluate(UPDATE, texts)
            print(f"| {seeds} | {statistics.median(took):.1f} | {max(took):.1f} | {len(texts[0]):,} |")
        chromium.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
