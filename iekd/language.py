"""The language of the page: its texts are looked up in a catalogue of GNU gettext, by the English that the code has.

One language for a whole server, chosen by `use` when it starts. English needs no catalogue. See docs/translating.md.
"""

from __future__ import annotations

import gettext
import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)
CATALOGUES = Path(__file__).parent / "locale"  # LANGUAGE/LC_MESSAGES/iekd.mo
DOMAIN, ENGLISH, VARIABLE = "iekd", "en", "IEKD_LANGUAGE"
Text = TypeVar("Text", bound=str)


_english: ContextVar[bool] = ContextVar("english", default=False)


class _Current:
    """What `use` has chosen."""

    language: str = ENGLISH
    catalogue: gettext.NullTranslations = gettext.NullTranslations()


def use(language: str, folder: Path = CATALOGUES) -> None:
    """Show the page in this language from now on; in English, and say so in the log, if it has no catalogue.

    Args:
        language: such as "de" or "pt_BR"; empty: English.
        folder: that of the catalogues.
    """
    _Current.language, _Current.catalogue = ENGLISH, gettext.NullTranslations()
    if language and language != ENGLISH:
        try:
            _Current.catalogue = gettext.translation(DOMAIN, folder, [language])
            _Current.language = language
        except (OSError, ValueError, struct.error) as error:  # there is none, or it is damaged
            log.warning("action=start no translation into '%s' (%s): the page is in English", language, error)


@contextmanager
def english() -> Iterator[None]:
    """Texts are in English inside of it, whatever the page's language: for files that leave the machine."""
    before = _english.set(True)
    try:
        yield
    finally:
        _english.reset(before)


def language() -> str:
    """The language of the page, as a browser names it: "en", "pt-BR"."""
    return _Current.language.partition(".")[0].replace("_", "-")


def _(text: str, /, **values: object) -> str:
    """The text in the language of the page.

    Args:
        text: in English, a whole sentence or label, written out in the call: that is where it is collected from.
        values: for the names in braces in it. Without any, braces stand for themselves.
    """
    return translated(str, text, values)


def ngettext(one: str, several: str, number: int, /, **values: object) -> str:
    """The text for a number of things, in the form that the language has for this number.

    Args:
        one, several: in English, for 1 and for any other number. `{number}` in them is the number, with commas.
        values: for other names in braces.
    """
    return translated_plural(str, one, several, number, values)


def N_(text: str) -> str:  # noqa: N802  (gettext's usual name for it)
    """The text unchanged: marks one that is written in a constant, and translated by `_` where it is shown."""
    return text


def translated(kind: Callable[[str], Text], text: str, values: dict[str, object]) -> Text:
    """As `_`. kind: makes the text what it should be, such as HTML, before the values are filled in."""
    own = not text or _english.get()  # "" is the key of a catalogue's header
    return _filled(kind, text if own else _Current.catalogue.gettext(text), text, values)


def translated_plural(
    kind: Callable[[str], Text], one: str, several: str, number: int, values: dict[str, object]
) -> Text:
    """As `ngettext`. kind: see `translated`."""
    own = one if number == 1 else several
    found = own if _english.get() else _Current.catalogue.ngettext(one, several, number)
    return _filled(kind, found, own, {"number": f"{number:,}", **values})


def _filled(kind: Callable[[str], Text], found: str, english: str, values: dict[str, object]) -> Text:
    if not values:
        return kind(found)
    try:
        return kind(found).format(**values)  # type: ignore[return-value]  # of the same kind as what it is called on
    except (KeyError, IndexError, ValueError) as error:
        if found == english:
            raise
        log.warning("action=translate %r does not fit %r (%r); shown in English", found, english, error)
        return kind(english).format(**values)  # type: ignore[return-value]
