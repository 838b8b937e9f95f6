"""What a few files' headers tell of all: images that are far from square, or have bits that are lost."""

from __future__ import annotations

import numpy as np

from iekd.data.decoding import CROP, header
from iekd.data.file_images import Files

LOOKED_AT = 100  # files, evenly spread
LONG = 1.5  # times as long as wide: a third of such an image is cut off


def header_notes(files: Files, fit: str = CROP) -> tuple[str, ...]:
    """Sentences on what becomes of the images; none if there is nothing to say."""
    rows = {round(row) for row in np.linspace(0, len(files) - 1, LOOKED_AT)} if len(files) else set()
    found = [about for row in sorted(rows) if (about := header(files[row])) is not None]
    if not found:
        return ()
    notes = []
    long = [max(width, height) / max(1, min(width, height)) for width, height, _ in found]
    if fit == CROP and float(np.median(long)) >= LONG:
        notes.append(
            f"The images are {float(np.median(long)):.1f} times as long as wide, and only a square from their centre "
            "is used. --fit pad or squash uses all of them."
        )
    if deep := sum(is_deep for _, _, is_deep in found):
        share = "Some" if deep < len(found) else "The"
        notes.append(
            f"{share} colour images have 16 bits, of which only the upper 8 are read: 12-bit values become nearly "
            "black. Save them with 8 bits."
        )
    return tuple(notes)
