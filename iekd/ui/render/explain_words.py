"""What an explanation says, in sentences: names of networks, and a summary of each diagnostic. Plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iekd.config.methods import BASELINE, explores, method_name
from iekd.explain.about import CKA, FLATNESS, HALVES, NEURONS
from iekd.language import _, ngettext
from iekd.models.artifact import TEACHER
from iekd.ui.render.words import listed, method_style, teacher_title

INHERITANCE, EXPLORATION = "inheritance", "exploration"
SAME = 0.005  # CKAs that are no further apart are called equal
LOST = 0.01  # share of the relevance that may be lost
SURE = 0.975  # 95 % of the scores of a random order are closer to 0 than the quantile of this


@dataclass(frozen=True)
class PartWords:
    """A network or a half of one. key: as the explanation names it; name: the title within a sentence; style: CSS
    classes of its colour."""

    key: str
    title: str
    name: str
    style: str
    half: str = ""


def parts_of(found: Mapping[str, Any]) -> list[PartWords]:
    """Every network followed by its halves, in the order of the explanation."""
    parts = []
    for network in found["networks"]:
        key, method = network["name"], network["method"]
        if network["role"] == TEACHER:
            parts.append(PartWords(key, teacher_title(), _("the teacher"), TEACHER))
            continue
        if method == BASELINE:
            title, name = method_name(BASELINE), _("the plain student")
        elif explores(method):
            title, name = _("IE student"), _("the IE student")
        else:
            title = _("{method} student", method=method_name(method))
            name = _("the {method} student", method=method_name(method))
        parts.append(PartWords(key, title, name, method_style(method)))
        titles = {
            INHERITANCE: (_("Inheritance half"), _("the inheritance half")),
            EXPLORATION: (_("Exploration half"), _("the exploration half")),
        }
        parts += [PartWords(f"{key} {h}", *titles[h], f"{h}-half", h) for h in network["halves"]]
    return parts


def capital(text: str) -> str:
    """The text with its first letter in capitals."""
    return text[:1].upper() + text[1:]


def percent(value: float) -> str:
    """A number of percent with one decimal."""
    return f"{value:.1f}\N{NO-BREAK SPACE}%"


def two_decimals(value: float) -> str:
    """A number with two decimals and a real minus sign."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "\u2212")  # adding 0 makes -0.0 a 0.0


def stage_title(stage: int, stages: int) -> str:
    """stage: counted from the end, -1 is the last; stages: how many there are."""
    return _("Last stage") if stage == -1 else _("Stage {number}", number=stages + stage + 1)


def chosen_words(slides: Sequence[Mapping[str, bool]], parts: Sequence[PartWords]) -> str:
    """By which rule the test images were chosen, and what it found; "" if there are no two networks to compare.

    Args:
        slides: for each image, by part, whether it is classified correctly, as far as that is known.
    """
    networks = [part for part in parts if not part.half]
    students = [part for part in networks if part.style != TEACHER]
    pair = students if len(students) > 1 else networks
    if len(pair) < 2 or any(part.key not in right for part in (pair[0], pair[-1]) for right in slides):
        return ""
    one, other = pair[0], pair[-1]
    only_one = sum(right[one.key] and not right[other.key] for right in slides)
    only_other = sum(right[other.key] and not right[one.key] for right in slides)
    differ = only_one + only_other
    if not differ:
        return ngettext(
            "{number} test image, the first in an order drawn once: no image was found that only one of {first} and "
            "{second} classifies correctly.",
            "{number} test images, the first in an order drawn once: no image was found that only one of {first} and "
            "{second} classifies correctly.",
            len(slides), first=one.name, second=other.name,
        )  # fmt: skip
    values: dict[str, object] = {
        "first": one.name,
        "second": other.name,
        "only_second": only_other,
        "only_first": only_one,
    }
    if differ < len(slides):
        return _(
            "Test images on which {first} and {second} differ, the first ones in an order drawn once: only {second} is "
            "right on {only_second} of them, only {first} on {only_first}. There are no more of them, so others "
            "follow.", **values,
        )  # fmt: skip
    return _(
        "Test images on which {first} and {second} differ, the first ones in an order drawn once: only {second} is "
        "right on {only_second} of them, only {first} on {only_first}, in the proportion in which both happen.",
        **values,
    )


