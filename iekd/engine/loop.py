"""The training loop: learners in lock-step on the same batches, one forward pass of the teacher for all of them.

A generator of Metrics; to stop training, stop iterating. This is the plain version; `accelerate.side_by_side` runs the
same steps of several learners on several cores.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import NamedTuple

from torch import Tensor

from iekd.comparisons import TeacherOutput
from iekd.engine.accelerate import cores, side_by_side
from iekd.engine.batches import Batches
from iekd.engine.learner import Learner
from iekd.engine.metrics import Metrics
from iekd.engine.stream import Images

Teacher = Callable[[Tensor], TeacherOutput]
HeldOut = dict[str, tuple[Images, Tensor]]  # kind of row -> images (N,C,H,W) uint8, labels (N,)


class Shared(NamedTuple):
    """What all learners get for one step: images (B,C,H,W) uint8, labels (B,), and the teacher's answer."""

    images: Tensor
    labels: Tensor
    teacher: TeacherOutput | None


def train(
    learners: list[Learner], batches: Batches, teacher: Teacher | None, held_out: HeldOut,
    epochs: int, parallel: bool | None = None,
) -> Generator[Metrics, None, None]:  # fmt: skip
    """Train all learners for `epochs` passes over `batches`; after each, evaluate them on what is held out.

    parallel: learners side by side on the CPU's cores; None decides. The numbers are those of the plain loop with as
    many threads.
    """
    if parallel is None:
        parallel = learners[0].device.type == "cpu" and len(learners) > 1 and cores() > 1
    run = _run_parallel if parallel else _run_plain
    for epoch in range(epochs):
        yield from run(learners, _shared(batches, epoch, teacher), held_out)


def _shared(batches: Batches, epoch: int, teacher: Teacher | None) -> Iterator[Shared]:
    for images, labels in batches.epoch(epoch):
        yield Shared(images, labels, teacher(images) if teacher else None)


def _run_plain(learners: list[Learner], shared: Iterator[Shared], held_out: HeldOut) -> Iterator[Metrics]:
    for batch in shared:
        for learner in learners:
            yield from learner.step(*batch)
    for learner in learners:
        yield from _evaluate(learner, held_out)


def _evaluate(learner: Learner, held_out: HeldOut) -> Iterator[Metrics]:
    for kind, (images, labels) in held_out.items():
        yield learner.evaluate(kind, images, labels)


def _run_parallel(learners: list[Learner], shared: Iterator[Shared], held_out: HeldOut) -> Iterator[Metrics]:
    def work(learner: Learner, batch: Shared) -> Iterator[Metrics]:
        yield from learner.step(*batch)
        if learner.steps % learner.steps_per_epoch == 0:
            yield from _evaluate(learner, held_out)

    yield from side_by_side(shared, [partial(work, learner) for learner in learners])
