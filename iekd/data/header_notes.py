"""What a few files tell of all: images that are far from square, or have values that are lost."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from iekd.data.decoding import CROP, Header, header, may_be_cut_off, open_image
from iekd.data.file_images import Files
from iekd.data.folder_names import named
from iekd.errors import DataError, as_text
from iekd.plural import counted

LOOKED_AT = 100  # files, evenly spread
ENDS = 2000  # files of which the end is looked at
TRIED = 64 * 2**20  # bytes of files at most that are decoded because their ends look wrong: the page waits
LONG = 1.5  # times as long as wide: a third of such an image is cut off


def header_notes(files: Files, fit: str = CROP, class_names: Sequence[str] = ()) -> tuple[str, ...]:
    """Sentences on what becomes of the images; none if there is nothing to say.

    class_names: if given, files that cannot be read are spoken of; which is known better once all have been read.
    Raises:
        DataError: class names were given, and no file of one can be read.
    """
    about_each = {row: header(files[row]) for row in _spread(files, LOOKED_AT)}
    notes = unreadable_notes(files, class_names, about_each) if class_names else []
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
    if several := sum(about.several for about in found):
        share = "Some files hold" if several < len(found) else "The files hold"
        notes.append(f"{share} several images, pages or frames, of which only the first is used. Save each as a file.")
    if (lowest := min(about.lowest for about in found)) < 0:
        notes.append(
            f"Some images have negative values, down to {lowest:g}, which become black. Save them with values from 0."
        )
    return tuple(notes)


def unreadable_notes(
    files: Files, class_names: Sequence[str] = (), about_each: dict[int, Header | None] | None = None
) -> list[str]:  # fmt: skip
    """What to say of files that cannot be read; of those with a header only those are decoded that may be cut off.

    class_names: of training files, of which every class needs some. about_each: headers that were read before.
    Raises:
        DataError: class names were given, and no file of one can be read.
    """
    if about_each is None:
        about_each = {row: header(files[row]) for row in _spread(files, LOOKED_AT)}
    broken = {row for row, about in about_each.items() if about is None}
    looked_at, tried = sorted({*about_each, *_spread(files, ENDS)}), 0
    for row in looked_at:
        if row in broken or not may_be_cut_off(files[row]):
            continue
        tried += os.path.getsize(files[row])
        if tried > TRIED:
            break
        if _why_not(files[row]):
            broken.add(row)
    if not broken:
        return []
    why, of, kind = _why_not(files[min(broken)]), len(looked_at), "file" if class_names else "test file"
    if len(broken) == of and class_names:
        raise DataError(f"None of the {counted(of, kind)} looked at can be read. {why}")
    for label in set(files.which[sorted(broken)].tolist()) if class_names else ():
        of_class = np.flatnonzero(files.which == label)  # a class of which all files were looked at
        if set(of_class.tolist()) <= broken:
            raise DataError(f"No image of class '{class_names[label]}' can be read. {why}")
    names = [as_text(os.path.basename(files[row])) for row in sorted(broken)]
    listed = f" ({named(names)})" if len(names) > 1 else ""
    return [f"{len(broken):,} of the {counted(of, kind)} looked at cannot be read{listed}. {why}"]


def _spread(files: Files, most: int) -> list[int]:
    return sorted({round(row) for row in np.linspace(0, len(files) - 1, most)}) if len(files) else []


def _why_not(path: str) -> str:
    """Why a file cannot be read; empty if it can."""
    try:
        open_image(path)
    except DataError as error:
        return str(error)
    return ""
