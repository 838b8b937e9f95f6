"""The control groups of this process (Linux, containers), whose limits may be lower than the machine's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
MOUNTED = Path("/sys/fs/cgroup")


def control_groups(controller: str) -> Iterator[Path]:
    """The folders that may hold limits of this process: its own group and all above it, of both versions of cgroups.

    In a container the group that is named may not be there; its root then has the limit.

    controller: "cpu" or "memory".
    """
    for line in lines_of(GROUPS):
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            mounts = [MOUNTED, MOUNTED / "unified"]
        elif controller in controllers.split(","):
            mounts = list(dict.fromkeys([MOUNTED / controllers, MOUNTED / controller]))
        else:
            continue
        inner = Path(path.lstrip("/"))
        for mount in mounts:
            yield from (mount / group for group in (inner, *inner.parents))


def lines_of(path: Path) -> list[str]:
    """The lines of a file of the system; none if there is no such file."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
