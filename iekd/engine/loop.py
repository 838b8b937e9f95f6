"""The training loop: learners in lock-step on the same batches, one forward pass of the teacher for all of them.

A generator of Metrics, of signs of progress between them, and of a Snapshot now and then; to stop training, stop
iterating. A learner that diverges is announced and trained no further; the others continue. `_run_plain` is the loop to
read first: the step that it runs is `learner.Learner.compute`. `accelerate.side_by_side` does the same steps with
several learners on several cores, and `accelerate.Recorded` replays the plain step on a GPU, once `self_check` has
found that it gives the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Union

import torch
from torch import Tensor

from iekd.data.control_groups import cores
from iekd.distill.targets import TeacherOutput
from iekd.engine.accelerate import Shortcuts, Work, branches, side_by_side
from iekd.engine.batches import TrainingBatches
from iekd.engine.learner import evaluation_batch_size
from iekd.engine.metrics import Diverged, FellBack, Metrics, Predicted, Stepped, Watched
from iekd.engine.self_check import checked
from iekd.engine.state import LearnerState, Snapshot
from iekd.engine.stream import HeldOutImages, split_into_batches
from iekd.engine.threads import Threads
from iekd.engine.training_unit import News, TrainingUnit
from iekd.errors import DivergedError
from iekd.plural import counted

Teacher = Callable[[Tensor], TeacherOutput]
HeldOut = dict[str, tuple[HeldOutImages, Tensor]]  # kind of row -> images (N,C,H,W) uint8, labels (N,)
ShouldSnapshot = Callable[[], bool]  # asked at each step, from any thread
States = dict[str, LearnerState]  # one unit's share of a snapshot


class Batch(NamedTuple):
    """To learn from: images (B,C,H,W) uint8, labels (B,), and the teacher's output where all learners share it."""

    images: Tensor
    labels: Tensor
    teacher: TeacherOutput | None


class HeldOutBatch(NamedTuple):
    """To evaluate on: some of the held-out images (B,C,H,W) uint8, labels (B,), read once for all learners."""

    images: Tensor
    labels: Tensor


class EndOfSplit(NamedTuple):
    """All held-out images of that kind ("validation" or "test") were given."""

    kind: str


class SnapshotRequest(NamedTuple):
    """Every unit shall give its state."""


Item = Union[Batch, HeldOutBatch, EndOfSplit, SnapshotRequest]  # what all units get next


def train(
    units: Sequence[TrainingUnit], batches: TrainingBatches, teacher: Teacher | None, held_out: HeldOut, epochs: int,
    shortcuts: Shortcuts, overlap: bool = False, should_snapshot: ShouldSnapshot | None = None,
    threads: Threads | None = None,
) -> Generator[Union[News, Snapshot, FellBack], None, None]:  # fmt: skip
    """Train all units for `epochs` passes over `batches`; after each pass, evaluate them on the held-out images.

    Args:
        units: all at the same step. Restored ones continue from theirs.
        teacher: called once per batch; None if no unit needs one.
        overlap: on a CPU, let the teacher compute the next batch while a single unit learns.
        should_snapshot: whether to yield a Snapshot after the rows of the current step; there is always one after the
            last step. None for no snapshots.
        threads: how many compute; None for as many as there are cores.

    Raises:
        DivergedError: every learner has diverged.
    """
    threads = threads or Threads(cores())
    start = units[0].steps
    first, skip = divmod(start, units[0].steps_per_epoch)
    last = epochs * len(batches)

    def epochs_left() -> Iterator[int]:
        for epoch in range(first, epochs):
            if all(unit.idle for unit in units):  # all have stopped early
                return
            yield epoch

    def snapshot_after(step: int) -> bool:
        return should_snapshot is not None and (step == last or should_snapshot())

    if shortcuts.side_by_side and (overlap or len(units) > 1):
        for epoch in epochs_left():
            items = _items(batches, epoch, skip, teacher, held_out, snapshot_after)
            rows = side_by_side(items, [partial(_work, unit) for unit in units], threads=threads)
            yield from _together(rows, units)
            skip = 0
        yield from _early(units, start, last, should_snapshot)
        return

    def step(images: Tensor, labels: Tensor) -> None:  # (B,C,H,W) uint8, (B,)
        output = teacher(images) if teacher else None  # its logits (B,K), features and factors (B,k,h,w)
        branches([partial(unit.compute, images, labels, output) for unit in units])

    work: Work = step
    if units[0].steps < last and not all(unit.idle for unit in units):
        work = yield from checked(units, step, shortcuts.graph, batches, first, skip)
    for epoch in epochs_left():
        items = _items(batches, epoch, skip, None, held_out, snapshot_after)
        yield from _together(_run_plain(units, items, work, threads), units)
        skip = 0
    yield from _early(units, start, last, should_snapshot)


