"""What a run costs before it runs: arithmetic per stage, memory, and so an estimate of time. Needs no torch.

The same numbers weigh the stages in the progress bar. Accuracy: a model of multiply-accumulates only, scaled by the
speed that earlier runs on this machine reached; expect it to be right within a factor of about 1.5.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from iekd.config import RunConfig
from iekd.models.catalog import ModelInfo, models

STAGES = ("teacher", "auto-encoder", "students", "evaluation")
# multiply-accumulates per second and core of an untested machine, from the default run on the two cores of
# benchmarks/RESULTS.md; the first finished run replaces it
DEFAULT_SPEED = {"cpu": 22e9, "cuda": 4e12, "mps": 4e11}
TRAIN = 3  # forward + two backward passes
BASE_MEMORY = 0.6e9  # the interpreter with torch


@dataclass(frozen=True)
class Plan:
    """macs: multiply-accumulates per stage; memory: bytes at the peak, about."""

    macs: dict[str, float]
    memory: float

    @property
    def total(self) -> float:
        return sum(self.macs.values())


def make_plan(config: RunConfig, train_images: int, test_images: int, channels: int, classes: int, resolution: int,
              teacher_at_hand: bool) -> Plan:  # fmt: skip
    """Cost of a run on a data set of that size."""
    n = min(train_images, config.limit_train or train_images)
    area = ((config.resolution or resolution) / 32) ** 2
    student = models()[config.student]
    learners = len(config.methods) * len(config.seeds)
    macs = dict.fromkeys(STAGES, 0.0)
    memory = BASE_MEMORY + (n + test_images) * channels * area * 32 * 32
    memory += learners * (config.batch_size * student.activations * area * 4 * 2 + _weights(student, channels, classes))
    macs["students"] = learners * student.macs * area * config.epochs * (TRAIN * n + test_images)
    macs["evaluation"] = learners * student.macs * area * test_images
    if config.needs_teacher:
        teacher = models()[config.teacher]
        forward = teacher.macs * area
        factor = _coder_macs(teacher.feature_channels, teacher.feature_channels // 2, teacher.feature_stride, area)
        macs["evaluation"] += forward * test_images
        if not teacher_at_hand:
            macs["teacher"] = forward * config.teacher_epochs * (TRAIN * n + test_images)
            memory += config.batch_size * teacher.activations * area * 4 * 2
        if any(method != "baseline" for method in config.methods):
            macs["students"] += config.epochs * n * forward
        if config.needs_auto_encoder:
            macs["auto-encoder"] = config.auto_encoder_epochs * n * (forward + TRAIN * 2 * factor)
            taught = sum(method in ("ft", "ie-ft") for method in config.methods) * len(config.seeds)
            macs["students"] += config.epochs * n * (factor + taught * TRAIN * factor)
    return Plan(macs, memory)


def seconds(plan: Plan, device: str, measured_speed: float | None = None) -> float:
    """Estimated seconds; `measured_speed` is in multiply-accumulates per second, from an earlier run here."""
    start_up = 8.0  # imports, data, first step
    cores = (os.cpu_count() or 1) if device == "cpu" else 1
    return start_up + plan.total / (measured_speed or DEFAULT_SPEED[device] * cores)


def _coder_macs(c: int, k: int, stride: int, area: float) -> float:
    return 9 * (c * c + c * k + k * k) * (32 / stride) ** 2 * area


def _weights(model: ModelInfo, channels: int, classes: int) -> float:
    return model.params(channels, classes) * 4 * 3  # weight, gradient, momentum
