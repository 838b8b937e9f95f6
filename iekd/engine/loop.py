"""The training loop: learners in lock-step on the same batches, one forward pass of the teacher for all of them.

A generator of Metrics, and of a Snapshot now and then; to stop training, stop iterating. A learner that diverges is
announced and no longer trained; the others continue. `_run_plain` is the loop to read first.
`accelerate.side_by_side` does the same steps with several learners on several cores, and `accelerate.Recorded` replays
the plain step on a GPU, once `self_check` has found that it gives the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Union

import torch
from torch import Tensor

from iekd.distill.targets import TeacherOutput
from iekd.engine.accelerate import Shortcuts, Work, branches, side_by_side
from iekd.engine.batches import Batches
from iekd.engine.learner import part_size
from iekd.engine.metrics import Diverged, FellBack, Metrics
from iekd.engine.self_check import checked
from iekd.engine.state import Snapshot, State
from iekd.engine.stream import Images, parts
from iekd.engine.threads import Threads, cores
from iekd.engine.trainee import Row, Trainee
from iekd.errors import DivergedError

Teacher = Callable[[Tensor], TeacherOutput]
HeldOut = dict[str, tuple[Images, Tensor]]  # kind of row -> images (N,C,H,W) uint8, labels (N,)
ShouldSnapshot = Callable[[], bool]  # whether a snapshot is wanted; asked at each step, from any thread
States = dict[str, State]  # one trainee's part of a snapshot


class Batch(NamedTuple):
    """To learn from: images (B,C,H,W) uint8, labels (B,), and the teacher's output where all share it."""

    images: Tensor
    labels: Tensor
    teacher: TeacherOutput | None


class HeldOutPart(NamedTuple):
    """Some of the held-out images (B,C,H,W) uint8, labels (B,), read once for all learners."""

    images: Tensor
    labels: Tensor


class EndOfSplit(NamedTuple):
    """All parts of the held-out images of that kind were given."""

    kind: str


class SnapshotRequest(NamedTuple):
    """A snapshot is wanted."""


Item = Union[Batch, HeldOutPart, EndOfSplit, SnapshotRequest]  # what all learners get next


def train(
    trainees: Sequence[Trainee], batches: Batches, teacher: Teacher | None, held_out: HeldOut, epochs: int,
    shortcuts: Shortcuts, overlap: bool = False, should_snapshot: ShouldSnapshot | None = None,
    threads: Threads | None = None,
) -> Generator[Union[Row, Snapshot, FellBack], None, None]:  # fmt: skip
    """Train all for `epochs` passes over `batches`; after each, evaluate them on what is held out.

    Those that have been restored go on from where they are, which is the same step for all.

    overlap: on a CPU, let the teacher answer the next batch while a single trainee learns.
    should_snapshot: True asks for a Snapshot, which follows the rows of its step; there is always one after the last
        step. None for no snapshots.
    threads: how many compute; None for as many as there are cores.

    Raises:
        DivergedError: none is left.
    """
    threads = threads or Threads(cores())
    first, skip = divmod(trainees[0].steps, trainees[0].steps_per_epoch)
    last = epochs * len(batches)

    def kept(step: int) -> bool:
        return should_snapshot is not None and (step == last or should_snapshot())

    if shortcuts.side_by_side and (overlap or len(trainees) > 1):
        for epoch in range(first, epochs):
            items = _items(batches, epoch, skip, teacher, held_out, kept)
            rows = side_by_side(items, [partial(_work, t) for t in trainees], threads=threads)
            yield from _together(rows, trainees)
            skip = 0
        return

    def step(images: Tensor, labels: Tensor) -> None:
        output = teacher(images) if teacher else None
        branches([partial(trainee.compute, images, labels, output) for trainee in trainees])

    work: Work = step
    if trainees[0].steps < last:
        work = yield from checked(trainees, step, shortcuts.graph, batches, first, skip)
    for epoch in range(first, epochs):
        items = _items(batches, epoch, skip, None, held_out, kept)
        yield from _together(_run_plain(trainees, items, work, threads), trainees)
        skip = 0


def _run_plain(
    trainees: Sequence[Trainee], items: Iterator[Item], step: Callable[[Tensor, Tensor], None], threads: Threads
) -> Generator[Union[Row, States], None, None]:
    for item in items:
        threads.look()
        threads.use()
        if isinstance(item, Batch):
            for trainee in trainees:
                trainee.prepare()
            step(item.images, item.labels)
            for trainee in trainees:
                yield from trainee.report()
        else:
            for trainee in trainees:
                yield from _work(trainee, item)


def _items(
    batches: Batches, epoch: int, skip: int, teacher: Teacher | None, held_out: HeldOut, kept: Callable[[int], bool]
) -> Iterator[Item]:
    """One epoch, from its batch number `skip` on."""
    step, last = epoch * len(batches) + skip, (epoch + 1) * len(batches)
    for images, labels in batches.epoch(epoch, skip):
        yield Batch(images, labels, teacher(images) if teacher else None)
        step += 1
        if step < last and kept(step):
            yield SnapshotRequest()
    for kind, (pixels, labels) in held_out.items():
        size = part_size(labels.device, pixels.shape[-1])
        with contextlib.closing(parts(pixels, size)) as pieces:
            yield from map(HeldOutPart, pieces, torch.split(labels, size))
        yield EndOfSplit(kind)
    if kept(last):
        yield SnapshotRequest()


def _work(trainee: Trainee, item: Item) -> Iterator[Union[Row, States]]:
    if isinstance(item, Batch):
        yield from trainee.step(*item)
    elif isinstance(item, HeldOutPart):
        trainee.evaluate(*item)
    elif isinstance(item, EndOfSplit):
        yield from trainee.end_of_split(item.kind)
    else:
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
