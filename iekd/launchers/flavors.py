"""What a job may cost: the flavors of Hugging Face Jobs with their prices as the Hub lists them, and limits of time."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iekd.errors import UnknownNameError, UserError
from iekd.estimate.cost import Plan, seconds
from iekd.launchers.in_job import in_hours
from iekd.runs.estimate import LOOK_BACK, MUCH_WORK, SPREAD_OF_OTHERS
from iekd.runs.owner import record
from iekd.runs.status import FINISHED
from iekd.runs.store import Store

UNITS = ("second", 3600), ("minute", 60), ("hour", 1)  # of a price; how many are in an hour
TIMES = ("", 1), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)
LEAST = 300.0  # seconds; a job needs some minutes to start and install
SPREAD_ELSEWHERE = 4.0  # factor within which the time on a GPU that nobody has measured is expected to be right


@dataclass(frozen=True)
class Flavor:
    """A kind of machine. per_hour: dollars; None: the Hub's price is in a unit that is not known here."""

    name: str
    title: str
    per_hour: float | None
    gpu: bool
    price: str

    @property
    def line(self) -> str:
        return f"{self.name} {self.price}"


def flavors_of(hardware: Sequence[Any]) -> list[Flavor]:
    """What `list_jobs_hardware` gave, as it is sorted there."""
    found = []
    for one in hardware:
        factor = dict(UNITS).get(str(one.unit_label).lower())
        per_hour = None if factor is None else one.unit_cost_usd * factor
        price = (
            f"{dollars(per_hour)} per hour" if per_hour is not None else f"${one.unit_cost_usd:g} per {one.unit_label}"
        )
        title = f"{one.accelerator.quantity} x {one.accelerator.model}" if one.accelerator else one.cpu
        found.append(Flavor(one.name, title, per_hour, one.accelerator is not None, price))
    return found


def flavor_called(name: str, known: Sequence[Flavor]) -> Flavor:
    """Raises UnknownNameError for another name: it has the closest, and all with their prices."""
    for flavor in known:
        if flavor.name == name.strip().lower():
            return flavor
    close = difflib.get_close_matches(name.strip().lower(), [flavor.name for flavor in known], n=1, cutoff=0.7)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    prices = ", ".join(flavor.line for flavor in known)
    raise UnknownNameError(f"Unknown flavor '{name}'.{hint} There are: {prices}.", "flavor", name)


def seconds_in(timeout: str) -> float:
    """ "2h", "90m", "1.5d" or seconds -> seconds.

    Raises:
        UserError: it is none of these, or too short for a job to start.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smhd]?)", timeout.strip().lower())
    if found is None:
        raise UserError(f"Timeout '{timeout}' cannot be used: give a number with m, h or d, such as 90m or 2h.")
    taken = float(found[1]) * dict(TIMES)[found[2]]
    if not math.isfinite(taken) or taken < LEAST:
        raise UserError(
            f"Timeout '{timeout}' is too short: a job needs minutes to start. Give {in_hours(LEAST)} or more."
        )
    return taken


def dollars(amount: float) -> str:
    """0.4 -> '$0.40'; of small amounts the first two digits."""
    return f"${amount:.2f}" if amount >= 0.1 or not amount else f"${float(f'{amount:.2g}'):g}"


def most_of(flavor: Flavor, limit: float) -> str:
    """What a job of that flavor costs at most, in words."""
    if flavor.per_hour is None:
        return f"The job ends after {in_hours(limit)} at the latest."
    most = dollars(flavor.per_hour * limit / 3600)
    return f"It costs at most {most}: the job ends after {in_hours(limit)} at the latest."


def resumed_price(notes: Mapping[str, Any]) -> str:
    """What it costs to resume a run, as a sentence; "" for one that is no job. notes: `owner.record` of it."""
    if "flavor" not in notes:
        return ""
    name, per_hour, limit = str(notes["flavor"]), notes.get("per_hour"), float(notes.get("seconds", 0))
    job = Flavor(name, name, per_hour, False, "")
    return f"Resuming it starts another job on {name}. {most_of(job, limit)}"


def expected(plan: Plan, flavor: Flavor, store: Store) -> tuple[float, float, str]:
    """Seconds of the run on that flavor, the factor within which that is expected to be right, and its basis."""
    device = "cuda" if flavor.gpu else "cpu"
    speed = _measured(store, flavor.name)
    if speed:
        return seconds(plan, device, speed), SPREAD_OF_OTHERS, f"from the speed of an earlier run on {flavor.name}"
    return seconds(plan, device), SPREAD_ELSEWHERE, f"a guess: no speed of {flavor.name} has been measured"


def _measured(store: Store, flavor: str) -> float | None:
    """Multiply-accumulates per second of the newest finished run on that flavor."""
    for run in store.list()[:LOOK_BACK]:
        if record(run.path).get("flavor") == flavor and run.status.state == FINISHED and (report := run.report):
            speed, took = report.get("speed") or 0, report.get("seconds") or 0
            if speed * took > MUCH_WORK:
                return float(speed)
    return None
