"""A quick measurement of what a run is made of, in a few seconds, for an estimate of how long it will take."""

from __future__ import annotations

import time

import torch

from iekd.config.run import RunConfig
from iekd.engine.auto_encoder import AutoEncoders
from iekd.engine.batches import to_device
from iekd.engine.learner import predict
from iekd.estimate.phases import measure_phases
from iekd.estimate.speeds import Speeds
from iekd.estimate.subjects import Parts, Subject
from iekd.estimate.timing import engine_step_time, fitting_steps, synchronise

STEPS = 6  # of the auto-encoders, the first of which warms up


def probe(config: RunConfig, seconds: float = 3.0) -> Speeds:
    """Measure the configuration's networks and methods on noise; takes about `seconds`, more where steps are slow.

    Raises:
        UserError: a device that is not there, or a training that diverges.
    """
    subject = Subject(config, STEPS * config.batch_size)
    parts = subject.parts()
    with subject.threads.used():
        phases = measure_phases(parts, subject.device, seconds / 3, None)
    learners = [method for method, _ in config.learner_names]
    together = engine_step_time(config, fitting_steps(config, phases.step(learners), seconds / 3))
    batch = config.batch_size
    return Speeds(
        device=subject.device.type,
        precision="bf16" if subject.precision == torch.bfloat16 else "fp32",
        teacher=phases.teacher / batch if phases.teacher else None,
        auto_encoder=_auto_encoder_step(subject, parts) / batch if config.needs_auto_encoder else None,
        evaluation=_evaluation(subject, parts),
        together=together / batch,
    )


def _auto_encoder_step(subject: Subject, parts: Parts) -> float:
    """Seconds of one step of all auto-encoders; the teacher's answer is always the same one."""
    assert parts.teacher is not None
    images, labels = next(parts.endless())
    answer = parts.teacher(images)
    coders = AutoEncoders(
        subject.factor_widths, subject.config, subject.device, subject.precision, steps_per_epoch=STEPS, report_every=1
    )
    began = 0.0
    for step in range(STEPS):
        if step == 1:
            began = time.perf_counter()
        list(coders.step(images, labels, answer))  # a row at each, which waits for the device
    return (time.perf_counter() - began) / (STEPS - 1)


def _evaluation(subject: Subject, parts: Parts) -> float:
    """Seconds per image of a student's answers, after one pass that warms up."""
    learner, (images, _) = next(iter(parts.learners.values())), to_device(subject.dataset.test, subject.device)
    taken = 0.0
    for _ in range(2):
        synchronise(subject.device)
        began = time.perf_counter()
        predict(learner.model, learner.normalise, images, subject.device, subject.precision)
        synchronise(subject.device)
        taken = time.perf_counter() - began
    return taken / len(images)
