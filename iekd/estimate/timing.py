"""How long a step of the engine takes, measured."""

from __future__ import annotations

import contextlib
import time
from collections import Counter

import torch

from iekd.config.run import RunConfig
from iekd.engine.experiment import STUDENTS
from iekd.engine.metrics import Metrics
from iekd.estimate.budget import OutOfTimeError, TimeIsUp, no_limit
from iekd.estimate.subjects import Subject, image_bytes

MOST_BYTES = 200e6  # of noise images in one measurement
# steps that are not timed, at either end of an epoch: the teacher or one learner may be so far in front of another, and
# the first ones choose kernels and record a CUDA graph
AHEAD = 5


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def fitting_steps(config: RunConfig, step: float, seconds: float) -> int:
    """How many steps of `step` seconds to time: what fits into the seconds, four at least, and no more than
    MOST_BYTES of images."""
    most = MOST_BYTES / (image_bytes(config) * config.batch_size)
    return max(4, int(min(seconds / step, most)))


def engine_step_time(config: RunConfig, steps: int, time_is_up: TimeIsUp = no_limit) -> float:
    """Mean seconds of at least `steps` steps of all learners in the real engine, in the middle of an epoch.

    time_is_up: asked at each row; once it is, what was timed so far counts.

    Raises:
        OutOfTimeError: nothing was timed so far.

    What is timed lies between two rows of metrics; up to the first the engine warms up. Rows come as often as in any
    run, or more often where few steps are timed.
    """
    usual = max(1, 2000 // config.batch_size)  # as Experiment has it
    every = max(AHEAD, min(usual, steps))
    timed = -(-steps // every) * every
    subject = Subject(config, (timed + 2 * every) * config.batch_size, every)
    if subject.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    rows: Counter[int] = Counter()
    began: float | None = None
    with contextlib.closing(subject.events()) as events:
        for event in events:
            if began is None and time_is_up():
                raise OutOfTimeError
            if not (isinstance(event, Metrics) and event.stage == STUDENTS and event.kind == "train"):
                continue
            rows[event.step] += 1
            if rows[event.step] < len(config.learner_names):
                continue  # others are not as far
            if event.step == every:
                began = time.perf_counter()
            elif began is not None and (event.step == every + timed or time_is_up()):
                return (time.perf_counter() - began) / (event.step - every)
    raise AssertionError(f"no rows at steps {every} and {every + timed}")
