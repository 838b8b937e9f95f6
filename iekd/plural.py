"""Numbers in sentences: "1 image", "1,234 images", "2 classes", "+2.3"."""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its word, or with the rest of a sentence that agrees with it.

    Args:
        one: what follows 1, such as "image" or "file is a copy".
        several: what follows any other number; empty: `one` with the usual ending.
    """
    return f"{number:,} {one if number == 1 else several or _plural(one)}"


def signed(value: float, decimals: int) -> str:
    """2.34 -> '+2.3', with a real minus before what is below zero, and none before what is rounded to it."""
    return f"{round(value, decimals) + 0:+.{decimals}f}".replace("-", "\u2212")


def _plural(word: str) -> str:
    return f"{word}es" if word.endswith(("s", "x", "sh", "tch")) else f"{word}s"
