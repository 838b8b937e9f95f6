"""What a dataset consists of, in lines for the page and the command line, before a run starts."""

from __future__ import annotations

from iekd.data.base import DatasetInfo
from iekd.language import _, ngettext

LISTED = 30  # classes


def class_lines(info: DatasetInfo, most: int = LISTED) -> list[str]:
    """Each class with its label and its images: "0 cat: 120 to train, 30 to test"; none where these are not counted.

    Args:
        most: lines; the last says how many more classes there are.
    """
    if not (info.class_sizes and info.test_sizes):
        return []
    count = len(info.class_names)
    shown = info.class_names if count <= most else info.class_names[: most - 1]
    lines = [
        _("{label} {name}: {train} to train, {test} to test", label=label, name=name,
          train=f"{info.class_sizes[label]:,}", test=f"{info.test_sizes[label]:,}")
        for label, name in enumerate(shown)
    ]  # fmt: skip
    if count == len(shown):
        return lines
    return [*lines, ngettext("and {number} more class", "and {number} more classes", count - len(shown))]
