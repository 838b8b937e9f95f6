"""One attempt of a run: which checkpoint it continues from, and what it saves for the next."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from iekd.config.run import STAGES
from iekd.data.base import Dataset, Images, Split
from iekd.data.control_groups import cores
from iekd.data.file_images import FileImages
from iekd.errors import UserError
from iekd.models.artifact import ModelCard, load_model, save_model
from iekd.runs.checkpoints import TEACHER, Checkpoint, Checkpoints
from iekd.runs.files import LineWriter, truncate_lines
from iekd.runs.store import CHECKPOINTS, Run
from iekd.runs.watched import go_back_to

if TYPE_CHECKING:
    from iekd.models.start import Start

log = logging.getLogger(__name__)
EVERY = 20.0  # seconds between checkpoints; IEKD_CHECKPOINT_SECONDS sets another
LOOK_EVERY = 0.2  # seconds
SHARE = 0.02  # of the time that writing them may take: large networks are written more rarely
DATA, EARLIER_DATA = "images", "data"  # notes of the images' fingerprint: `_fingerprint`, and that of earlier versions
AT_ONCE = 512  # images that are decoded before they are added


class Attempt:
    """The checkpoints of a run as its worker uses them.

    notes: what an earlier attempt noted beside its newest checkpoint; empty if this one begins at the start.
    """

    def __init__(self, run: Run, stop: Callable[[], bool]) -> None:
        """stop: whether the run should stop, in which case a checkpoint is written."""
        self.run, self.stop = run, stop
        self.checkpoints = Checkpoints(run.path / CHECKPOINTS)
        self._snapshots: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}
        self.reached = 0  # the stage that the earlier attempt was in, as an index of STAGES
        self.data: str | None = None
        self.teacher_sum = self.checkpoints.teacher_sum()
        self.has_teacher = self.reads_only = False
        self.least = self.interval = _seconds_between()
        self.asked = self.next_look = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds of training by earlier attempts that this one builds on."""
        return float(self.notes.get("seconds", 0.0))

    def begin(self) -> None:
        """Find the newest checkpoints that are whole, and cut off the metrics that came after them."""
        found = self.checkpoints.newest(self._damaged)
        newest = next(reversed(found.values()), None)
        trained = newest is not None and newest.snapshot.stage != "teacher"
        if newest is not None and trained and newest.notes["teacher_sum"] != self.teacher_sum:
            self._damaged(TEACHER, "it does not match its sum")  # no later stage can go on without it
            newest = found.get("teacher")
            found = {"teacher": newest} if newest else {}
        self.checkpoints.go_back_to({stage: checkpoint.snapshot.step for stage, checkpoint in found.items()})
        truncate_lines(self.run.path / "metrics.jsonl", newest.notes["rows"] if newest else 0)
        go_back_to(self.run, newest.notes.get("watched", 0) if newest else 0)
        self._continue_from(found)
        if newest is not None:
            log.info("Continuing after step %d of stage %s.", newest.snapshot.step, newest.snapshot.stage)
        elif self.run.attempt > 1:
            log.info("There is no checkpoint to continue from: training begins again.")

    def look(self) -> None:
        """Find what `begin` of the worker has found, and change nothing; for the other processes of a run."""
        self.reads_only, self.teacher_sum = True, self.checkpoints.teacher_sum()
        self._continue_from(self.checkpoints.newest())

    def _continue_from(self, found: dict[str, Checkpoint]) -> None:
        self._snapshots = {stage: checkpoint.snapshot for stage, checkpoint in found.items()}
        newest = next(reversed(found.values()), None)
        if newest is not None:
            self.notes, self.reached = newest.notes, STAGES.index(newest.snapshot.stage)

    def take_snapshots(self) -> dict[str, Any]:
        """stage -> where the earlier attempt was; only the first call has them, because they take memory."""
        found, self._snapshots = self._snapshots, {}
        return found

    def check_data(self, dataset: Dataset, unlabelled: Split | None = None) -> None:
        """Raises UserError if the images are not the ones that the earlier attempt trained on."""
        self.data = _fingerprint(dataset, unlabelled)
        known, earlier = self.notes.get(DATA, self.data), self.notes.get(EARLIER_DATA)
        if known != self.data or not (earlier is None or _is_earlier(earlier, dataset, unlabelled)):
            raise UserError(
                "The images or their classes have changed since this run began, or it was begun by an older version of "
                "this program, which scaled large photographs in another way. Start a new run with them."
            )

    def teacher(self) -> tuple[Any, ModelCard] | None:
        """The teacher of the earlier attempt; None if that attempt was still training it."""
        if self.reached == STAGES.index("teacher"):
            return None
        self.has_teacher = True
        return load_model(self.checkpoints.teacher)

    def save_teacher(self, model: Any, card: ModelCard) -> None:
        """Save it for later attempts, once it is trained or found."""
        save_model(self.checkpoints.teacher, model, card)
        self.has_teacher, self.teacher_sum = True, self.checkpoints.teacher_sum()

    def first_weights(self, role: str, find: Callable[[], Start | None]) -> Start | None:
        """What the teacher or the students begin with: what an earlier attempt kept of it, else what `find` gives,
        which is then kept. When the run is resumed the source may be gone, or another."""
        from iekd.models import start as starts

        kept = self.checkpoints.folder / f"start-{role}.safetensors"
        if kept.is_file() and (self.notes or self.reads_only):
            return starts.read(kept)
        if found := find():
            starts.save(found, kept)
        return found

    def repeats(self, stage: str) -> bool:
        """Whether a stage is trained again although a later one was begun, because its checkpoint is damaged."""
        return STAGES.index(stage) < self.reached

    def should_snapshot(self) -> bool:
        """Whether it is time for a checkpoint; asked by the engine, from any thread."""
        now = time.monotonic()
        if now < self.next_look:  # steps may take a millisecond, and the request to stop is a file
            return False
        self.next_look = now + min(LOOK_EVERY, self.interval)
        if now - self.asked < self.interval and not self.stop():
            return False
        self.asked = now
        return True

    def write_checkpoint(self, snapshot: Any, rows: LineWriter, notes: dict[str, Any]) -> None:
        """Write an engine Snapshot, to which all rows so far belong, and notes that a later attempt needs."""
        if self.repeats(snapshot.stage):
            return
        began = time.monotonic()
        rows.sync()
        own = {"rows": rows.count, "teacher_sum": self.teacher_sum, DATA: self.data}
        self.checkpoints.write(snapshot, {**notes, **own})
        self.interval = max(self.least, (time.monotonic() - began) / SHARE)

    def _damaged(self, name: str, why: str) -> None:
        log.warning("The checkpoint '%s' is damaged (%s); the one before it is used.", name, why)
        self.run.event("checkpoint damaged", checkpoint=name, why=why)


