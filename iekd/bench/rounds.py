"""Training speed of the engine and of the conventional loop, in turn, so that slow minutes of a machine affect both."""

from __future__ import annotations

import contextlib
import gc
import math
import resource
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from iekd.bench import conventional
from iekd.config.run import RunConfig
from iekd.data import describe
from iekd.engine.accelerate import choose_device
from iekd.engine.mutual import MutualLearner
from iekd.estimate.budget import Budget, OutOfTimeError, TimeIsUp, no_limit
from iekd.estimate.phases import Phases
from iekd.estimate.subjects import Subject, image_bytes
from iekd.estimate.timing import MOST_BYTES, engine_step_time, fitting_steps

ROUNDS = 3
TOGETHER = "together"


@dataclass(frozen=True)
class Speed:
    """Training of one or several learners on the same batches.

    images_per_second: images that all of them have learned from; seconds_per_step: of one step of all of them. Both are
    medians over `rounds`, which has the images per second of each round.
    """

    images_per_second: float
    seconds_per_step: float
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class LoopSpeeds:
    """ours: method, or TOGETHER for all learners in lock-step -> speed; theirs: method -> the conventional loop's.

    memory: see `peak_memory`, after our largest measurement and before any of theirs.
    """

    ours: dict[str, Speed]
    theirs: dict[str, Speed]
    memory: int | None


def alone(config: RunConfig, method: str) -> RunConfig:
    """The same run with one learner: that method, the first seed."""
    return config.model_copy(update={"methods": (method,), "seeds": config.seeds[:1]})


def measure_speeds(
    config: RunConfig, phases: Phases | None, steps: int | None, ours: bool, theirs: bool, seconds: float,
    say: Callable[[str], None], budget: Budget | None = None,
) -> LoopSpeeds:  # fmt: skip
    """All methods x seeds together, each method alone, and each in the conventional loop, in ROUNDS rounds.

    steps: timed steps of each measurement; None for as many as take about `seconds` in all rounds, which `phases` of
    the same configuration tell. What finds no time left in the budget is not in the result.
    """

    def guess(names: list[str]) -> float:
        assert phases is not None, "without a number of steps"
        return phases.step(names)

    each = seconds / ROUNDS
    learners = [method for method, _ in config.learner_names]
    work: dict[tuple[str, str], Callable[[TimeIsUp], float]] = {}
    if ours and len(learners) > 1:
        fitting = steps or _refined(config, guess(learners), each)
        work["", TOGETHER] = partial(engine_step_time, config, fitting)
    for method in config.methods:
        single = alone(config, method)
        if ours:
            fitting = steps or _refined(single, guess([method]), each)
            work["", method] = partial(engine_step_time, single, fitting)
        if theirs:
            work["conventional loop, ", method] = partial(conventional_step_time, single, each, steps)
    found: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    budget = budget or Budget(math.inf)
    memory, still = None, ROUNDS * len(work)  # how many measurements still want their share of the time
    for round_ in range(1, ROUNDS + 1):
        for key, measured in work.items():
            name = f"round {round_} of {ROUNDS}: {''.join(key)}"
            time_is_up, still = budget.part(name, 1 / still), still - 1
            if not budget.left:
                budget.note(name)
                continue
            say(name)
            with contextlib.suppress(OutOfTimeError):
                found[key].append(measured(time_is_up))
            if ours and memory is None:  # the first is the largest of ours
                memory = peak_memory()
            gc.collect()
    speeds = {key: _speed(values, config.batch_size) for key, values in found.items() if values}
    mine = {name: speed for (loop, name), speed in speeds.items() if not loop}
    if len(learners) == 1 and learners[0] in mine:
        mine[TOGETHER] = mine[learners[0]]
    return LoopSpeeds(mine, {name: speed for (loop, name), speed in speeds.items() if loop}, memory)


def _speed(step_times: list[float], batch_size: int) -> Speed:
    seconds = statistics.median(step_times)
    return Speed(batch_size / seconds, seconds, tuple(batch_size / s for s in step_times))


def _refined(config: RunConfig, guess: float, seconds: float) -> int:
    """`fitting_steps` where `guess` is the plain loop's step: a recorded step may be many times as fast."""
    if choose_device(config.device).type == "cuda":
        guess = engine_step_time(config, fitting_steps(config, guess, seconds / 4))
    return fitting_steps(config, guess, seconds)


def conventional_step_time(
    config: RunConfig, seconds: float, steps: int | None, time_is_up: TimeIsUp = no_limit
) -> float:  # fmt: skip
    """Mean seconds of a step of the conventional loop for a configuration with one learner; see conventional.py."""
    least = conventional.WARM_UP + conventional.LEAST
    most = int(MOST_BYTES / (image_bytes(config) * config.batch_size))
    usual = describe(config.dataset).train_images // config.batch_size
    subject = Subject(config, max(least, min(usual, most)) * config.batch_size)
    trainer = make_trainer(subject)
    loader = conventional.make_loader(
        subject.dataset.train, subject.statistics, config.batch_size, subject.device
    )  # fmt: skip
    return conventional.step_time(trainer, loader, seconds, steps, time_is_up)


def make_trainer(subject: Subject) -> conventional.Trainer:
    """The conventional loop on the networks and the method of the subject's first learner."""
    learner = next(iter(subject.parts().learners.values()))
    peer = (learner.peer.model, learner.peer.method) if isinstance(learner, MutualLearner) else None
    encoders: list[nn.Module] = [coder.encoder for coder in subject.auto_encoders()]
    teacher = subject.teacher.model if subject.teacher else None
    return conventional.Trainer(
        learner.model, learner.method, subject.config, subject.device, teacher, encoders, peer
    )  # fmt: skip


def peak_memory() -> int:
    """Bytes: on CUDA allocated for tensors at most since the last engine_step_time began; else the whole process's."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # where getrusage may know of a larger parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
