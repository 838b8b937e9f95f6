"""The training loop: learners in lock-step on the same batches, one forward pass of the teacher for all of them.

A generator of Metrics, and of a Snapshot now and then; to stop training, stop iterating. `_run_plain` is the loop to
read first. `_run_parallel` does the same steps with several learners on several cores, and `accelerate.Recorded`
replays the plain step on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Union

from torch import Tensor

from iekd.comparisons import TeacherOutput
from iekd.engine.accelerate import Recorded, Shortcuts, branches, side_by_side
from iekd.engine.batches import Batches
from iekd.engine.metrics import Metrics
from iekd.engine.state import Snapshot, State
from iekd.engine.stream import Images
from iekd.engine.trainee import Trainee

Teacher = Callable[[Tensor], TeacherOutput]
HeldOut = dict[str, tuple[Images, Tensor]]  # kind of row -> images (N,C,H,W) uint8, labels (N,)
Due = Callable[[], bool]  # whether a snapshot is wanted; asked at each step, from any thread
States = dict[str, State]  # one trainee's part of a snapshot


class Shared(NamedTuple):
    """What all learners get for one step: images (B,C,H,W) uint8, labels (B,), and the teacher's answer.

    keep: whether their states are wanted after it.
    """

    images: Tensor
    labels: Tensor
    teacher: TeacherOutput | None
    keep: bool


def train(
    trainees: Sequence[Trainee], batches: Batches, teacher: Teacher | None, held_out: HeldOut, epochs: int,
    shortcuts: Shortcuts, overlap: bool = False, due: Due | None = None,
) -> Generator[Union[Metrics, Snapshot], None, None]:  # fmt: skip
    """Train all for `epochs` passes over `batches`; after each, evaluate them on what is held out.

    Those that have been restored go on from where they are, which is the same step for all.

    overlap: on a CPU, let the teacher answer the next batch while a single trainee learns.
    due: asks for a Snapshot, which follows the rows of its step; there is one after the last step anyhow. None for no
        snapshots.
    """
    first, skip = divmod(trainees[0].steps, trainees[0].steps_per_epoch)
    last = epochs * len(batches)

    def kept(step: int) -> bool:
        return due is not None and (step == last or due())

    if shortcuts.side_by_side and (overlap or len(trainees) > 1):
        for epoch in range(first, epochs):
            shared = _shared(batches, epoch, skip, teacher, kept)
            yield from _together(_run_parallel(trainees, shared, held_out), trainees)
            skip = 0
        return

    def step(images: Tensor, labels: Tensor) -> None:
        answer = teacher(images) if teacher else None
        branches([partial(trainee.compute, images, labels, answer) for trainee in trainees])

    work = Recorded(step) if shortcuts.graph else step
    for epoch in range(first, epochs):
        yield from _together(_run_plain(trainees, batches.epoch(epoch, skip), work, held_out, kept), trainees)
        skip = 0


def _run_plain(
    trainees: Sequence[Trainee], batches: Iterator[tuple[Tensor, Tensor]], step: Callable[[Tensor, Tensor], None],
    held_out: HeldOut, kept: Callable[[int], bool],
) -> Iterator[Union[Metrics, States]]:  # fmt: skip
    for images, labels in batches:
        for trainee in trainees:
            trainee.prepare()
        step(images, labels)
        for trainee in trainees:
            yield from trainee.report()
        if trainees[0].steps % trainees[0].steps_per_epoch == 0:
            for trainee in trainees:
                yield from _evaluate(trainee, held_out)
        if kept(trainees[0].steps):
            for trainee in trainees:
                yield trainee.states()


def _shared(
    batches: Batches, epoch: int, skip: int, teacher: Teacher | None, kept: Callable[[int], bool]
) -> Iterator[Shared]:
    for step, (images, labels) in enumerate(batches.epoch(epoch, skip), epoch * len(batches) + skip + 1):
        yield Shared(images, labels, teacher(images) if teacher else None, kept(step))


def _run_parallel(
    trainees: Sequence[Trainee], shared: Iterator[Shared], held_out: HeldOut
) -> Iterator[Union[Metrics, States]]:
    def work(trainee: Trainee, batch: Shared) -> Iterator[Union[Metrics, States]]:
        yield from trainee.step(batch.images, batch.labels, batch.teacher)
        if trainee.steps % trainee.steps_per_epoch == 0:
            yield from _evaluate(trainee, held_out)
        if batch.keep:
            yield trainee.states()

    yield from side_by_side(shared, [partial(work, trainee) for trainee in trainees])


def _together(
    events: Iterable[Union[Metrics, States]], trainees: Sequence[Trainee]
) -> Iterator[Union[Metrics, Snapshot]]:
    """The states of one step as one snapshot; its rows come before it, and those of later steps after it."""
    given: list[States] = []
    for event in events:
        if isinstance(event, Metrics):
            yield event
            continue
        given.append(event)
        if len(given) == len(trainees):
            step = given[0][trainees[0].names[0]].numbers["steps"]
            states, given = {name: state for part in given for name, state in part.items()}, []
            yield Snapshot(trainees[0].stage, step, states)
            del states  # a copy of every weight


def _evaluate(trainee: Trainee, held_out: HeldOut) -> Iterator[Metrics]:
    for kind, (images, labels) in held_out.items():
        yield from trainee.evaluate(kind, images, labels)
