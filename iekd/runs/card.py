"""The share card of a run: a PNG of 1200 x 630 pixels, drawn with Pillow's own font so that no font is needed.

That font has the Latin letters of English only. Accents are dropped; a name in another script is replaced, and both the
card and `notes` say so. The card says nothing about the machine.
"""

from __future__ import annotations

import io
import unicodedata
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from iekd.config.run import RunConfig
from iekd.data import title_of
from iekd.errors import RunError
from iekd.language import N_, _, english
from iekd.results.card import TOO_WEAK, Card, make_card
from iekd.runs.notes import name_of
from iekd.runs.store import Run

SIZE = (1200, 630)
LEFT, RIGHT = 64, 1136
INK, SOFT, LINE, ACCENT, AMBER = "#0f172a", "#475569", "#cbd5e1", "#0f766e", "#92400e"
SMALLEST = 0.6  # of a text's size, before it is cut off
SPELLED = MappingProxyType({
    "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D",
    "ı": "i", "\u2212": "-", "\u2013": "-", "\u2014": "-", "→": "to", "×": "x", "±": "+/-",
})  # fmt: skip
NAME_NOTE = N_("The run's name has letters that the card's font lacks, so the card shows the run's id.")
DATASET_NOTE = N_("The dataset's name has letters that the card's font lacks, so the card does not show it.")


def card_of(run: Run, report: dict[str, Any] | None) -> Card:
    """The card of a finished run; report: its result, with the seeds that other runs add (siblings.family_of).

    Raises:
        RunError: it has no result.
    """
    if not report or not report.get("learners"):
        raise RunError(
            f"The run '{run.id}' is {run.status.state} and has no result. A card can be drawn of a finished run."
        )
    with english():  # the card's font has no other letters
        return make_card(report, run.id, name_of(run, run.config), dataset_of(run.config))


def dataset_of(config: RunConfig) -> str:
    """The dataset's title, and how many training images it was limited to."""
    title = _(title_of(config.dataset))
    if not config.limit_train:
        return title
    return _("{dataset} (limited to {images})", dataset=title, images=f"{config.limit_train:,}")


def notes(card: Card) -> list[str]:
    """What the drawn card cannot show, as sentences."""
    found = ((card.title, NAME_NOTE), (card.dataset, DATASET_NOTE))
    return [_(note) for text, note in found if spelled(text) is None]


def png_of(card: Card) -> bytes:
    """The card as a PNG."""
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, SIZE[0], 12), fill=ACCENT)
    title, dataset = spelled(card.title), spelled(card.dataset)
    y = _write(draw, 50, title if title is not None else f"Run {card.run}", 54, INK, lines=2, bold=True)
    where = [card.networks, *([dataset] if dataset is not None else [])]
    y = _write(draw, y + 12, " · ".join(text for text in where if text != card.title), 28, SOFT)
    for note in notes(card):
        y = _write(draw, y + 4, note, 20, AMBER)
    _numbers(draw, card, 262)
    draw.line((LEFT, 406, RIGHT, 406), fill=LINE, width=2)
    weak = card.gain == TOO_WEAK
    if card.gain:
        _write(draw, 428, spelled(card.gain) or "", 56, AMBER if weak else ACCENT, bold=True)
    _write(draw, 500, spelled(card.certainty) or "", 26, SOFT, lines=2)
    _write(draw, 588, f"IE-KD Studio · run {card.run}", 20, SOFT)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _numbers(draw: ImageDraw.ImageDraw, card: Card, top: int) -> None:
    wide = (RIGHT - LEFT) // max(1, len(card.numbers))
    for i, number in enumerate(card.numbers):
        left = LEFT + i * wide
        draw.rectangle((left, top, left + 8, top + 112), fill=number.colour)
        label = spelled(number.label) or ""
        _write(draw, top, label, 28, SOFT, left=left + 24, right=left + wide - 12)
        _write(draw, top + 40, f"{number.accuracy:.1f} %", 72, INK, left=left + 24, right=left + wide - 12, bold=True)


def spelled(text: str) -> str | None:
    """The text in letters that the font has, without accents it lacks; None if that is not possible."""
    found = [letter if _has(letter) else _spelled(letter) for letter in " ".join(text.split())]
    return None if None in found else "".join(filter(None, found))


def _spelled(letter: str) -> str | None:
    parts = unicodedata.normalize("NFKD", letter)
    plain = SPELLED.get(letter) or "".join(part for part in parts if not unicodedata.combining(part))
    return plain if all(map(_has, plain)) else None


@lru_cache(maxsize=64)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


@lru_cache(maxsize=4096)
def _has(letter: str) -> bool:
    """Whether the font draws it, rather than its box for what it lacks."""
    if letter == " ":
        return True
    font = _font(32)
    return letter.isprintable() and bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))


def _write(
    draw: ImageDraw.ImageDraw, top: int, text: str, size: int, colour: str, *, left: int = LEFT, right: int = RIGHT,
    lines: int = 1, bold: bool = False,
) -> int:  # fmt: skip
    """Write into so many lines: smaller if need be, then cut off. Returns where the next line may begin."""
    stroke = max(1, size // 40) if bold else 0

    def width(words: str) -> float:
        return float(draw.textlength(words, font=_font(size))) + 2 * stroke

    least = round(size * SMALLEST)
    while size > least and len(_wrapped(text, width, right - left)) > lines:
        size -= 1
    wrapped = _wrapped(text, width, right - left)
    if len(wrapped) > lines:
        last = wrapped[lines - 1]
        while last and width(last + "...") > right - left:
            last = last[:-1]
        wrapped = [*wrapped[: lines - 1], f"{last.rstrip()}..."]
    for line in wrapped:
        draw.text((left, top), line, font=_font(size), fill=colour, stroke_width=stroke, stroke_fill=colour)
        top += round(size * 1.2)
    return top


def _wrapped(text: str, width: Any, most: int) -> list[str]:
    """The text in lines of at most that width; a word that is too long is broken."""
    lines = [""]
    for word in text.split():
        if lines[-1] and width(f"{lines[-1]} {word}") <= most:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if width(lines[-1] + letter) > most:
                lines.append("")
            lines[-1] += letter
    return lines
