"""A text file as a table: its encoding, what parts its columns, and whether its first line has their titles."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from iekd.data.encodings import encoding_of

DELIMITERS = (",", ";", "\t", "|", " ")
WESTERN = ("cp1252", "cp850")  # Windows writes western text so, and its console so
LOOKED_AT = 500  # rows by which columns are told apart
SHOWN = 3


@dataclass(frozen=True)
class Table:
    """Args:
    titles: of the columns; empty texts if the first line is a row like the others.
    rows: (R,C) cells. note: what to say if its encoding had to be guessed.
    """

    titles: list[str]
    rows: list[list[str]]
    note: str = ""

    @property
    def columns(self) -> range:
        return range(len(self.titles))

    def called(self, column: int) -> str:
        """What to call a column in a message."""
        return self.titles[column].strip() or f"number {column + 1}"

    def values(self, column: int) -> list[str]:
        return [row[column].strip() for row in self.rows]


def read_table(name: str, content: bytes) -> Table | None:
    """The table in a file; None if there is none.

    Args:
        name: for messages.
    """
    text, note = _text(name, content)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text[:4].lower() == "sep=" and text[5:6] == "\n":  # Excel's
        text = text[6:]
    while text.startswith("#") and _marks(text) != _marks(text.partition("\n")[2]):  # remarks before the table
        text = text.partition("\n")[2]
    lines = [line for line in text[: 2**20].split("\n")[:50] if line.strip()]
    if not lines:
        return None

    def regular(mark: str) -> tuple[bool, int]:
        """Whether every line has the mark, and in how many lines it stands equally often."""
        (count, often), *_ = Counter(line.count(mark) for line in lines).most_common(1)
        return all(mark in line for line in lines), often if count else 0

    delimiter = max(DELIMITERS, key=regular)
    if not any(delimiter in line for line in lines):
        return None
    try:
        if delimiter == " " and not all(map(_is_number, " ".join(line.partition(" ")[2] for line in lines).split())):
            cells = [line.strip().split(maxsplit=1) for line in text.split("\n")]  # a class may have several words
        else:
            cells = list(csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True))
    except csv.Error:  # a cell of megabytes, say
        return None
    rows = [row for row in cells if any(cell.strip() for cell in row)]
    width = max(map(len, rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in rows]
    if len(rows) > 1 and _are_titles(rows[0], rows[1:LOOKED_AT]):
        titles, rows = rows[0], rows[1:]
    else:
        titles = [""] * width
    return Table(titles, rows, note) if len(rows) > 1 and width > 1 else None


def _are_titles(first: list[str], rows: Sequence[list[str]]) -> bool:
    """Whether these name columns: they occur nowhere else in them, and are neither numbers nor paths."""
    if any(_is_number(cell) or "/" in cell for cell in first):
        return False
    return any(first) and all(not cell or cell not in {row[i] for row in rows} for i, cell in enumerate(first))


def _marks(text: str) -> list[int]:
    """How often each delimiter stands in the first line."""
    return [text.partition("\n")[0].count(mark) for mark in DELIMITERS[:-1]]


def _text(name: str, content: bytes) -> tuple[str, str]:
    """(the text of a file, what to say if its encoding had to be guessed)."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace"), ""
    if (width := _without_mark(content)) is not None:
        return content.decode(width, errors="replace"), ""
    with_letters = [cell for cell in re.split(rb"[,;\t\r\n\"]+", content) if not cell.isascii()]
    encoding = encoding_of(with_letters, WESTERN)
    text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="replace")
    if encoding == "utf-8":
        return text, ""
    shown = list(dict.fromkeys(cell.decode(encoding, errors="replace").strip() for cell in with_letters))[:SHOWN]
    listed = ", ".join(f"'{cell}'" for cell in shown)
    return text, (
        f"'{name}' is not UTF-8: it is read as {encoding.upper()}, as in {listed}. If that is wrong, save it as UTF-8."
    )


def _without_mark(content: bytes) -> str | None:
    """UTF-16 that does not say so: every second byte of mostly ASCII text is zero."""
    begun = content[:512]
    for name, zeros, letters in (("utf-16-le", begun[1::2], begun[::2]), ("utf-16-be", begun[::2], begun[1::2])):
        if len(begun) > 3 and zeros.count(0) > 0.7 * len(zeros) and 0 not in letters:
            return name
    return None


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", text))
