"""What a run costs before it runs: arithmetic per stage, memory, and so an estimate of time. Needs no torch.

The same numbers weigh the stages in the progress bar. Accuracy: a model of multiply-accumulates only, scaled by the
speed that earlier runs on this machine reached; expect it to be right within a factor of about 1.5.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from iekd.config.methods import MethodSpec, method_spec
from iekd.config.run import STAGES, RunConfig
from iekd.data import DatasetInfo, source_of
from iekd.data.unlabelled import check_unlabelled
from iekd.errors import DataError
from iekd.estimate.progress import HELD_OUT, TRAINING, Part
from iekd.estimate.speeds import Speeds
from iekd.models.catalog import factor_channels, model_info
from iekd.models.info import ModelInfo

# multiply-accumulates per second and core of an untested machine, from the default run on the two cores of
# benchmarks/RESULTS.md; the first finished run replaces it
DEFAULT_SPEED = {"cpu": 22e9, "cuda": 4e12, "mps": 4e11}
TRAIN = 3  # forward + two backward passes
START_UP = 6.0  # seconds: imports, data, first step
BASE_MEMORY = 0.6e9  # the interpreter with torch


@dataclass(frozen=True)
class Plan:
    """macs: multiply-accumulates per stage; held_out: those of them that predict held-out images; memory: bytes at the
    peak, about; networks: those of them that training takes beside the program and the images."""

    macs: dict[str, float]
    held_out: dict[str, float]
    memory: float
    networks: float

    @property
    def total(self) -> float:
        return sum(self.macs.values())


def plan_of(config: RunConfig, info: DatasetInfo, teacher_at_hand: bool) -> Plan:
    """Cost of a run on its dataset."""
    sizes = (info.train_images, info.test_images, info.channels, info.classes, info.resolution)
    return make_plan(config, *sizes, teacher_at_hand)


def make_plan(config: RunConfig, train_images: int, test_images: int, channels: int, classes: int, resolution: int,
              teacher_at_hand: bool) -> Plan:  # fmt: skip
    """Cost of a run on a dataset of that size."""
    given = min(train_images, config.limit_train or train_images)
    n, tested = _counts(config, train_images, test_images)
    area = ((config.resolution or resolution) / 32) ** 2
    student = model_info(config.student)
    seeds, learners = len(config.seeds), len(config.methods) * len(config.seeds)
    macs = dict.fromkeys(STAGES, 0.0)
    images = (given + test_images) * channels * area * 32 * 32
    if config.image_memory is not None and source_of(config.dataset).may_stream:
        images = min(images, config.image_memory * 1e9)  # the others stay in their files
    memory = BASE_MEMORY + images
    batch = min(config.batch_size, n)
    each = batch * student.activations * area * 4 * 2 + _weights(student, channels, classes, config)
    held_out = dict.fromkeys(STAGES, 0.0)
    held_out["students"] = learners * student.macs * area * config.epochs * tested
    macs["students"] = learners * student.macs * area * config.epochs * TRAIN * n
    more = unlabelled_share(config, n)
    for method in config.methods:
        beside, testing = _beside(method, config)
        learned = 1 + more * method_spec(method).learns_unlabelled  # images for each labelled one
        macs["students"] += seeds * config.epochs * area * n * (beside * learned + student.macs * TRAIN * (learned - 1))
        held_out["students"] += seeds * config.epochs * area * tested * testing
        memory += seeds * each * learned * (2 if method_spec(method).needs_peer else 1)
    if config.needs_teacher:
        teacher = model_info(config.teacher)
        forward = (teacher.macs + sum(model_info(name).macs for name in config.more_teachers)) * area
        held_out["evaluation"] = forward * test_images
        if not teacher_at_hand:
            macs["teacher"] = teacher.macs * area * config.teacher_epochs * TRAIN * n
            held_out["teacher"] = teacher.macs * area * config.teacher_epochs * tested
            memory += batch * teacher.activations * area * 4 * 2
        if any(method_spec(method).needs_teacher for method in config.methods):
            macs["students"] += config.epochs * n * (1 + more) * forward
        if config.needs_auto_encoder:
            factor = area * _coder_macs(teacher, teacher.feature_channels, factor_channels(teacher.feature_channels))
            macs["auto-encoder"] = config.auto_encoder_epochs * n * (forward + TRAIN * 2 * factor)
            macs["students"] += config.epochs * n * factor
    macs = {stage: training + held_out[stage] for stage, training in macs.items()}
    return Plan(macs, held_out, memory, memory - BASE_MEMORY - images)


def _beside(method: str, config: RunConfig) -> tuple[float, float]:
    """Multiply-accumulates beside the student's own: per training image, and per held-out image."""
    spec, count = method_spec(method), method_spec(method).factor_encoders
    student, peer = model_info(config.student), model_info(config.peer or config.student)
    encoders = 0.0  # what else is trained beside a student is small: connectors, and nothing for attention
    if count:
        encoders = TRAIN * count * _coder_macs(student, student.feature_channels / count, _target(spec, config))
    if spec.needs_peer:  # it learns too, and the student answers once more
        return TRAIN * peer.macs + student.macs + 2 * encoders, peer.macs
    return encoders, 0


