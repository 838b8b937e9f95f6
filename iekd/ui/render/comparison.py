"""Every network's answer to a picture, and the sizes of the networks, as HTML. No Gradio."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from iekd.config.methods import method_name
from iekd.inference.compare import ImageResult
from iekd.inference.predict import load_predictor
from iekd.models.catalog import model_name
from iekd.results.prediction_table import PredictionTable, Row, to_csv
from iekd.ui.render.examples import data_url
from iekd.ui.render.words import count, method_style

REPEATS = 7  # predictions of one picture; the latency shown is their median


def card_html(result: ImageResult, truth: str | None) -> str:
    """One picture as the networks see it, and what each predicts. truth: its class, where that is known."""
    name = escape(result.name)
    if result.error or result.seen is None:
        return (
            f'<article class="answer broken"><p class="problem" role="alert">{escape(result.error or "")}</p></article>'
        )
    size = result.seen.shape[0]
    swapped = "; bright and dark swapped, as in the training pictures" if result.inverted else ""
    picture = (
        f'<div class="seen"><img src="{data_url(result.seen)}" alt="{name}"><p><b>{name}</b>'
        f"<small>as the networks see it, {size} × {size}{swapped}</small></p></div>"
    )
    teacher = result.predictions.get("teacher")
    said = []
    for model, prediction in result.predictions.items():
        mark = ""
        if truth is not None:
            right = prediction.label == truth
            mark += f'<span class="mark {"yes" if right else "no"}">{"✓ right" if right else "✗ wrong"}</span>'
        if teacher is not None and model != "teacher":
            same = prediction.label == teacher.label
            words = "= agrees with the teacher" if same else "≠ differs from the teacher"
            mark += f'<span class="mark">{words}</span>'  # no colour: all may agree and be wrong
        bars = "".join(
            f'<li><span>{escape(label)}</span><b>{score:.0%}</b><i style="width:{max(0.5, score * 100):.1f}%"></i></li>'
            for label, score in prediction.top
        )
        title = "Teacher" if model == "teacher" else escape(method_name(model))
        said.append(
            f'<section class="said {escape(method_style(model))}"><h4>{title}</h4><ol>{bars}</ol>'
            f"<p>{mark}</p></section>"
        )
    unlike = f'<p class="warn">{escape(result.unlike)}</p>' if result.unlike else ""
    return f'<article class="answer">{picture}{unlike}<div class="sayings">{"".join(said)}</div></article>'


def comparison_csv(models: Iterable[str], results: Sequence[ImageResult]) -> str:
    """The predictions of all models as CSV: a row for each image, a group of columns for each model."""
    top = max((len(p.top) for result in results for p in result.predictions.values()), default=1)
    rows = [
        Row(
            result.name, [(p.label, p.top) for p in result.predictions.values()], result.is_unlike, result.inverted,
            result.error or "",
        )
        for result in results
    ]  # fmt: skip
    return to_csv(PredictionTable(top, list(models)), rows)


def models_table(models: Mapping[str, Path], image: Any) -> str:
    """Size, latency on this image and test accuracy of each network."""
    rows = []
    loaded = {name: load_predictor(folder) for name, folder in models.items()}
    times: dict[str, list[float]] = {}  # by architecture: how it was taught makes a network no faster
    for _ in range(REPEATS):
        for classifier in loaded.values():
            times.setdefault(classifier.card.model, []).append(classifier.predict(image).milliseconds)
    for name, classifier in loaded.items():
        card = classifier.card
        title = "Teacher" if name == "teacher" else escape(method_name(name))
        accuracy = f"{card.accuracy:.2f} %" if card.accuracy is not None else "–"
        took = f"{statistics.median(times[card.model]):.1f} ms"
        cells = (("Parameters", count(card.params)), ("File", f"{classifier.bytes / 1024:,.0f} KB"),
                 ("One picture takes", took), ("Test accuracy", accuracy))  # fmt: skip
        body = "".join(f'<td data-label="{label}">{text}</td>' for label, text in cells)
        rows.append(
            f'<tr><th scope="row"><i class="key {escape(method_style(name))}"></i>{title} '
            f"<small>{model_name(card.model)}</small></th>{body}</tr>"
        )
    head = "<tr><th>Network</th><th>Parameters</th><th>File</th><th>One picture takes</th><th>Test accuracy</th></tr>"
    note = (
        f'<p class="sub">Time: median of {REPEATS} or more on the processor, one picture at a time; the same for all '
        "networks that are built alike.</p>"
    )
    table = f'<div class="scroll"><table class="results">{head}{"".join(rows)}</table></div>'
    return f'<div class="card"><h3>Size and speed</h3>{table}{note}</div>'
