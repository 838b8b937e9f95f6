"""The step part by part, in the plain loop: one thing after the other, waiting for the device after each.

The engine overlaps or fuses these parts (`engine.accelerate`), so that their sum is more than a step takes there.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iekd.distill.targets import TeacherOutput
from iekd.engine.learner import Learner
from iekd.engine.mutual import MutualLearner
from iekd.estimate.budget import TimeIsUp, no_limit
from iekd.estimate.subjects import Parts
from iekd.estimate.timing import synchronise

Run = Callable[[str, str, Callable[[], Any]], Any]  # (whose, part, work) -> what the work returns
DATA, TEACHER = "data", "teacher"
FORWARD, BACKWARD, OPTIMISER, BOTH = "student forward", "backward", "optimiser", "both networks, whole step"


@dataclass(frozen=True)
class Phases:
    """Median seconds of each part of a step.

    data: order and augmentation of one batch; teacher: its forward pass with the encoders that make factors, None
    without one; learners: method -> part -> seconds. The two networks of mutual learning take turns within a step,
    which is one part.
    """

    data: float
    teacher: float | None
    learners: dict[str, dict[str, float]]

    def learner(self, method: str) -> float:
        return sum(self.learners[method].values())

    def step(self, methods: list[str]) -> float:
        """Seconds of a whole step of learners with these methods, one entry for each learner."""
        return self.data + (self.teacher or 0.0) + sum(map(self.learner, methods))


def plain_step(parts: Parts, batch: Callable[[], tuple[Tensor, Tensor]], run: Run) -> None:
    """One step of every learner; each part is given to `run`, which calls it."""
    images, labels = run(DATA, DATA, batch)
    teacher, answer = parts.teacher, None
    if teacher is not None:
        answer = run(TEACHER, TEACHER, lambda: teacher(images))
    for method, learner in parts.learners.items():
        _learn(method, learner, images, labels, answer, run)


def _learn(
    method: str, learner: Learner, images: Tensor, labels: Tensor, answer: TeacherOutput | None, run: Run
) -> None:
    if isinstance(learner, MutualLearner):
        run(method, BOTH, lambda: learner.update(images, labels, answer))
        return
    output = run(method, FORWARD, lambda: learner.forward(images, labels, answer))
    run(method, BACKWARD, lambda: learner.backward(output.loss))
    run(method, OPTIMISER, learner.optimise)


def measure_phases(
    parts: Parts, device: torch.device, seconds: float, steps: int | None, time_is_up: TimeIsUp = no_limit
) -> Phases:  # fmt: skip
    """Time `steps` steps after one that warms up; None for as many as take `seconds`, three at least, or one
    once `time_is_up` says so."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)

    def timed(whose: str, part: str, work: Callable[[], Any]) -> Any:
        synchronise(device)
        began = time.perf_counter()
        value = work()
        synchronise(device)
        found[whose, part].append(time.perf_counter() - began)
        return value

    batches = parts.endless()
    plain_step(parts, lambda: next(batches), timed)
    found.clear()
    done, began = 0, time.perf_counter()
    while done < (steps or 3) or (steps is None and time.perf_counter() - began < seconds):
        plain_step(parts, lambda: next(batches), timed)
        done += 1
        if time_is_up():
            break
    median = {key: statistics.median(values) for key, values in found.items()}
    learners = {
        method: {part: s for (whose, part), s in median.items() if whose == method} for method in parts.learners
    }
    return Phases(median[DATA, DATA], median.get((TEACHER, TEACHER)), learners)
