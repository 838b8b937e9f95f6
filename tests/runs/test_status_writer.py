"""Progress, remaining time and how often status.json is written, without a training."""

from __future__ import annotations

import os

import pytest

from iekd.engine.events import StageStart
from iekd.engine.metrics import Metrics, Predicted, Stepped
from iekd.estimate.progress import FINISH, HELD_OUT, TRAINING, Progress
from iekd.runs import status_writer
from iekd.runs.status import Status
from iekd.runs.status_writer import STATUS_EVERY, StatusWriter
from iekd.runs.store import Store

EXPECTED = {
    ("teacher", TRAINING): 9.0, ("teacher", HELD_OUT): 1.0, ("students", TRAINING): 20.0, ("students", HELD_OUT): 10.0,
    ("evaluation", HELD_OUT): 9.0,
}  # fmt: skip


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(status_writer, "time", made)
    return made


@pytest.fixture
def writer(tmp_path, tiny_config, clock):
    run, handle = Store(tmp_path).create(tiny_config())
    yield StatusWriter(run, Status(), None)
    os.close(handle)


def row(step: int) -> Metrics:
    return Metrics("students", "baseline-seed0", "train", 0.0, step)


@pytest.fixture
def students(writer, clock):
    """A hundred steps, of which fifty are done, and 200 images to predict; the teacher took no time."""
    writer.begin(Progress(EXPECTED, 1.5, value=0.4, clock=clock.monotonic), images_per_step=32)
    writer.start_stage(StageStart("students", 100, 50, 200, 100))
    return writer


def test_another_attempt_goes_on_with_the_progress_of_the_last(students, clock):
    assert students.status.progress == 0.4
    assert students.status.stage_progress == 0.5
    assert students.status.eta_seconds == pytest.approx(10 + 5 + 9 + FINISH)
    clock.now += 1
    students.advance(row(55))
    assert students.status.progress == pytest.approx(0.4 + 0.6 / (1 + 9 + 5 + 9 + FINISH), rel=0.01)
    assert students.status.eta_range[0] < students.status.eta_seconds < students.status.eta_range[1]
    assert students.status.images_per_second == pytest.approx(5 * 32)


def test_steps_without_a_row_and_predictions_count(students, clock):
    seen = [students.status.progress]
    for event in (Stepped("students", 60), Predicted("students", 50), Predicted("students", 50)):
        clock.now += 1
        students.advance(event)
        seen.append(students.status.progress)
    assert seen == sorted(set(seen))
    assert students.status.stage_progress == 0.6
    students.start_stage(StageStart("evaluation", 0, predictions=20))
    students.advance(Predicted("evaluation", 15))
    assert students.status.stage_progress == 0.75


def test_progress_never_falls_when_another_learner_is_behind(students, clock):
    clock.now += 1
    students.advance(row(60))
    before = students.status.progress
    students.advance(row(55))
    assert students.status.stage_progress == 0.6
    assert students.status.progress == before


def test_the_file_is_written_now_and_then_or_when_it_must_be(writer, clock):
    def written() -> str:
        return writer.run._stored_status().device

    for device, later, force, expected in (
        ("a", STATUS_EVERY + 0.1, False, "a"), ("b", 0.1, False, "a"), ("c", 0.1, True, "c"),
        ("d", STATUS_EVERY + 0.1, False, "d"),
    ):  # fmt: skip
        clock.now += later
        writer.status.device = device
        writer.write(force=force)
        assert written() == expected


def test_who_watches_sees_every_change(writer, clock):
    seen = []
    writer.watch = lambda status, new: seen.append((status.waiting, new))
    writer.write({"step": 1})
    writer.wait("The GPU is busy.")
    assert seen == [("", {"step": 1}), ("The GPU is busy.", None)]
    assert writer.run._stored_status().waiting == "The GPU is busy."
