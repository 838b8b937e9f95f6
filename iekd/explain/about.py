"""What every diagnostic shares: its texts, and the error for a network that it cannot be computed for."""

from __future__ import annotations

from dataclasses import dataclass

from iekd.errors import UserError


@dataclass(frozen=True)
class About:
    """The texts of a diagnostic, for the command line, the page and docs/explain.md.

    shows: one sentence, what it tells. reading: one sentence, how to read it. reference: where it comes from.
    """

    title: str
    shows: str
    reading: str
    reference: str


class NotApplicable(UserError):
    """A diagnostic cannot be computed for a network; the message says why. The others still can."""
