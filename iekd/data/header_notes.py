"""What a few files tell of all: images that are far from square, or have values that are lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iekd.data.decoding import CROP, Header, header, open_image
from iekd.data.file_images import Files
from iekd.errors import DataError
from iekd.plural import counted

LOOKED_AT = 100  # files, evenly spread
LONG = 1.5  # times as long as wide: a third of such an image is cut off


def header_notes(files: Files, fit: str = CROP, class_names: Sequence[str] = ()) -> tuple[str, ...]:
    """Sentences on what becomes of the images; none if there is nothing to say.

    class_names: if given, files that cannot be read are spoken of; which is known better once all have been read.
    Raises:
        DataError: class names were given, and no file of one can be read.
    """
    rows = sorted({round(row) for row in np.linspace(0, len(files) - 1, LOOKED_AT)} if len(files) else set())
    about_each = {row: header(files[row]) for row in rows}
    notes = _unreadable(files, about_each, class_names) if class_names else []
    found = [about for about in about_each.values() if about is not None]
    if not found:
        return tuple(notes)
    long = [max(width, height) / max(1, min(width, height)) for width, height, *_ in found]
    if fit == CROP and float(np.median(long)) >= LONG:
        notes.append(
            f"The images are {float(np.median(long)):.1f} times as long as wide. --fit crop, the default, uses only a "
            "square from their centre; pad and squash use all of them."
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


def _unreadable(files: Files, about_each: dict[int, Header | None], class_names: Sequence[str]) -> list[str]:
    """What to say of files that are no images, without decoding any."""
    broken = [row for row, about in about_each.items() if about is None]
    if not broken:
        return []
    why = ""
    try:
        open_image(files[broken[0]])
    except DataError as error:
        why = str(error)
    if len(broken) == len(about_each):
        raise DataError(f"None of the {counted(len(about_each), 'file')} looked at can be read. {why}")
    for label in set(files.which[broken].tolist()):  # a class of which all files were looked at
        of_class = np.flatnonzero(files.which == label)
        if set(of_class.tolist()) <= set(broken):
            raise DataError(f"No image of class '{class_names[label]}' can be read. {why}")
    return [f"{len(broken):,} of the {counted(len(about_each), 'file')} looked at cannot be read. {why}"]
