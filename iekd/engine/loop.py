"""The training loop: learners in lock-step on the same batches, one forward pass of the teacher for all of them.

A generator of Metrics, and of a Snapshot now and then; to stop training, stop iterating. A learner that diverges is
announced and takes no further part; training goes on while any is left. `_run_plain` is the loop to read first.
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
from iekd.engine.learner import evaluation_batch_size
from iekd.engine.metrics import Diverged, DivergedError, FellBack, Metrics
from iekd.engine.self_check import checked
from iekd.engine.state import LearnerState, Snapshot
from iekd.engine.stream import DeviceImages, split_into_batches
from iekd.engine.threads import Threads, cores
from iekd.engine.training_unit import Row, TrainingUnit

Teacher = Callable[[Tensor], TeacherOutput]
HeldOut = dict[str, tuple[DeviceImages, Tensor]]  # kind of row -> images (N,C,H,W) uint8, labels (N,)
ShouldSnapshot = Callable[[], bool]  # whether a snapshot is wanted; asked at each step, from any thread
States = dict[str, LearnerState]  # one unit's part of a snapshot


class Batch(NamedTuple):
    """To learn from: images (B,C,H,W) uint8, labels (B,), and the teacher's output where all share it."""

    images: Tensor
    labels: Tensor
    teacher: TeacherOutput | None


class HeldOutBatch(NamedTuple):
    """To be judged by: some of the held-out images (B,C,H,W) uint8, labels (B,), read once for all learners."""

    images: Tensor
    labels: Tensor


class EndOfSplit(NamedTuple):
    """All parts of the held-out images of that kind were given."""

    kind: str


class SnapshotRequest(NamedTuple):
    """A snapshot is wanted."""


Item = Union[Batch, HeldOutBatch, EndOfSplit, SnapshotRequest]  # what all learners get next


def train(
    units: Sequence[TrainingUnit], batches: Batches, teacher: Teacher | None, held_out: HeldOut, epochs: int,
    shortcuts: Shortcuts, overlap: bool = False, should_snapshot: ShouldSnapshot | None = None, threads: Threads | None = None,
) -> Generator[Union[Row, Snapshot, FellBack], None, None]:  # fmt: skip
    """Train all for `epochs` passes over `batches`; after each, evaluate them on what is held out.

    Those that have been restored go on from where they are, which is the same step for all.

    overlap: on a CPU, let the teacher answer the next batch while a single unit learns.
    should_snapshot: asks for a Snapshot, which follows the rows of its step; there is one after the last step anyhow. None for no
        snapshots.
    threads: how many compute; None for as many as there are cores.

    Raises:
        DivergedError: none is left.
    """
    threads = threads or Threads(cores())
    first, skip = divmod(units[0].steps, units[0].steps_per_epoch)
    last = epochs * len(batches)

    def snapshot_after(step: int) -> bool:
        return should_snapshot is not None and (step == last or should_snapshot())

    if shortcuts.side_by_side and (overlap or len(units) > 1):
        for epoch in range(first, epochs):
            items = _items(batches, epoch, skip, teacher, held_out, snapshot_after)
            rows = side_by_side(items, [partial(_work, t) for t in units], threads=threads)
            yield from _together(rows, units)
            skip = 0
        return

    def step(images: Tensor, labels: Tensor) -> None:
        output = teacher(images) if teacher else None
        branches([partial(unit.compute, images, labels, output) for unit in units])

    work: Work = step
    if units[0].steps < last:
        work = yield from checked(units, step, shortcuts.graph, batches, first, skip)
    for epoch in range(first, epochs):
        items = _items(batches, epoch, skip, None, held_out, snapshot_after)
        yield from _together(_run_plain(units, items, work, threads), units)
        skip = 0


def _run_plain(
    units: Sequence[TrainingUnit], items: Iterator[Item], step: Callable[[Tensor, Tensor], None], threads: Threads
) -> Generator[Union[Row, States], None, None]:
    for item in items:
        threads.look()
        threads.use()
        if isinstance(item, Batch):
            for unit in units:
                unit.prepare()
            step(item.images, item.labels)
            for unit in units:
                yield from unit.report()
        else:
            for unit in units:
                yield from _work(unit, item)


def _items(
    batches: Batches,
    epoch: int,
    skip: int,
    teacher: Teacher | None,
    held_out: HeldOut,
    snapshot_after: Callable[[int], bool],
) -> Iterator[Item]:
    """One epoch, from its batch number `skip` on."""
    step, last = epoch * len(batches) + skip, (epoch + 1) * len(batches)
    for images, labels in batches.epoch(epoch, skip):
        yield Batch(images, labels, teacher(images) if teacher else None)
        step += 1
        if step < last and snapshot_after(step):
            yield SnapshotRequest()
    for kind, (judged, labels) in held_out.items():
        size = evaluation_batch_size(labels.device, judged.shape[-1])
        with contextlib.closing(split_into_batches(judged, size)) as pieces:
            yield from map(HeldOutBatch, pieces, torch.split(labels, size))
        yield EndOfSplit(kind)
    if snapshot_after(last):
        yield SnapshotRequest()


def _work(unit: TrainingUnit, item: Item) -> Iterator[Union[Row, States]]:
    if isinstance(item, Batch):
        yield from unit.step(*item)
    elif isinstance(item, HeldOutBatch):
        unit.evaluate(*item)
    elif isinstance(item, EndOfSplit):
        yield from unit.end_of_split(item.kind)
    else:
        yield unit.states()


def _together(
    events: Generator[Union[Row, States], None, None], units: Sequence[TrainingUnit]
) -> Iterator[Union[Row, Snapshot]]:
    """The states of one step as one snapshot; its rows come before it, and those of later steps after it.

    Raises:
        DivergedError: with the last learner that is left.
    """
    given: list[States] = []
    left = {name for unit in units for name in unit.names if name not in unit.diverged}
    with contextlib.closing(events):  # an error must not leave threads behind that go on training
        for event in events:
            if isinstance(event, Metrics):
                yield event
            elif isinstance(event, Diverged):
                left.discard(event.learner)
                if not left:
                    raise _none_left(event, units)
                yield event
            else:
                given.append(event)
                if len(given) == len(units):
                    step = given[0][units[0].names[0]].numbers["steps"]
                    states, given = {name: state for part in given for name, state in part.items()}, []
                    yield Snapshot(units[0].stage, step, states)
                    del states  # a copy of every weight


def _none_left(last: Diverged, units: Sequence[TrainingUnit]) -> DivergedError:
    others = sum(len(unit.names) for unit in units) - 1
    before = f" The {others} other{'s' if others > 1 else ''} had diverged before." if others else ""
    return DivergedError(f"{last.message}{before} {units[0].advice}")
