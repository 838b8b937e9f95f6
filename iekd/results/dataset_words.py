"""What a dataset consists of, in lines for the page and the command line, before a run starts."""

from __future__ import annotations

from iekd.data.base import DatasetInfo

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
        f"{label} {name}: {info.class_sizes[label]:,} to train, {info.test_sizes[label]:,} to test"
        for label, name in enumerate(shown)
    ]
    return [*lines, f"and {count - len(shown):,} more classes"] if count > len(shown) else lines