def _target(spec: MethodSpec, config: RunConfig) -> int:
    """Channels of what a method's factor encoders imitate."""
    if spec.needs_peer:
        return model_info(config.peer or config.student).feature_channels
    channels = model_info(config.teacher).feature_channels
    return factor_channels(channels) if config.auto_encoder else channels


def seconds(plan: Plan, device: str, measured_speed: float | None = None) -> float:
    """Estimated seconds; `measured_speed` is in multiply-accumulates per second, from an earlier run here."""
    cores = (os.cpu_count() or 1) if device == "cpu" else 1
    return START_UP + plan.total / (measured_speed or DEFAULT_SPEED[device] * cores)


def part_seconds(plan: Plan, whole: float) -> dict[Part, float]:
    """`whole` seconds of training, divided among the parts of a run; see `progress.Progress`."""
    parts = {}
    for stage in STAGES:
        parts[stage, TRAINING] = plan.macs[stage] - plan.held_out[stage]
        parts[stage, HELD_OUT] = plan.held_out[stage]
    return {part: whole * macs / sum(parts.values()) for part, macs in parts.items()}


def measured_seconds(plan: Plan, config: RunConfig, train_images: int, test_images: int, speeds: Speeds) -> float:
    """The same from seconds per image that were measured here for this very configuration.

    What was not measured (a teacher that is trained first, the last evaluation) goes at the speed of the students.
    """
    n, tested = _counts(config, train_images, test_images)
    learners = len(config.methods) * len(config.seeds)
    together = n * (1 + unlabelled_share(config, n)) * speeds.together
    students = config.epochs * (together + learners * tested * speeds.evaluation)
    coders = 0.0
    if speeds.auto_encoder is not None:
        coders = config.auto_encoder_epochs * n * (speeds.auto_encoder + (speeds.teacher or 0))
    others = (plan.macs["teacher"] + plan.macs["evaluation"]) * students / plan.macs["students"]
    return START_UP + students + coders + others


def _counts(config: RunConfig, train_images: int, test_images: int) -> tuple[int, int]:
    """Images that are learned from, and images that each epoch is tested on."""
    given = min(train_images, config.limit_train or train_images)
    held_out = round(given * config.validation_fraction)
    return given - held_out, held_out + test_images


def unlabelled_share(config: RunConfig, labelled: int) -> float:
    """How many unlabelled images there are in a batch for each labelled one; see `engine.batches.WithUnlabelled`."""
    if not config.unlabelled or not any(method_spec(method).learns_unlabelled for method in config.methods):
        return 0.0
    try:
        return min(1.0, check_unlabelled(config.unlabelled) / labelled)
    except DataError:  # said where the run is prepared
        return 0.0


def _coder_macs(network: ModelInfo, c: float, k: float) -> float:
    """One encoder from c to k channels at the last stage of a network, for an image of 32 x 32."""
    return 9 * (c * c + c * k + k * k) * (32 / network.feature_stride) ** 2


def _weights(model: ModelInfo, channels: int, classes: int, config: RunConfig) -> float:
    """Bytes of weights, gradients, copies of the weights, and what the optimiser remembers: SGD one number for each
    weight, AdamW two."""
    numbers = (3 if config.optimizer == "sgd" else 4) + bool(config.ema) + bool(config.patience)
    return model.params(channels, classes) * 4 * numbers
