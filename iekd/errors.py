"""Errors whose message is one sentence for the person at the page or the command line.

Every message says what was wrong, which value it was and what to do. Anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # let a name look like another


def as_text(name: str) -> str:
    """A file's name, or a message with some, that can be written and sent anywhere.

    Spelt out is what is not UTF-8, what a terminal takes for a command, and what makes a name look like another.
    """
    if not name.isprintable():
        name = "".join(ascii(c)[1:-1] if _misleads(c) else c for c in name)
    return name.encode("utf-8", "backslashreplace").decode()


def _misleads(character: str) -> bool:
    return (unicodedata.category(character) == "Cc" and character not in "\n\t") or character in BIDI


class UserError(ValueError):
    """Something the user asked for cannot be done; the message says why and what to do instead.

    would_repeat: whether trying again with the same settings must fail in the same way. field: the setting to change,
    "" where it is not one alone; the page marks it.
    """

    would_repeat = False

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(as_text(message))
        self.field = field


class DataError(UserError):
    """A dataset or an image cannot be read."""


class RunError(UserError):
    """A run does not exist, is in the wrong state, or its folder cannot be used."""


class TakenError(RunError):
    """Another process has just taken a run, or finished it."""


class TrainingError(UserError):
    """Training cannot continue; the message says why and what to change."""


class DivergedError(TrainingError):
    """Every learner of a stage has diverged."""

    would_repeat = True


class PlatformError(UserError, ImportError):
    """This operating system lacks something that cannot be done without."""


@contextmanager
def about_setting(field: str) -> Iterator[None]:
    """A UserError from inside names this setting, unless it names one already."""
    try:
        yield
    except UserError as error:
        error.field = error.field or field
        raise


def first_line(error: BaseException) -> str:
    """What an error of others says, to be quoted within a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_text(path: str) -> str:
    """Return `path` if it can be written and sent anywhere.

    Raises:
        UserError: it is not UTF-8 text.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"'{path}' cannot be used: its name is not UTF-8 text. Rename it, or give a link to it."
        ) from None
    return path


class UnknownNameError(UserError):
    """A name that is not registered here, such as a model's.

    kind: what it should be the name of, such as "model"; name: as it was given.
    """

    def __init__(self, message: str, kind: str, name: str) -> None:
        super().__init__(message)
        self.kind, self.name = kind, name


LISTED = 60  # names in a message


def unknown_name(kind: str, value: str, known: Iterable[str], advice: str = "") -> UnknownNameError:
    """An error for a name that is not known; `advice` is one more sentence.

    It offers the closest name that has the same numbers: resnet-20 may be a slip for resnet20, but resnet101 is another
    network than resnet110. Where names begin with what was given, it lists these; else those that begin with the same
    word, or all of them.
    """
    known = list(known)
    asked = value.lower()
    close = closest(value, known)
    prefix = _prefix(asked, known)
    rests = {name: name.lower().removeprefix(prefix) for name in known}
    rest = asked.removeprefix(prefix)
    word = _first_word(rest)
    same = [name for name in known if rests[name] == rest]  # but for capitals
    begun = same or [name for name in known if rest and rests[name].startswith(rest)]
    alike = begun or [name for name in known if word and _first_word(rests[name]) == word]
    if len(begun) == 1 or (close and not begun):
        hint = did_you_mean(begun or close)
    elif alike:
        hint = f"Of this kind there {'is' if len(alike) == 1 else 'are'}: {_some(alike, asked)}."
    else:
        hint = f"Choose one of: {_some(known, asked)}."
    return UnknownNameError(f"Unknown {kind} '{value}'. {hint}{f' {advice}' if advice else ''}", kind, value)


def did_you_mean(names: Iterable[str]) -> str:
    """The question whether one of these was meant."""
    return "Did you mean " + " or ".join(f"'{name}'" for name in names) + "?"


def closest(value: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The names that are most like `value` and have the same numbers, best first. Capitals do not count, nor does a
    prefix that `value` and a name share, such as "timm:".

    cutoff: how like, from 0 to 1.
    """
    known, asked = list(known), value.lower()
    prefix, same_numbers = _prefix(asked, known), dict[str, list[str]]()
    for name in known:
        if _numbers(name) == _numbers(asked):
            same_numbers.setdefault(name.lower().removeprefix(prefix), []).append(name)
    near = difflib.get_close_matches(asked.removeprefix(prefix), same_numbers, n=most, cutoff=cutoff)
    return [name for one in near for name in same_numbers[one]][:most]


def _prefix(asked: str, known: Iterable[str]) -> str:
    """That of a name, such as "timm:", if names that are known have it; else ""."""
    prefix = asked[: asked.find(":") + 1]
    return prefix if any(name.lower().startswith(prefix) for name in known) else ""


def _some(names: list[str], asked: str) -> str:
    """All names, or of very many those that are most like the one asked for."""
    if len(names) <= LISTED:
        return ", ".join(names)
    close = difflib.get_close_matches(asked, names, n=LISTED // 5, cutoff=0.0)
    return f"{', '.join(close)} and {len(names) - len(close):,} more"


def _first_word(name: str) -> str:
    return name[: len(name) - len(name.lstrip("abcdefghijklmnopqrstuvwxyz"))]


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)
