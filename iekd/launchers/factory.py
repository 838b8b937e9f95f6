"""The one place that chooses a launcher, by its name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from iekd.errors import UserError
from iekd.launchers.base import Launcher
from iekd.launchers.by_owner import ByOwner
from iekd.launchers.hub_jobs import HubJobsLauncher
from iekd.launchers.local import LocalLauncher
from iekd.launchers.ray import RayLauncher
from iekd.runs.owner import LOCAL
from iekd.runs.store import Store

# each is made from a store and its own options, without asking anything: a list of runs makes all of them
LAUNCHERS = {made.name: made for made in (LocalLauncher, RayLauncher, HubJobsLauncher)}


def make_launcher(runs_dir: Path | str, name: str = LOCAL, **options: Any) -> ByOwner:
    """The launcher that trains the new runs of a folder; each earlier run stays with the launcher that started it.

    Args:
        name: one of LAUNCHERS.
        options: what that launcher takes, such as an address; None or "" for one that is not given.
    Raises:
        UserError: there is no such launcher, or it does not take one of the options.
    """
    if name not in LAUNCHERS:
        raise UserError(f"There is no launcher '{name}'. Give one of: {', '.join(LAUNCHERS)}.")
    given = {option: value for option, value in options.items() if value not in (None, "")}
    for option in given:
        if option not in _options(name):
            takers = [other for other in LAUNCHERS if option in _options(other)]
            remedy = f"Give --launcher {' or '.join(takers)} with it, or leave it out." if takers else "Leave it out."
            raise UserError(f"The launcher '{name}' does not take --{option.replace('_', '-')}. {remedy}")
    store = Store(runs_dir)
    made: dict[str, Launcher] = {other: LAUNCHERS[other](store) for other in LAUNCHERS if other != name}
    return ByOwner(LAUNCHERS[name](store, **given), made)


def _options(name: str) -> list[str]:
    """What a launcher is made from besides its store."""
    return [parameter for parameter in inspect.signature(LAUNCHERS[name]).parameters if parameter != "store"]
