"""The training loop: learners in lock-step on the same batches, one forward pass of the teacher for all of them.

A generator of Metrics, and of a Snapshot now and then; to stop training, stop iterating. A learner that diverges is
announced and takes no further part; training goes on while any is left. `_run_plain` is the loop to read first.
`accelerate.side_by_side` does the same steps with several learners on several cores, and `accelerate.Recorded` replays
the plain step on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Union

from torch import Tensor

from iekd.comparisons import TeacherOutput
from iekd.engine.accelerate import Recorded, Shortcuts, branches, side_by_side
from iekd.engine.batches import Batches
from iekd.engine.metrics import Diverged, DivergedError, Metrics
from iekd.engine.state import Snapshot, State
from iekd.engine.stream import Images
from iekd.engine.trainee import Row, Trainee

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
) -> Generator[Union[Row, Snapshot], None, None]:  # fmt: skip
    """Train all for `epochs` passes over `batches`; after each, evaluate them on what is held out.

    Those that have been restored go on from where they are, which is the same step for all.

    overlap: on a CPU, let the teacher answer the next batch while a single trainee learns.
    due: asks for a Snapshot, which follows the rows of its step; there is one after the last step anyhow. None for no
        snapshots.

    Raises:
        DivergedError: none is left.
    """
    first, skip = divmod(trainees[0].steps, trainees[0].steps_per_epoch)
    last = epochs * len(batches)

    def kept(step: int) -> bool:
        return due is not None and (step == last or due())

    if shortcuts.side_by_side and (overlap or len(trainees) > 1):
        for epoch in range(first, epochs):
            shared = _shared(batches, epoch, skip, teacher, kept)
            yield from _together(side_by_side(shared, [partial(_work, t, held_out) for t in trainees]), trainees)
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
) -> Generator[Union[Row, States], None, None]:  # fmt: skip
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


def _work(trainee: Trainee, held_out: HeldOut, batch: Shared) -> Iterator[Union[Row, States]]:
    yield from trainee.step(batch.images, batch.labels, batch.teacher)
    if trainee.steps % trainee.steps_per_epoch == 0:
        yield from _evaluate(trainee, held_out)
    if batch.keep:
        yield trainee.states()


def _together(
    events: Generator[Union[Row, States], None, None], trainees: Sequence[Trainee]
) -> Iterator[Union[Row, Snapshot]]:
    """The states of one step as one snapshot; its rows come before it, and those of later steps after it.

    Raises:
        DivergedError: with the last learner that is left.
    """
    given: list[States] = []
    left = {name for trainee in trainees for name in trainee.names if name not in trainee.diverged}
    with contextlib.closing(events):  # an error must not leave threads behind that go on training
        for event in events:
            if isinstance(event, Metrics):
                yield event
            elif isinstance(event, Diverged):
                left.discard(event.learner)
                if not left:
                    raise _none_left(event, trainees)
                yield event
            else:
                given.append(event)
                if len(given) == len(trainees):
                    step = given[0][trainees[0].names[0]].numbers["steps"]
                    states, given = {name: state for part in given for name, state in part.items()}, []
                    yield Snapshot(trainees[0].stage, step, states)
                    del states  # a copy of every weight


def _none_left(last: Diverged, trainees: Sequence[Trainee]) -> DivergedError:
    others = sum(len(trainee.names) for trainee in trainees) - 1
    before = f" The {others} other{'s' if others > 1 else ''} had diverged before." if others else ""
    return DivergedError(f"{last.message}{before} {trainees[0].advice}")


def _evaluate(trainee: Trainee, held_out: HeldOut) -> Iterator[Row]:
    for kind, (images, labels) in held_out.items():
        yield from trainee.evaluate(kind, images, labels)