def _seconds_between() -> float:
    """Raises UserError where the environment has no number."""
    given = os.environ.get("IEKD_CHECKPOINT_SECONDS", str(EVERY))
    try:
        found = float(given)
        if not found >= 0:
            raise ValueError
    except ValueError:
        raise UserError(
            f"'{given}' in IEKD_CHECKPOINT_SECONDS is not a number of seconds. Set one, or unset the variable."
        ) from None
    return found


def _fingerprint(dataset: Dataset, unlabelled: Split | None = None, pixels: tuple[bool, bool] = (False, False)) -> str:
    """Of the classes, and of all labels and images in their order.

    Images from files of their own are known by their sums: whether they are in memory depends on how much is free, and
    on how many processes share it, and an attempt may have either. A picture that was only mirrored goes unnoticed.

    pixels: whether the labelled and the unlabelled ones count by their pixels all the same.
    """
    found = hashlib.sha256(repr((dataset.class_names, dataset.resolution, dataset.channels)).encode())
    splits = [(dataset.train, pixels[0]), (dataset.test, pixels[0])]
    for split, by_pixels in splits if unlabelled is None else [*splits, (unlabelled, pixels[1])]:
        found.update(split.labels.tobytes())
        exact = by_pixels or split.image_files is None
        for some in _decoded(split.images) if exact else split.sums_of_each():
            found.update(np.ascontiguousarray(some).data)
    return found.hexdigest()


def _is_earlier(known: str, dataset: Dataset, unlabelled: Split | None) -> bool:
    """Whether an earlier version would have given these images that fingerprint. It took the pixels of those that it
    had in memory."""
    kinds = product((False, True), (False,) if unlabelled is None else (False, True))
    return any(known == _fingerprint(dataset, unlabelled, pixels) for pixels in kinds)


def _decoded(images: Images) -> Iterator[np.ndarray]:
    if not isinstance(images, FileImages):
        yield images
        return
    log.info("Decoding %d images to compare them with those of an earlier version of this program.", len(images))
    with ThreadPoolExecutor(cores()) as pool:
        for i in range(0, len(images), AT_ONCE):
            yield from pool.map(images.__getitem__, range(i, min(i + AT_ONCE, len(images))))
