"""What this process may use of the machine: its CPU cores, and the limits of its control groups (Linux, containers)."""

from __future__ import annotations

import os
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


def cores() -> int:
    """CPU cores that this process may use: its affinity, and at most the quota of its cgroup."""
    found = len(cpus_here())
    quota = cpu_quota()
    return found if quota is None else max(1, min(found, int(quota)))


def cpu_quota() -> float | None:
    """Cores' worth of time that the cgroup of this process gets, or any group above it; None without a limit."""
    limits = [_limit(group) for group in control_groups("cpu")]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(group: Path) -> float | None:
    words = lines_of(group / "cpu.max") or [  # version 2, version 1
        " ".join(lines_of(group / "cpu.cfs_quota_us") + lines_of(group / "cpu.cfs_period_us"))
    ]
    quota, _, period = words[0].partition(" ")
    return int(quota) / int(period) if period and quota.isdecimal() and int(quota) > 0 else None


def cpus_here() -> set[int]:
    """The numbers of the CPU cores in this process's affinity."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
