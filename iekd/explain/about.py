"""What the diagnostics share: their names, the form of their texts, and the error for a network that does not fit.

The texts of a diagnostic stand beside its function; `explain.ABOUT` has them all by name. Works without torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from iekd.errors import UserError, unknown_name

GRAD_CAM, LRP, CKA, NEURONS, FLATNESS, HALVES = "grad-cam", "lrp", "cka", "neurons", "flatness", "halves"
DIAGNOSTICS = (GRAD_CAM, LRP, CKA, NEURONS, FLATNESS, HALVES)
MAPS = "maps"  # stands for both kinds of maps
JSON, TEXT, NUMBERS = "explain.json", "explain.md", "maps.npz"  # files of an explanation


@dataclass(frozen=True)
class DiagnosticAbout:
    """The texts of a diagnostic, for the command line, the page and docs/explain.md.

    shows: one sentence, what it tells. reading: one sentence, how to read it. reference: where it comes from.
    """

    title: str
    shows: str
    reading: str
    reference: str

    @property
    def name(self) -> str:
        """The title within a sentence."""
        first = self.title.split()[0]
        return self.title if first != first.capitalize() else self.title[0].lower() + self.title[1:]


class NotApplicableError(UserError):
    """A diagnostic cannot be computed for a network; the message says why. The others still can."""


def chosen(names: Iterable[str]) -> tuple[str, ...]:
    """The diagnostics that were asked for, in the order of `DIAGNOSTICS`; none asked for are all.

    Raises:
        UserError: there is none of that name.
    """
    asked = {name.strip().lower() for name in names if name.strip()}
    for name in asked:
        if name not in (MAPS, *DIAGNOSTICS):
            raise unknown_name("diagnostic", name, (MAPS, *DIAGNOSTICS))
    if MAPS in asked:
        asked |= {GRAD_CAM, LRP}
    return tuple(name for name in DIAGNOSTICS if name in asked or not asked)
