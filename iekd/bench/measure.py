"""`iekd bench`: how fast a configuration trains on this machine, compared with a conventional loop."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from iekd import __version__
from iekd.bench.roofline import Bound, Operations, Peaks, bound, measure_peaks
from iekd.bench.rounds import TOGETHER, Speed, measure_speeds
from iekd.config.run import RunConfig
from iekd.data.control_groups import cores
from iekd.engine.threads import processor
from iekd.errors import unknown_name
from iekd.estimate.budget import Budget
from iekd.estimate.phases import Phases, measure_phases, plain_step
from iekd.estimate.subjects import Subject

PARTS = ("ours", "conventional", "phases", "roofline")
PHASES = "the step part by part"
LONGEST = 50.0  # seconds for each measurement on average, rounds and warming up included; about twice what it takes on
# an idle machine


@dataclass(frozen=True)
class Roofline:
    """See roofline.py. fraction: the bound's seconds / the measured step of all learners; None if that was left out."""

    peaks: Peaks
    bound: Bound
    fraction: float | None


@dataclass(frozen=True)
class Report:
    """What `measure` found; a part that was left out is empty or None.

    learners: the method of each. ours: method alone, or "together" for all methods x seeds in lock-step -> speed.
    memory: peak bytes of our "together": allocated on a CUDA device, dataset included; of the whole process on a CPU.
    cut: what was cut short or left out, because the machine was too busy.
    """

    command: str
    date: str
    machine: dict[str, Any]
    batch_size: int
    precision: str
    learners: tuple[str, ...]
    ours: dict[str, Speed]
    conventional: dict[str, Speed]
    phases: Phases | None
    memory: int | None
    roofline: Roofline | None
    cut: tuple[str, ...] = ()

    @property
    def together_to_apart(self) -> float | None:
        """Time of a step of all learners together / the sum of each learner's alone."""
        if not {TOGETHER, *self.learners} <= self.ours.keys():
            return None
        apart = sum(self.ours[method].seconds_per_step for method in self.learners)
        return self.ours[TOGETHER].seconds_per_step / apart

    @property
    def times_as_fast(self) -> dict[str, float]:
        """The conventional loop's time / ours: for each method alone, and "together" against one student at a time."""
        if not (self.ours and self.conventional):
            return {}
        theirs = {method: speed.seconds_per_step for method, speed in self.conventional.items()}
        if set(self.learners) <= theirs.keys():
            theirs[TOGETHER] = sum(theirs[method] for method in self.learners)
        return {
            name: theirs[name] / speed.seconds_per_step for name, speed in self.ours.items() if name in theirs
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        ratios = {"together_to_apart": self.together_to_apart, "times_as_fast": self.times_as_fast}
        return {**asdict(self), **ratios}


def check_parts(text: str | None) -> tuple[str, ...]:
    """ "ours,phases" -> ("ours", "phases"); all parts for None.

    Raises:
        UserError: an unknown part, or none.
    """
    if text is None:
        return PARTS
    chosen = tuple(word for word in text.replace(" ", ",").split(",") if word)
    for word in chosen or (text,):
        if word not in PARTS:
            raise unknown_name("part", word, PARTS)
    return chosen


def measure(
    config: RunConfig, steps: int | None = None, only: tuple[str, ...] = PARTS, seconds: float = 10.0,
    say: Callable[[str], None] = lambda _: None, budget: Budget | None = None,
) -> Report:  # fmt: skip
    """Measure the parts in `only` (see PARTS).

    steps: timed steps of each measurement in each round; None for as many as take about `seconds` in all rounds.
    say: told what is being measured. budget: of time in all; None for LONGEST for each measurement.
    Raises:
        UserError: a device that is not there, or a training that diverges.
    """
    budget = budget or Budget(LONGEST * (2 + 2 * len(config.methods)))
    subject, phases = Subject(config, 8 * config.batch_size), None
    if "phases" in only or steps is None:  # they tell how many steps fit
        say(PHASES)
        with subject.threads.used():
            time_is_up = budget.part(PHASES, 0.2)
            phases = measure_phases(subject.parts(), subject.device, seconds / 3, steps, time_is_up)
    speeds = measure_speeds(config, phases, steps, "ours" in only, "conventional" in only, seconds, say, budget)
    roofline = None
    if "roofline" in only and not budget.left:
        budget.note("the roofline")
    elif "roofline" in only:
        say("the roofline")
        peaks, together = measure_peaks(subject.device, subject.precision), speeds.ours.get(TOGETHER)
        limit = step_bound(subject, peaks)
        roofline = Roofline(peaks, limit, limit.seconds / together.seconds_per_step if together else None)
    return Report(
        command=_command(config, steps, only),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        machine=machine(subject.device), batch_size=config.batch_size,
        precision="bf16" if subject.precision == torch.bfloat16 else "fp32",
        learners=tuple(method for method, _ in config.learner_names), ours=speeds.ours, conventional=speeds.theirs,
        phases=phases if "phases" in only else None, memory=speeds.memory, roofline=roofline,
        cut=tuple(budget.cut),
    )  # fmt: skip


def step_bound(subject: Subject, peaks: Peaks) -> Bound:
    """The least time of one step of all learners, every seed counted."""
    parts, seeds = subject.parts(), len(subject.config.seeds)
    batches, seen = parts.endless(), []

    def counted(whose: str, part: str, work: Callable[[], Any]) -> Any:
        with Operations(subject.device) as operations:
            value = work()
        seen.extend(operations.seen * (seeds if whose in parts.learners else 1))
        return value

    plain_step(parts, lambda: next(batches), lambda _, __, work: work())  # the optimiser's state is there from now on
    plain_step(parts, lambda: next(batches), counted)
    return bound(seen, peaks)


def machine(device: torch.device) -> dict[str, Any]:
    """Where this was measured: device, cores, versions."""
    return {
        "kind": device.type,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{device.type} ({processor()})",
        "processor": processor(), "cores": cores(), "platform": platform.platform(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "iekd": __version__},
    }  # fmt: skip


def _command(config: RunConfig, steps: int | None, only: tuple[str, ...]) -> str:
    words = config.command_line().replace("iekd train", "iekd bench", 1)
    words += "" if steps is None else f" --steps {steps}"
    return words if set(only) == set(PARTS) else f"{words} --only {','.join(only)}"