def faithful_words(found: Mapping[str, Any], parts: Sequence[PartWords], titles: Mapping[str, str]) -> str:
    """Which maps are better or worse than a random order.

    Args:
        titles: of the methods that have maps.
    """
    if len(found["images"]) < 2:
        return _("One image is too little to judge that; give several.")
    from scipy.special import stdtrit  # Student's distribution

    errors = float(stdtrit(len(found["images"]) - 1, SURE))
    names = {part.key: part.name for part in parts}
    better: list[tuple[str, str]] = []
    worse: list[tuple[str, str]] = []
    unclear: list[tuple[str, str]] = []
    for method, title in titles.items():
        for maps in found["maps"]:
            if maps["method"] == method and (score := maps["faithfulness"]):
                margin = errors * score["error"]
                group = better if score["score"] > margin else worse if score["score"] < -margin else unclear
                group.append((title, names[f"{maps['network']} {maps['half']}".strip()]))
    if not unclear and not worse:
        return _("On these images every map is clearly better than a random order.")
    if not better and not worse:
        return _("On these images none of the maps can be told from a random order.")
    if worse and unclear:
        said = _(
            "On these images {worse} are worse than a random order, and {unclear} cannot be told from a random order.",
            worse=_maps_of(worse), unclear=_maps_of(unclear),
        )  # fmt: skip
    elif worse:
        said = _("On these images {worse} are worse than a random order.", worse=_maps_of(worse))
    else:
        said = _("On these images {unclear} cannot be told from a random order.", unclear=_maps_of(unclear))
    return said + " " + _("All others are clearly better.") if better else said


def _maps_of(which: Sequence[tuple[str, str]]) -> str:
    """Maps in words, from the titles of their methods and the names of whose they are."""
    return listed(
        _("the {method} maps of {networks}", method=title,
          networks=listed(name for kind, name in which if kind == title))
        for title in dict.fromkeys(title for title, _name in which)
    )  # fmt: skip


def conservation_words(found: Mapping[str, Any], parts: Sequence[PartWords]) -> str:
    """Who gets the relevance that LRP hands back, and how much of it is lost."""
    names = {part.key: part.name for part in parts}
    shares = {one["network"]: one["conservation"] for one in found["maps"] if one["conservation"] and not one["half"]}
    if not shares:
        return ""
    biases = listed(
        _("{share} in {network}", share=percent(100 * share["biases"]), network=names[key])
        for key, share in shares.items()
    )
    lost = max(one["conservation"]["lost"] for one in found["maps"] if one["conservation"])
    if lost > LOST:
        return _(
            "The biases get part of the score ({biases}) and the pixels the rest; up to {lost} is lost on the way, so "
            "do not rely on these maps.", biases=biases, lost=percent(100 * lost),
        )  # fmt: skip
    return _(
        "The biases get part of the score ({biases}) and the pixels the rest; less than {lost} is lost on the way.",
        biases=biases, lost=f"{100 * LOST:g}\N{NO-BREAK SPACE}%",
    )  # fmt: skip


def cka_words(found: Mapping[str, Any], parts: Sequence[PartWords]) -> str:
    """How close each part is to the teacher at the last stage."""
    if not found[CKA]:
        return ""
    last, halves = found[CKA][0], {part.half: part for part in parts if part.half}
    teacher = next((part for part in parts if part.style == TEACHER), None)
    values = dict(zip(last["names"], last["values"][last["names"].index(teacher.key)], strict=True)) if teacher else {}
    shown = [part for part in parts if values.get(part.key) is not None and part is not teacher]
    if not shown:
        if sum(not part.half for part in parts) > 1:
            return _("There is no teacher to compare with, so the tables show how alike the students are.")
        return _("There is no teacher to compare with.")
    text = _("Compared with the teacher at the last stage, CKA is {values}.", values=listed(
        _("{value} for {network}", value=f"{values[part.key]:.2f}", network=part.name) for part in shown
    ))  # fmt: skip
    if all(values.get(part.key) is not None for part in halves.values()) and len(halves) == 2:
        gap = values[halves[INHERITANCE].key] - values[halves[EXPLORATION].key]
        if gap > SAME:
            text += " " + _("The inheritance half is closer to the teacher, as it was trained to be.")
        elif gap < -SAME:
            text += " " + _("The exploration half is closer to the teacher, although it was trained to be different.")
        else:
            text += " " + _("The two halves are equally close to the teacher.")
    return text


