"""The training loop: learners in lock-step on the same batches, one forward pass of the teacher for all of them.

A generator of Metrics; to stop training, stop iterating. This is the plain version; `accelerate.side_by_side` runs the
same steps of several learners on several cores.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import NamedTuple

from torch import Tensor

from iekd.engine.accelerate import cores, side_by_side
from iekd.engine.batches import Batches
from iekd.engine.learner import Learner
from iekd.engine.metrics import Metrics
from iekd.methods import TeacherOutput

Teacher = Callable[[Tensor], TeacherOutput]


class Shared(NamedTuple):
    """What all learners get for one step: images (B,C,H,W) uint8, labels (B,), and the teacher's answer."""

    images: Tensor
    labels: Tensor
    teacher: TeacherOutput | None


def train(
    learners: list[Learner], batches: Batches, teacher: Teacher | None, test: tuple[Tensor, Tensor],
    epochs: int, parallel: bool | None = None,
) -> Generator[Metrics, None, None]:  # fmt: skip
    """Train all learners for `epochs` passes over `batches`; after each, evaluate them on `test` (images, labels).

    parallel: learners side by side on the CPU's cores; None decides. The numbers are those of the plain loop with as
    many threads.
    """
    if parallel is None:
        parallel = learners[0].device.type == "cpu" and len(learners) > 1 and cores() > 1
    run = _run_parallel if parallel else _run_plain
    for epoch in range(epochs):
        yield from run(learners, _shared(batches, epoch, teacher), test)


def _shared(batches: Batches, epoch: int, teacher: Teacher | None) -> Iterator[Shared]:
    for images, labels in batches.epoch(epoch):
        yield Shared(images, labels, teacher(images) if teacher else None)


def _run_plain(learners: list[Learner], shared: Iterator[Shared], test: tuple[Tensor, Tensor]) -> Iterator[Metrics]:
    for batch in shared:
        for learner in learners:
            yield from learner.step(*batch)
    for learner in learners:
        yield learner.evaluate(*test)


def _run_parallel(learners: list[Learner], shared: Iterator[Shared], test: tuple[Tensor, Tensor]) -> Iterator[Metrics]:
    def work(learner: Learner, batch: Shared) -> Iterator[Metrics]:
        yield from learner.step(*batch)
        if learner.steps % learner.steps_per_epoch == 0:
            yield learner.evaluate(*test)

    yield from side_by_side(shared, [partial(work, learner) for learner in learners])
