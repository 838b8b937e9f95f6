"""Test images that were also trained on: what is measured on them is memory, not skill."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iekd.data.base import CHUNK, Split
from iekd.data.file_images import FileImages, Files
from iekd.errors import DataError, as_text
from iekd.plural import counted

HASHED = 64 * 2**20  # bytes of files that are read at most before a run starts: the page waits for it
NAMED = 3


class _File(NamedTuple):
    is_test: bool
    path: str
    label: int


def repeated(train: Split, test: Split) -> np.ndarray:
    """Rows of the test images that are, as the networks see them, equal to a training image.

    Returns:
        (R,) int64, sorted.
    """
    keys, wanted = _keys(train), _keys(test)
    shared = set(keys) & set(wanted)
    if not shared:
        return np.zeros(0, np.int64)
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if key in shared:
            rows_of[key].append(row)
    found = [row for row, key in enumerate(wanted) if any(_same(train, r, test, row) for r in rows_of.get(key, ()))]
    return np.array(found, np.int64)


def repeated_note(train: Split, test: Split) -> list[str]:
    """What to say of test images that are equal to training images: a sentence, or none."""
    rows = repeated(train, test)
    if not len(rows):
        return []
    files = test.image_files
    names = [] if files is None else [as_text(os.path.basename(files[int(row)])) for row in rows[:NAMED]]
    verb = "is equal to a training image" if len(rows) == 1 else "are equal to training images"
    return [_note(f"{len(rows):,} of {counted(len(test), 'test image')} {verb}", names, len(rows))]


def copied_files_note(train: Files, test: Files | None) -> list[str]:
    """The same of files whose contents are equal, without decoding them; nothing is said where that would take long.

    test: None if test images are yet to be drawn from `train`; then any two equal files count.
    """
    of_size: dict[int, list[_File]] = defaultdict(list)
    for is_test, files in ((False, train), (True, test)):
        for i in range(len(files) if files is not None else 0):
            path = files[i]  # type: ignore[index]
            try:
                of_size[os.stat(path).st_size].append(_File(is_test, path, int(files.which[i])))  # type: ignore[union-attr]
            except OSError:
                continue
    groups = [group for size, group in of_size.items() if size and _may_repeat(group, test is None)]
    if sum(os.stat(group[0].path).st_size * len(group) for group in groups) > HASHED:
        return []
    copies, contradictions = list[str](), list[list[_File]]()
    for group in groups:
        of_content: dict[bytes, list[_File]] = defaultdict(list)
        for file in group:
            of_content[_content(file.path)].append(file)
        for equal in of_content.values():
            if _may_repeat(equal, test is None):
                copies += [f.path for f in equal if f.is_test] if test is not None else [f.path for f in equal[1:]]
                contradictions += [equal] if len({f.label for f in equal}) > 1 else []
    if not copies:
        return []
    names = [as_text(os.path.basename(path)) for path in copies[:NAMED]]
    if test is None:
        copied = counted(len(copies), "file is an exact copy of another", "files are exact copies of others")
        what = f"{copied}, and one may be trained on and the other tested on"
    else:
        verb = "is an exact copy of a training image" if len(copies) == 1 else "are exact copies of training images"
        what = f"{len(copies):,} of {counted(len(test), 'test image')} {verb}"
    return [_note(what, names, len(copies)), *_contradictions_note(contradictions)]


def shared(split: Split, test: Split) -> int:
    """How many images of `test` are in `split` too; 0 if one is in memory and the other in its files."""
    if isinstance(split.images, FileImages) != isinstance(test.images, FileImages):
        return 0
    there = set(_keys(split))
    return sum(key in there for key in _keys(test))


def _contradictions_note(groups: list[list[_File]]) -> list[str]:
    """Equal files with different labels: a sentence, or none."""
    if not groups:
        return []
    first = groups[0][0]
    other = next(file for file in groups[0] if file.label != first.label)
    shown = " and ".join(f"'{as_text('/'.join(Path(file.path).parts[-2:]))}'" for file in (first, other))
    lies = counted(len(groups), "image is in two classes", "images are in two classes")
    return [f"{lies} at once, such as {shown}: one of its labels is wrong."]


def _note(what: str, names: list[str], count: int) -> str:
    listed = ", ".join(f"'{name}'" for name in names) + (f" and {count - len(names):,} more" if count > NAMED else "")
    remove = "Remove it." if count == 1 else "Remove the copies."
    return f"{what}{f' ({listed})' if names else ''}: the accuracy will look better than it is. {remove}"


def _may_repeat(group: list[_File], drawn: bool) -> bool:
    return len(group) > 1 and (drawn or len({file.is_test for file in group}) == 2)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).digest()
    except OSError:
        return path.encode(errors="surrogateescape")


def _keys(split: Split) -> list[bytes]:
    """What each image has in common with images equal to it, and hardly ever with others."""
    if isinstance(split.images, FileImages):
        return [sums.tobytes() for sums in split.images.sums]
    flat = split.images.reshape(len(split), -1)
    words = flat.shape[1] // 8  # eight pixels at a time: this is part of every start
    weights = np.random.default_rng(0).integers(1, 2**63, words, np.uint64)
    keys: list[bytes] = []
    for i in range(0, len(split), CHUNK):
        some = np.ascontiguousarray(flat[i : i + CHUNK, : 8 * words]).view(np.uint64)
        keys += np.einsum("nw,w->n", some, weights).view("V8").tolist()
    return keys


def _same(train: Split, i: int, test: Split, j: int) -> bool:
    with contextlib.suppress(DataError):  # a file that has gone since
        return bool(np.array_equal(train.images[i], test.images[j]))
    return False
