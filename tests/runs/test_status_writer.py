"""Progress, remaining time and how often status.json is written, without a training."""

from __future__ import annotations

import os

import pytest

from iekd.engine.metrics import Metrics
from iekd.estimate.cost import Plan
from iekd.runs import status_writer
from iekd.runs.status_writer import STATUS_EVERY, StatusWriter
from iekd.runs.store import Status, Store

PLAN = Plan({"teacher": 10.0, "auto-encoder": 0.0, "students": 30.0, "evaluation": 10.0}, memory=0.0, networks=0.0)


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


def test_a_stage_adds_to_the_progress_what_it_costs(writer):
    writer.begin(PLAN, images_per_step=32, resumed=False)
    writer.start_stage("students", 100, 0)
    assert writer.status.progress == pytest.approx(0.2)
    writer.advance(row(50))
    assert writer.status.progress == pytest.approx((10 + 15) / 50)
    writer.start_stage("evaluation", 4, 0)
    assert writer.status.progress == pytest.approx(0.8)


def test_progress_never_falls_when_another_learner_is_behind(writer):
    writer.begin(PLAN, images_per_step=32, resumed=False)
    writer.start_stage("students", 100, 0)
    writer.advance(row(60))
    writer.advance(row(40))
    assert writer.status.stage_progress == 0.6


@pytest.mark.parametrize("resumed", [False, True])
def test_the_remaining_time_follows_from_what_this_attempt_has_done(writer, clock, resumed):
    """A resumed run did not take seconds for what the earlier attempt did."""
    writer.begin(PLAN, images_per_step=32, resumed=resumed)
    writer.start_stage("students", 100, 50 if resumed else 0)  # a progress of 0.5, or 0.2
    clock.now += 10
    writer.advance(row(50))
    clock.now += 20
    writer.advance(row(75))  # a progress of 0.65
    gained = 0.65 - 0.5 if resumed else 0.65
    assert writer.status.eta_seconds == pytest.approx(30 * 0.35 / gained)
    assert writer.status.images_per_second == pytest.approx((25 if resumed else 75) * 32 / 30)


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
