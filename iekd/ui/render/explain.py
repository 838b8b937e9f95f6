"""An explanation of networks as HTML: maps laid over images, and the numbers with a sentence on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from iekd.explain.about import CKA, FLATNESS, GRAD_CAM, HALVES, LRP, NEURONS
from iekd.explain.draw import METHODS, OPACITY, full_strength, layer
from iekd.language import _, ngettext
from iekd.models.artifact import TEACHER
from iekd.runs.explained import Explained
from iekd.ui.render.examples import data_url, smaller
from iekd.ui.render.explain_words import (
    PartWords,
    capital,
    chosen_words,
    cka_words,
    conservation_words,
    faithful_words,
    flatness_words,
    halves_words,
    neurons_words,
    parts_of,
    percent,
    stage_title,
    two_decimals,
)
from iekd.ui.render.figures import Figure, Series, draw
from iekd.ui.render.template import render

SIDE = 160  # pixels of an image on the page at most
ALPHAS = 32  # steps of a map's strength, which nobody can tell from 256, and which compress better
HEAT = 45  # percent of colour behind a number, which stays readable on it
Tell = Callable[[str], str]


def maps_html(
    explained: Explained, link: str = "", own: bool = False, given: int = 0, tell: Tell = str
) -> str:  # fmt: skip
    """The images with their maps, one image at a time, and how faithful the maps are.

    Args:
        link: HTML of downloads.
        own: they are somebody's own images, of which no right class is known. given: how many they gave.
        tell: what makes a text fit for whoever looks.
    """
    found, parts = explained.found, parts_of(explained.found)
    places = {(maps["method"], f"{maps['network']} {maps['half']}".strip()): i for i, maps in enumerate(found["maps"])}
    methods = [method for method in (GRAD_CAM, LRP) if any(method == key[0] for key in places)]
    slides = []
    for picture, image in enumerate(found["images"]):
        label = image["label"]
        cells = []
        for part in parts:
            layers = {m: _layer(explained, places[m, part.key], picture) for m in methods if (m, part.key) in places}
            first = next((places[m, part.key] for m in methods if (m, part.key) in places), None)
            predicted = found["maps"][first]["explained"][picture] if first is not None else ""
            cells.append({
                "part": part, "layers": layers, "predicted": predicted, "known": bool(label and predicted),
                "right": predicted == label,
            })  # fmt: skip
        slides.append({
            "image": data_url(smaller(explained.images[picture], SIDE)),
            "grey": data_url(_grey(explained.images[picture])), "name": image["name"], "label": label, "cells": cells,
        })  # fmt: skip
    right = [{cell["part"].key: cell["right"] for cell in slide["cells"] if cell["known"]} for slide in slides]
    rows = [
        {"part": part, "scores": [_score(found["maps"][places[m, part.key]] if (m, part.key) in places else None)
                                  for m in methods]}
        for part in parts
    ]  # fmt: skip
    return render(
        "explain_maps", own=own, methods=[{"key": m, "title": METHODS[m], "about": _about(found, m)} for m in methods],
        slides=slides, opacity=round(100 * OPACITY), about=_about(found, "faithfulness"), rows=rows, link=Markup(link),
        several=len(slides) > 1,
        chosen="" if own else chosen_words(right, parts),
        conserved=conservation_words(found, parts),
        halves=any(p.half for p in parts),
        given=given,
        summary=faithful_words(found, parts, {m: METHODS[m] for m in methods}),
        unreadable=[tell(text) for text in found["unreadable"]],
        problems=_problems(found, (GRAD_CAM, LRP), parts, tell),
    )  # fmt: skip


def numbers_html(explained: Explained, tell: Tell = str) -> str:
    """Similarity, active neurons, flatness, and what each half is worth."""
    found, parts = explained.found, parts_of(explained.found)
    return render(
        "explain_numbers", sample=found["sample_size"], about={name: _about(found, name) for name in found["about"]},
        cka={
            "words": cka_words(found, parts), "stages": _similarities(found, parts),
            "problems": _problems(found, (CKA,), parts, tell),
        },
        neurons={
            "words": neurons_words(found, parts), "table": _neurons(found, parts),
            "problems": _problems(found, (NEURONS,), parts, tell),
        },
        flatness={
            "words": flatness_words(found, parts), "figure": Markup(_curve(found, parts)),
            "problems": _problems(found, (FLATNESS,), parts, tell),
        },
        halves={
            "words": halves_words(found, parts), "rows": _worths(found, parts),
            "problems": _problems(found, (HALVES,), parts, tell),
        },
        without_teacher=not any(network["role"] == TEACHER for network in found["networks"]),
    )  # fmt: skip


def _about(found: Mapping[str, Any], name: str) -> dict[str, str]:
    """The texts of a diagnostic."""
    return {key: _(text) for key, text in found["about"][name].items()}


def _layer(explained: Explained, place: int, picture: int) -> str:
    """One map as an address of an image that is transparent where the map says nothing."""
    found, one = explained.found["maps"], explained.found["maps"][place]
    own = [
        explained.maps[i][picture] for i, other in enumerate(found)
        if (other["method"], other["network"]) == (one["method"], one["network"])
    ]  # fmt: skip
    drawn = layer(explained.maps[place][picture], max(map(full_strength, own)))
    drawn[:, :, 3] = np.round(drawn[:, :, 3] / 255 * (ALPHAS - 1)) * 255 // (ALPHAS - 1)
    drawn[drawn[:, :, 3] == 0] = 0
    return data_url(smaller(drawn, SIDE))


def _grey(image: np.ndarray) -> np.ndarray:
    return smaller(image.mean(2).round().astype(np.uint8)[:, :, None], SIDE)


def _score(maps: Mapping[str, Any] | None) -> str:
    faithful = maps and maps["faithfulness"]
    if not faithful:
        return "–"
    error = f" ± {faithful['error']:.2f}" if faithful["error"] else ""
    return two_decimals(faithful["score"]) + error


def _problems(found: Mapping[str, Any], names: Sequence[str], parts: Sequence[PartWords], tell: Tell) -> list[str]:
    """Why something was not computed, for the page: networks by their titles."""
    named, said = {part.key: part for part in parts}, []
    for problem in found["problems"]:
        if problem["diagnostic"] in names:
            reason = tell(problem["reason"])
            for key, part in named.items():
                reason = reason.replace(f"'{key}'", part.name)
            kind = METHODS.get(problem["diagnostic"], "")
            if not kind:
                said.append(capital(reason))
            elif problem["network"] in named:
                network = named[problem["network"]].name
                said.append(_("{method} of {network}: {reason}", method=kind, network=network, reason=reason))
            else:
                said.append(f"{kind}: {reason}")
    return said


def _similarities(found: Mapping[str, Any], parts: Sequence[PartWords]) -> list[dict[str, Any]]:
    """A table of each stage, the last stage first. The diagonal and what mirrors it are left out."""
    titles = {part.key: part for part in parts}
    tables = []
    for stage in found[CKA]:
        if len(stage["names"]) < 2:
            continue
        shown = [titles[name] for name in stage["names"]]
        rows = []
        for i, part in enumerate(shown[1:], 1):
            values = stage["values"][i][:i]
            rows.append({
                "part": part,
                "cells": [
                    {"text": "–" if value is None else two_decimals(value), "heat": _heat(value or 0)}
                    for value in values
                ],
            })  # fmt: skip
        tables.append({
            "title": stage_title(stage["stage"], len(found[CKA])), "columns": shown[:-1], "rows": rows,
            "images": stage["images"],
        })  # fmt: skip
    return tables


def _neurons(found: Mapping[str, Any], parts: Sequence[PartWords]) -> dict[str, Any]:
    stages = sorted({one["stage"] for one in found[NEURONS]})
    values = {(one["name"], one["stage"]): one for one in found[NEURONS]}
    rows = []
    for part in parts:
        cells = []
        for stage in stages:
            one = values.get((part.key, stage))
            silent = one["silent_channels"] if one else 0
            cells.append({
                "text": percent(100 * one["share"]) if one else "", "heat": _heat(one["share"]) if one else 0,
                "note": _silent(silent, one["channels"]) if one and silent else "",
            })  # fmt: skip
        if any(cell["text"] for cell in cells):
            rows.append({"part": part, "cells": cells})
    return {"columns": [stage_title(stage, -stages[0]) for stage in stages] if stages else [], "rows": rows}


def _silent(silent: int, channels: int) -> str:
    return _("{silent} of {channels} channels silent", silent=silent, channels=channels)


def _heat(value: float) -> int:
    return round(HEAT * min(1.0, max(0.0, value)))


def _curve(found: Mapping[str, Any], parts: Sequence[PartWords]) -> str:
    if not found[FLATNESS]:
        return ""
    named = {part.key: part for part in parts}
    series = tuple(
        Series(
            named[one["network"]].title, named[one["network"]].style,
            tuple((100 * level, loss) for level, loss in zip(one["levels"], one["mean"], strict=True)),
        )
        for one in found[FLATNESS]
    )  # fmt: skip
    first = found[FLATNESS][0]
    return draw(
        Figure(
            _("Loss under weight noise"), _("loss (cross-entropy)"), series, (0.0, 100 * first["levels"][-1]),
            x_label=_("noise, % of each filter's size"),
            hint=ngettext(
                "mean of {directions} random directions, {number} test image",
                "mean of {directions} random directions, {number} test images",
                first["images"], directions=len(first["seeds"]),
            ),
        )
    )  # fmt: skip


def _worths(found: Mapping[str, Any], parts: Sequence[PartWords]) -> list[dict[str, Any]]:
    """A row for each accuracy: the IE student first, then the same channels of the plain student."""
    titles = {part.key: part for part in parts}
    rows = []
    for worth in found[HALVES]:
        own = worth["network"] == worth["split_of"]
        whole = titles[worth["network"]]
        names = (
            (_("{network}, all channels", network=whole.title), whole.style),
            (_("Inheritance half alone") if own else _("Same channels as the inheritance half"), "inheritance-half"),
            (_("Exploration half alone") if own else _("Same channels as the exploration half"), "exploration-half"),
        )
        for (title, style), key, (low, high) in zip(
            names, ("whole", "inheritance", "exploration"), worth["intervals"], strict=True
        ):
            rows.append({
                "title": title, "style": style if own else whole.style, "value": worth[key], "low": low, "high": high,
                "first": key == "whole", "text": percent(worth[key]),
                "range": _("{low} to {high}", low=f"{low:.1f}", high=f"{high:.1f}"),
            })  # fmt: skip
    return rows
