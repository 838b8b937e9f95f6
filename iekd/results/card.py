"""What a share card says, in English: the result of a run in a few short texts. How it is drawn: runs/card.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iekd.config.methods import BASELINE, known_specs, method_name, method_spec
from iekd.language import _
from iekd.models.catalog import model_name
from iekd.plural import counted, signed
from iekd.results.brief import SEEDS, brief, interval
from iekd.results.lead import judgement, lead_of
from iekd.results.significance import Difference

TOO_WEAK = "Too weak to judge"
TEACHER_COLOUR, OTHER_COLOUR = "#334155", "#0f766e"


@dataclass(frozen=True)
class Number:
    """A network with its accuracy in percent and its colour."""

    label: str
    accuracy: float
    colour: str


@dataclass(frozen=True)
class Card:
    """The texts of a card.

    title: the run's name. networks: which they are, and how much smaller the student is. gain: "+2.3 points over the
    plain student", TOO_WEAK, or "" without a plain student. certainty: its interval, and whether it is decided.
    """

    run: str
    title: str
    dataset: str
    networks: str
    numbers: tuple[Number, ...]
    gain: str
    certainty: str

    def alt_text(self) -> str:
        """The card in words, for whoever cannot see it."""
        networks = ", ".join(f"{one.label} {one.accuracy:.1f} %" for one in self.numbers)
        title = "" if self.title == self.networks else f"{self.title}. "
        said = f"{title}{self.networks}, trained on {self.dataset}. Test accuracy: {networks}."
        return " ".join(filter(None, [said, f"{self.gain}." if self.gain else "", self.certainty]))


def make_card(report: dict[str, Any], run: str, title: str, dataset: str) -> Card:
    """The card of a report.

    Args:
        run: the run's id. title: its name; "" for its networks. dataset: the dataset's name.
    """
    teacher, found, networks = report.get("teacher"), lead_of(report), _networks(report)
    numbers = [Number("Teacher", teacher["accuracy"], TEACHER_COLOUR)] if teacher else []
    shown = [one for one in (found.plain, found.own) if one] if found else []
    numbers += [Number(student_name(one.method), one.mean, _colour(one.method)) for one in shown]
    gain = certainty = ""
    if weak := brief(report, method_name).too_weak:
        gain, certainty = TOO_WEAK, weak
    elif found and found.gain:
        gain = f"{signed(found.gain.mean, 1)} points over the plain student"
        certainty = f"{_interval(found.gain)} {judgement(found.gain, found.compared)}"
    return Card(run, title or networks, dataset, networks, tuple(numbers), gain, certainty)


def student_name(method: str) -> str:
    """Plain student, IE student (IE-FT), KD student."""
    if method == BASELINE:
        return _("Plain student")
    (*found,) = known_specs([method])
    if found and found[0].explores:
        return _("IE student ({method})", method=method_name(method))
    return _("{method} student", method=method_name(method))


def _colour(method: str) -> str:
    return method_spec(method).colour[0] if known_specs([method]) else OTHER_COLOUR


def _interval(gain: Difference) -> str:
    over, seeds = interval(gain), counted(gain.n, "seed")
    if over is None:
        return f"{seeds[0].upper()}{seeds[1:]}, no interval."
    what = seeds if over.over == SEEDS else f"{over.n:,} test images, {seeds}"
    return f"95 %: {signed(over.low, 1)} to {signed(over.high, 1)} over {what}."


def _networks(report: dict[str, Any]) -> str:
    """ResNet-20 to ResNet-8, 3.5 times smaller."""
    teacher, student = report.get("teacher"), str(report.get("config", {}).get("student", ""))
    name = model_name(student) if student else "a student"
    if not teacher:
        return name
    params = report["learners"][0]["params"]
    smaller = f", {teacher['params'] / params:.1f} times smaller" if params and teacher["params"] > params else ""
    return f"{model_name(teacher['model'])} to {name}{smaller}"
