"""The plain choices of step 3: sets of methods, and how thorough a run is. Each fills in fields of the form.

A choice is what the fields say, nothing more: `methods_chosen` and `rigour_chosen` tell it from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iekd.config.methods import BASELINE, METHODS, method_name, sort_methods
from iekd.config.presets import PRESETS
from iekd.language import _, ngettext
from iekd.ui.render.words import listed as in_a_row
from iekd.ui.render.words import seeds_text
from iekd.ui.tabs.form import PRESET_FIELDS, Values, default, preset_values, shown

PICK = "pick"  # the methods are ticked one by one
OWN = "own"  # epochs, seeds and the like are set one by one
SEEDS = (0, 1, 2)
METHOD_FIELDS = ["methods", "with_kd"]
RIGOUR_FIELDS = [*PRESET_FIELDS, "seeds"]


@dataclass(frozen=True)
class FormChoice:
    """title and text: of its card. values: what it fills in, as the form's fields hold it."""

    title: str
    text: str
    values: Values

    @property
    def label(self) -> str:
        """Two lines, of which the page shows the first in bold."""
        return f"{self.title}\n{self.text}"


def method_sets() -> dict[str, FormChoice]:
    """The sets of methods by key. Plugins may add methods, so they are looked up each time."""
    usual = default("methods")
    taught = in_a_row(method_name(name) for name in usual if METHODS[name].terms)
    explore = [name for name, spec in METHODS.items() if spec.explores]
    plain = [name.removeprefix("ie-") for name in explore]
    every = sort_methods({BASELINE, *explore, *(name for name in plain if name in METHODS)})
    listed = ", ".join(method_name(name) for name in explore)
    return {
        "plain": FormChoice(
            _("Plain student against {methods}", methods=taught),
            _("The default. Two students of the same size: one learns from the labels alone, the other also from the "
              "teacher."),
            {"methods": list(usual), "with_kd": []},
        ),
        "all-ie": FormChoice(
            _("All IE methods"),
            ngettext(
                "{methods}, each beside the method it builds on, and the plain student: {number} student.",
                "{methods}, each beside the method it builds on, and the plain student: {number} students.",
                len(every), methods=listed,
            ),
            {"methods": list(every), "with_kd": []},
        ),
    }  # fmt: skip


def rigours() -> dict[str, FormChoice]:
    """How thorough a run is, by key: a preset and its seeds."""
    quick, seeds = PRESETS["quick"], len(SEEDS)
    found = {
        "quick": _rigour(_(quick.title), _("{preset}; one seed", preset=_(quick.text)), "quick", (0,)),
        "seeds": _rigour(seeds_text(seeds), ngettext(
            "as quick, but every student {number} time: shows how much results vary",
            "as quick, but every student {number} times: shows how much results vary", seeds,
        ), "quick", SEEDS),
    }  # fmt: skip
    for name, preset in PRESETS.items():
        if name != "quick":
            chosen = (0,) if preset.one_seed else SEEDS
            text = f"{_(preset.text)}; {_('one seed') if preset.one_seed else seeds_text(seeds)}"
            found[name] = _rigour(_(preset.title), text, name, chosen)
    return found


def _rigour(title: str, text: str, preset: str, seeds: tuple[int, ...]) -> FormChoice:
    return FormChoice(title, f"{text[0].upper()}{text[1:]}.", {**preset_values(preset), "seeds": shown(seeds)})


def methods_chosen(values: Values) -> str:
    """The set of methods that the form's fields are as they are in, else PICK."""
    return _chosen(method_sets(), {**values, "methods": list(sort_methods(values["methods"] or ()))}) or PICK


def rigour_chosen(values: Values) -> str:
    """The rigour whose values the form's fields have, else OWN."""
    return _chosen(rigours(), values) or OWN


def method_cards() -> list[tuple[str, str]]:
    """(text, key) for the page."""
    return [*_cards(method_sets()), (_("Pick…\nTick any of all methods."), PICK)]


def rigour_cards() -> list[tuple[str, str]]:
    """(text, key) for the page."""
    return [*_cards(rigours()), (_("Your own values\nEpochs, seeds and the rest as you set them."), OWN)]


def _cards(choices: Mapping[str, FormChoice]) -> list[tuple[str, str]]:
    return [(choice.label, key) for key, choice in choices.items()]


def _chosen(choices: Mapping[str, FormChoice], values: Values) -> str:
    return next((key for key, one in choices.items() if all(values[f] == v for f, v in one.values.items())), "")
