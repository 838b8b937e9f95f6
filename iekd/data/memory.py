"""How much memory images may take: what is free on this machine, also inside a container."""

from __future__ import annotations

from collections.abc import Iterator

import psutil

from iekd.data.control_groups import control_groups

# limit, use, and the line of memory.stat with what is only a cache of files: version 2, version 1
FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Bytes that this process can still get: the machine's, or those of its control group where that has fewer."""
    return min([psutil.virtual_memory().available, *_left_in_groups()])


def image_budget(image_memory: float | None) -> float:
    """Bytes that decoded images may take in this machine's memory, of RunConfig.image_memory (GB).

    Unset: half of what is free, because holding images out copies the others once.
    """
    return free_memory() / 2 if image_memory is None else image_memory * 1e9


def _left_in_groups() -> Iterator[int]:
    """What each control group above this process leaves; without a limit, or on other systems, nothing is said."""
    for group in control_groups("memory"):
        for limit, used, cache in FILES:
            try:
                stat = dict(entry.split() for entry in (group / "memory.stat").read_text().splitlines())
                yield int((group / limit).read_text()) - int((group / used).read_text()) + int(stat.get(cache, 0))
            except (OSError, ValueError):  # the other version's files, or a limit of "max"
                continue
