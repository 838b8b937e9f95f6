"""What a few files tell of all: images that are far from square, or have values that are lost."""

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
    long = [max(width, height) / max(1, min(width, height)) for width, height, *_ in found]
    if fit == CROP and float(np.median(long)) >= LONG:
        notes.append(
            f"The images are {float(np.median(long)):.1f} times as long as wide, and only a square from their centre "
            "is used. --fit pad or squash uses all of them."
        )
    if deep := sum(about.cut for about in found):
        share = "Some" if deep < len(found) else "The"
        notes.append(
            f"{share} colour images have 16 bits, of which only the upper 8 are read: 12-bit values become nearly "
            "black. Save them with 8 bits."
        )
    if (lowest := min(about.lowest for about in found)) < 0:
        notes.append(
            f"Some images have negative values, down to {lowest:g}, which become black. Save them with values from 0."
        )
    return tuple(notes)