def _early(
    units: Sequence[TrainingUnit], start: int, last: int, should_snapshot: ShouldSnapshot | None
) -> Iterator[Snapshot]:
    """A snapshot where a stage that began at step `start` has ended before its last one."""
    if should_snapshot is not None and start < units[0].steps < last:
        states = {name: state for unit in units for name, state in unit.states().items()}
        yield Snapshot(units[0].stage, units[0].steps, states)


def _run_plain(
    units: Sequence[TrainingUnit], items: Iterator[Item], step: Callable[[Tensor, Tensor], None], threads: Threads
) -> Generator[Union[News, States], None, None]:
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
    batches: TrainingBatches, epoch: int, skip: int, teacher: Teacher | None, held_out: HeldOut,
    snapshot_after: Callable[[int], bool],
) -> Iterator[Item]:  # fmt: skip
    """One epoch, from its batch number `skip` on."""
    step, last = epoch * len(batches) + skip, (epoch + 1) * len(batches)
    for images, labels in batches.epoch(epoch, skip):
        yield Batch(images, labels, teacher(images) if teacher else None)
        step += 1
        if step < last and snapshot_after(step):
            yield SnapshotRequest()
    for kind, (held_images, held_labels) in held_out.items():
        size = evaluation_batch_size(held_labels.device, held_images.shape[-1])
        with contextlib.closing(split_into_batches(held_images, size)) as image_batches:
            yield from map(HeldOutBatch, image_batches, torch.split(held_labels, size))
        yield EndOfSplit(kind)
    if snapshot_after(last):
        yield SnapshotRequest()


def _work(unit: TrainingUnit, item: Item) -> Iterator[Union[News, States]]:
    if isinstance(item, Batch):
        yield from unit.step(*item)
    elif isinstance(item, HeldOutBatch):
        unit.evaluate(*item)
        yield Predicted(unit.stage, len(unit.names) * len(item.labels))
    elif isinstance(item, EndOfSplit):
        yield from unit.end_of_split(item.kind)
    else:
        yield unit.states()


def _together(
    events: Generator[Union[News, States], None, None], units: Sequence[TrainingUnit]
) -> Iterator[Union[News, Snapshot]]:
    """The states of one step as one snapshot; its rows come before it, and those of later steps after it.

    Raises:
        DivergedError: when the last learner diverges.
    """
    collected: list[States] = []
    training = {name for unit in units for name in unit.names if name not in unit.diverged}
    with contextlib.closing(events):  # an error must not leave threads behind that go on training
        for event in events:
            if isinstance(event, (Metrics, Stepped, Predicted, Watched)):
                yield event
            elif isinstance(event, Diverged):
                training.discard(event.learner)
                if not training:
                    raise _all_diverged(event, units)
                yield event
            else:
                collected.append(event)
                if len(collected) == len(units):
                    step = collected[0][units[0].names[0]].numbers["steps"]
                    states = {name: state for of_unit in collected for name, state in of_unit.items()}
                    collected = []
                    yield Snapshot(units[0].stage, step, states)
                    del states  # a copy of every weight


def _all_diverged(last: Diverged, units: Sequence[TrainingUnit]) -> DivergedError:
    others = sum(len(unit.names) for unit in units) - 1
    before = f" The {counted(others, 'other')} had diverged before." if others else ""
    return DivergedError(f"{last.message}{before} {units[0].advice}")