def neurons_words(found: Mapping[str, Any], parts: Sequence[PartWords]) -> str:
    """The shares at the last stage, and silent channels anywhere."""
    last = {one["name"]: one for one in found[NEURONS] if one["stage"] == -1}
    shown = [part for part in parts if part.key in last]
    if not shown:
        return ""
    text = _("Of the neurons in the last stage, an image activates {shares}.", shares=listed(
        _("{share} in {network}", share=percent(100 * last[part.key]["share"]), network=part.name) for part in shown
    ))  # fmt: skip
    silent = {
        part: sum(one["silent_channels"] for one in found[NEURONS] if one["name"] == part.key)
        for part in parts if not part.half
    }  # fmt: skip
    without = {part: count for part, count in silent.items() if count}
    if not without:
        return text + " " + _("No channel is silent for all images.")
    return text + " " + _("Silent for all images: {channels}.", channels=listed(
        ngettext("{number} channel of {network}", "{number} channels of {network}", count, network=part.name)
        for part, count in without.items()
    ))  # fmt: skip


def flatness_words(found: Mapping[str, Any], parts: Sequence[PartWords]) -> str:
    """How far the loss rises with the strongest noise, and whether that tells the students apart."""
    curves = {one["network"]: one for one in found[FLATNESS]}
    shown = [part for part in parts if part.key in curves]
    if not shown:
        return ""
    level = percent(100 * curves[shown[0].key]["levels"][-1]).replace(".0", "")
    text = _("With {level} noise the loss rises {rises}.", level=level, rises=listed(
        _("from {first} to {last} (± {deviation}) for {network}", first=f"{curves[part.key]['mean'][0]:.2f}",
          last=f"{curves[part.key]['mean'][-1]:.2f}", deviation=f"{curves[part.key]['deviation'][-1]:.2f}",
          network=part.name) for part in shown
    ))  # fmt: skip
    students = sorted(
        (part for part in shown if part.style != TEACHER), key=lambda part: float(_rise(curves[part.key]))
    )
    if len(students) < 2:
        return text
    flat, steep = students[0], students[-1]
    low, high = curves[flat.key], curves[steep.key]
    if _rise(low) + low["deviation"][-1] < _rise(high) - high["deviation"][-1]:
        return text + " " + _("Of the two students, {student} is in the flatter minimum.", student=flat.name)
    return text + " " + _(
        "The students differ by less than the loss varies from one direction of the noise to another, so neither can "
        "be called flatter."
    )  # fmt: skip


def _rise(curve: Mapping[str, Any]) -> float:
    return float(curve["mean"][-1] - curve["mean"][0])


def halves_words(found: Mapping[str, Any], parts: Sequence[PartWords]) -> str:
    """The accuracies of the IE student and of its halves, and of the same channels elsewhere."""
    named, texts = {part.key: part for part in parts}, []
    for worth in found[HALVES]:
        values: dict[str, object] = {
            "network": named[worth["network"]].name, "whole": percent(worth["whole"]),
            "inheritance": percent(worth["inheritance"]), "exploration": percent(worth["exploration"]),
        }  # fmt: skip
        if worth["network"] == worth["split_of"]:
            texts.append(capital(ngettext(
                "{network} classifies {whole} of {number} test image correctly, its inheritance half alone "
                "{inheritance} and its exploration half alone {exploration}.",
                "{network} classifies {whole} of {number} test images correctly, its inheritance half alone "
                "{inheritance} and its exploration half alone {exploration}.", worth["images"], **values,
            )))  # fmt: skip
        else:
            texts.append(_(
                "In {network}, which has no halves, the same channels alone reach {inheritance} and {exploration}, all "
                "together {whole}.", **values,
            ))  # fmt: skip
    return " ".join(texts)
