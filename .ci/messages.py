"""Collects the texts of the page for translators, checks what they have translated, and compiles it.

    python .ci/messages.py                 # bring iekd/locale/iekd.pot and every catalogue up to date, and compile
    python .ci/messages.py --add de        # the same, with a catalogue for one more language

See docs/translating.md. Needs Babel, which `make test` installs; the page itself needs only Python's own gettext.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "iekd"
LOCALE = PACKAGE / "locale"
POT = LOCALE / "iekd.pot"
KEYWORDS: dict[str, Any] = {"_": None, "N_": None, "html_text": None, "ngettext": (1, 2), "html_plural": (1, 2)}
OPTIONS = {"**/templates/**.html": {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}}
SIGNS = b"iekd.language import", b"render.template import", b"ABOUT = DiagnosticAbout("  # of a file with texts
HEADER = "# Texts of IE-KD Studio's page, collected by .ci/messages.py. See docs/translating.md.\n"


def python_calls(
    file: Any, keywords: Any, comment_tags: Any, options: Any
) -> Iterator[tuple[int, str, Any, list[str]]]:
    """The texts of a Python file, for Babel, whose own reader sees none inside of f-strings before Python 3.12.

    Raises:
        ValueError: a text is put together where it is to be translated, so that no catalogue can have it.
    """
    source = file.read()
    if not any(sign in source for sign in SIGNS):
        return  # most files have none, and need not be parsed
    for node in ast.walk(ast.parse(source)):
        name = getattr(getattr(node, "func", None), "id", "")
        if not isinstance(node, ast.Call) or name not in (*KEYWORDS, "DiagnosticAbout"):
            continue
        if name == "DiagnosticAbout":  # the texts of a diagnostic, beside a function that needs torch
            texts = [given.value for given in node.keywords]
            yield from ((node.lineno, "_", t.value, []) for t in texts if isinstance(t, ast.Constant) and t.value)
            continue
        texts = node.args[: 2 if KEYWORDS[name] else 1]
        if any(isinstance(text, (ast.JoinedStr, ast.BinOp)) for text in texts):
            raise ValueError(f"{file.name}:{node.lineno}: write the text of {name}() out, with names in braces")
        if all(isinstance(text, ast.Constant) for text in texts):
            found = tuple(text.value for text in texts if isinstance(text, ast.Constant))
            yield node.lineno, name, found if len(found) > 1 else found[0], []


METHODS = [("**/templates/**.html", "jinja2.ext:babel_extract"), ("**.py", python_calls)]


def collect() -> Catalog:
    """Every text of the page, with the files that it comes from."""
    found = Catalog(domain="iekd", project="IE-KD Studio", header_comment=HEADER, charset="utf-8")
    places: dict[Any, list[str]] = {}
    for file, _line, text, _comments, _context in extract_from_dir(PACKAGE, METHODS, OPTIONS, KEYWORDS):
        places.setdefault(text, []).append(f"iekd/{file}")
        found.add(text)
    for text, place in in_data():
        places.setdefault(text, []).append(place)
        found.add(text)
    for text, files in places.items():
        message = found.get(text[0] if isinstance(text, tuple) else text)
        message.locations = sorted({*message.locations, *((file, 0) for file in files)})
        message.flags -= {"python-format"}  # percent signs are percent signs
    return found


def in_data() -> Iterator[tuple[str, str]]:
    """(text, file) of those that are written in constants of the lower rooms and derived from there."""
    from iekd.config.methods import CROSS_ENTROPY, METHODS
    from iekd.config.presets import PRESETS
    from iekd.config.run import GROUPS, RunConfig, label
    from iekd.data import available
    from iekd.data.registry import sources
    from iekd.export import FORMATS
    from iekd.export.web import FORMAT_SUMMARY, FORMAT_TITLE
    from iekd.ui.tabs.form import help_in_english

    texts: list[tuple[str, str]] = []
    for field in RunConfig.model_fields:
        texts += [(label(field), "config/run.py"), (help_in_english(field), "config/run.py")]
    texts += [(group, "config/run.py") for group in GROUPS]
    for spec in METHODS.values():
        texts += [(spec.title, "config/methods.py"), (spec.summary, "config/methods.py")]
        texts += [(part, "config/methods.py") for term in spec.terms for part in (term.title, term.unit, term.hint)]
    texts += [(part, "config/methods.py") for part in (CROSS_ENTROPY.title, CROSS_ENTROPY.unit, CROSS_ENTROPY.hint)]
    texts += [(part, "config/presets.py") for preset in PRESETS.values() for part in (preset.title, preset.text)]
    texts += [(part, "data") for dataset in available() for part in (dataset.title, dataset.note)]
    texts += [(source.note, "data") for source in sources()]
    texts += [(part, "export") for form in FORMATS.values() for part in (form.title, form.summary)]
    texts += [(FORMAT_TITLE, "export/web.py"), (FORMAT_SUMMARY, "export/web.py")]
    yield from ((text, f"iekd/{place}") for text, place in texts if text)


def is_current(collected: Catalog) -> bool:
    """Whether iekd.pot has these texts and no others."""
    return POT.is_file() and ids(read(POT)) == ids(collected)


def ids(catalogue: Catalog) -> set[Any]:
    return {message.id for message in catalogue if message.id}


def read(path: Path, language: str | None = None) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=language, domain="iekd")


def problems(catalogue: Catalog) -> list[str]:
    """Translations that cannot be shown: other names in braces, or other tags, than the English has."""
    return [
        f"{text!r} does not fit {english!r}"
        for message in catalogue if message.id and not message.fuzzy
        for english, text in pairs(message) if text and parts(english) != parts(text)
    ]  # fmt: skip


def pairs(message: Message) -> Iterator[tuple[str, str]]:
    """(English, translation), each form of a plural with the English plural."""
    if isinstance(message.id, str):
        yield message.id, str(message.string or "")
    else:
        yield from ((message.id[1], text or "") for text in message.string)


def parts(text: str) -> tuple[set[str], list[str]]:
    """(names in braces, tags)."""
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        names = {str(error)}
    return names - {"number"}, sorted(re.findall(r"</?\w+[^>]*>", text))  # "one image" needs no number


def written(catalogue: Catalog) -> bytes:
    file = io.BytesIO()
    write_po(file, catalogue, width=100, include_lineno=False, sort_output=True)
    return file.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say; 1 if a translation does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", metavar="LANGUAGE", help="make a catalogue for it, such as de or pt_BR")
    asked = parser.parse_args(arguments)
    if asked.add:
        try:
            Locale.parse(asked.add)
        except (ValueError, UnknownLocaleError):
            parser.error(f"'{asked.add}' is no language. Give one such as de or pt_BR.")
    collected, wrong = collect(), 0
    LOCALE.mkdir(exist_ok=True)
    if not is_current(collected):
        POT.write_bytes(written(collected))
    print(f"{POT.name}: {len(ids(collected))} texts")
    if asked.add:
        new = LOCALE / asked.add / "LC_MESSAGES" / "iekd.po"
        new.parent.mkdir(parents=True, exist_ok=True)
        if not new.exists():
            new.write_bytes(
                written(Catalog(locale=asked.add, domain="iekd", header_comment=HEADER, project="IE-KD Studio"))
            )
    for path in sorted(LOCALE.glob("*/LC_MESSAGES/iekd.po")):
        language = path.parents[1].name
        catalogue = read(path, language)
        catalogue.update(collected)
        for problem in problems(catalogue):
            print(f"{language}: {problem}")
            wrong += 1
        path.write_bytes(written(catalogue))
        with path.with_suffix(".mo").open("wb") as file:
            write_mo(file, catalogue)
        done = sum(
            bool(m.id and m.string and all([m.string] if isinstance(m.string, str) else m.string) and not m.fuzzy)
            for m in catalogue
        )
        print(f"{language}: {done} of {len(ids(catalogue))} translated")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
