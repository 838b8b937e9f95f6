"""The training loop: learners in lock-step on the same batches, one forward pass of the teacher for all of them.

A generator of Metrics; to stop training, stop iterating. `_run_plain` is the loop to read first. `_run_parallel` does
the same steps with several learners on several cores, and `accelerate.Recorded` replays the plain step on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor

from iekd.comparisons import TeacherOutput
from iekd.engine.accelerate import Recorded, Shortcuts, branches, side_by_side
from iekd.engine.batches import Batches
from iekd.engine.metrics import Metrics
from iekd.engine.stream import Images
from iekd.engine.trainee import Trainee

Teacher = Callable[[Tensor], TeacherOutput]
HeldOut = dict[str, tuple[Images, Tensor]]  # kind of row -> images (N,C,H,W) uint8, labels (N,)


class Shared(NamedTuple):
    """What all learners get for one step: images (B,C,H,W) uint8, labels (B,), and the teacher's answer."""

    images: Tensor
    labels: Tensor
    teacher: TeacherOutput | None


def train(
    trainees: Sequence[Trainee], batches: Batches, teacher: Teacher | None, held_out: HeldOut, epochs: int,
    shortcuts: Shortcuts, overlap: bool = False,
) -> Generator[Metrics, None, None]:  # fmt: skip
    """Train all for `epochs` passes over `batches`; after each, evaluate them on what is held out.

    overlap: on a CPU, let the teacher answer the next batch while a single trainee learns.
    """
    if shortcuts.side_by_side and (overlap or len(trainees) > 1):
        for epoch in range(epochs):
            yield from _run_parallel(trainees, _shared(batches, epoch, teacher), held_out)
        return

    def step(images: Tensor, labels: Tensor) -> None:
        answer = teacher(images) if teacher else None
        branches([partial(trainee.compute, images, labels, answer) for trainee in trainees])

    work = Recorded(step) if shortcuts.graph else step
    for epoch in range(epochs):
        yield from _run_plain(trainees, batches.epoch(epoch), work, held_out)


def _run_plain(
    trainees: Sequence[Trainee], batches: Iterator[tuple[Tensor, Tensor]], step: Callable[[Tensor, Tensor], None],
    held_out: HeldOut,
) -> Iterator[Metrics]:  # fmt: skip
    for images, labels in batches:
        for trainee in trainees:
            trainee.prepare()
        step(images, labels)
        for trainee in trainees:
            yield from trainee.report()
    for trainee in trainees:
        yield from _evaluate(trainee, held_out)


def _shared(batches: Batches, epoch: int, teacher: Teacher | None) -> Iterator[Shared]:
    for images, labels in batches.epoch(epoch):
        yield Shared(images, labels, teacher(images) if teacher else None)


def _run_parallel(trainees: Sequence[Trainee], shared: Iterator[Shared], held_out: HeldOut) -> Iterator[Metrics]:
    def work(trainee: Trainee, batch: Shared) -> Iterator[Metrics]:
        yield from trainee.step(*batch)
        if trainee.steps % trainee.steps_per_epoch == 0:
            yield from _evaluate(trainee, held_out)

    yield from side_by_side(shared, [partial(work, trainee) for trainee in trainees])


def _evaluate(trainee: Trainee, held_out: HeldOut) -> Iterator[Metrics]:
    for kind, (images, labels) in held_out.items():
        yield from trainee.evaluate(kind, images, labels)
