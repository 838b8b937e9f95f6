"""Errors whose message is one sentence for the person at the page or the command line.

Every message says what was wrong, which value it was and what to do. Anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def as_text(name: str) -> str:
    """A file's name that can be written and sent anywhere: what in it is not UTF-8 is spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


class UserError(ValueError):
    """Something the user asked for cannot be done; the message says why and what to do instead.

    would_repeat: whether trying again with the same settings must fail in the same way.
    """

    would_repeat = False

    def __init__(self, message: str) -> None:
        super().__init__(as_text(message))


class DataError(UserError):
    """A dataset or an image cannot be read."""


class RunError(UserError):
    """A run does not exist, is in the wrong state, or its folder cannot be used."""


class TrainingError(UserError):
    """Training cannot continue; the message says why and what to change."""


class DivergedError(TrainingError):
    """Every learner of a stage has diverged."""

    would_repeat = True


class PlatformError(UserError, ImportError):
    """This operating system lacks something that cannot be done without."""


def check_text(path: str) -> str:
    """Return `path` if it can be written and sent anywhere.

    Raises:
        UserError: it is not UTF-8 text.
    """
    if path != as_text(path):
        raise UserError(f"'{path}' cannot be used: its name is not UTF-8 text. Rename it, or give a link to it.")
    return path


class UnknownNameError(UserError):
    """A name that is not registered here, such as a model's.

    kind: what it should be the name of, such as "model"; name: as it was given.
    """

    def __init__(self, message: str, kind: str, name: str) -> None:
        super().__init__(message)
        self.kind, self.name = kind, name


def unknown_name(kind: str, value: str, known: Iterable[str], advice: str = "") -> UnknownNameError:
    """An error for a misspelt name that offers the closest known one; `advice` is one more sentence."""
    known = list(known)
    close = difflib.get_close_matches(value.lower(), known, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'?" if close else f"Choose one of: {', '.join(known)}."
    return UnknownNameError(f"Unknown {kind} '{value}'. {hint}{f' {advice}' if advice else ''}", kind, value)
