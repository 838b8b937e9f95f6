"""What a share card says: the result of a run in a few short texts. How it is drawn: runs/card.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iekd.config.methods import known_specs, method_name, method_spec
from iekd.models.catalog import model_name
from iekd.plural import counted
from iekd.results.brief import SEEDS, brief, interval
from iekd.results.main_pair import PLAIN, main_pair
from iekd.results.report import accuracies, summaries
from iekd.results.significance import Difference, summarise

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
    plain student", or TOO_WEAK, or empty for a single student. certainty: how sure that is.
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
        named = "" if self.title == self.networks else f"{self.title}. "
        said = f"{named}{self.networks}, trained on {self.dataset}. Test accuracy: {networks}."
        return " ".join(filter(None, [said, f"{self.gain}." if self.gain else "", self.certainty]))


def make_card(report: dict[str, Any], run: str, title: str, dataset: str) -> Card:
    """The card of a report.

    Args:
        run: the run's id. title: its name; "" for its networks. dataset: the dataset's name.
    """
    teacher, pair = report.get("teacher"), main_pair(report)
    means = {found.method: found.mean for found in summaries(report)}
    shown = [pair[1], pair[0]] if pair else list(means)[:1]
    numbers = [Number("Teacher", teacher["accuracy"], TEACHER_COLOUR)] if teacher else []
    numbers += [Number(student_name(method), means[method], _colour(method)) for method in shown]
    gain = certainty = ""
    if weak := brief(report, method_name).too_weak:
        gain, certainty = TOO_WEAK, weak
    elif pair:
        against = summarise(accuracies(report), baseline=pair[1])
        known = {found.method: found.difference for found in summaries(report)} if pair[1] == PLAIN else {}
        difference = known.get(pair[0]) or next(found.difference for found in against if found.method == pair[0])
        if difference is not None:
            gain, certainty = f"{difference.mean:+.1f} points over the {named(pair[1])}", _certainty(difference)
    networks = _networks(report)
    return Card(run, title or networks, dataset, networks, tuple(numbers), gain, certainty)


def student_name(method: str) -> str:
    """Plain student, IE student (IE-FT), KD student."""
    if method == PLAIN:
        return "Plain student"
    (*found,) = known_specs([method])
    return f"IE student ({method_name(method)})" if found and found[0].explores else f"{method_name(method)} student"


def named(reference: str) -> str:
    """As `student_name`, within a sentence."""
    name = student_name(reference)
    return name.lower() if reference == PLAIN else name


def _colour(method: str) -> str:
    return method_spec(method).colour[0] if known_specs([method]) else OTHER_COLOUR


def _certainty(difference: Difference) -> str:
    over, seeds = interval(difference), counted(difference.n, "seed")
    if over is None:
        return f"{seeds[0].upper()}{seeds[1:]}, so there is no interval: chance may have a part in it."
    numbers = f"95 % interval {over.low:+.1f} to {over.high:+.1f}"
    said = f"{numbers} over {seeds}." if over.over == SEEDS else f"{numbers} over {over.n:,} test images; {seeds}."
    return said if over.low > 0 or over.high < 0 else f"Not decided: {said}"


def _networks(report: dict[str, Any]) -> str:
    """ResNet-20 to ResNet-8, 3.5 times smaller."""
    teacher, student = report.get("teacher"), str(report.get("config", {}).get("student", ""))
    named = model_name(student) if student else "a student"
    if not teacher:
        return named
    params = report["learners"][0]["params"]
    smaller = f", {teacher['params'] / params:.1f} times smaller" if params and teacher["params"] > params else ""
    return f"{model_name(teacher['model'])} to {named}{smaller}"
