"""Progress and time left, on simulated runs with a clock of their own."""

from __future__ import annotations

import itertools

import pytest

from iekd.estimate.progress import FINISH, HELD_OUT, TRAINING, Progress

# a run: stage, epochs, steps per epoch, seconds per step, batches to predict per epoch, seconds per batch
RUN = [("teacher", 6, 35, 0.2, 12, 0.1), ("students", 10, 35, 0.5, 24, 0.3), ("evaluation", 1, 0, 0, 10, 1.5)]


def truth(run) -> dict:
    found = {}
    for stage, epochs, steps, step, batches, batch in run:
        found[stage, TRAINING], found[stage, HELD_OUT] = epochs * steps * step, epochs * batches * batch
    return found


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def simulate(run, progress: Progress, clock: Clock, first: int = 0, skip: int = 0, slow=lambda passed: 1.0):
    """Yields after each event; the first step of a stage takes three seconds longer."""
    began = clock.now
    for number, (stage, epochs, steps, step, batches, batch) in enumerate(run):
        if number < first:
            continue
        done = skip if number == first else 0
        trained = done / (epochs * steps) if steps else 1.0
        progress.start(stage, trained, done // steps / epochs if steps else 0.0)
        if steps:
            clock.now += 3.0
        predicted = (done // steps if steps else 0) * batches
        for epoch in range(epochs):
            for at in range(epoch * steps, (epoch + 1) * steps):
                if at < done:
                    continue
                clock.now += step * slow(clock.now - began)
                if at % 5 == 4:  # a row for each of two learners
                    for _ in range(2):
                        progress.update(stage, TRAINING, (at + 1) / (epochs * steps))
                        yield
            if done and (epoch + 1) * steps <= done:
                continue
            for _ in range(batches):
                clock.now += batch * slow(clock.now - began)
                predicted += 1
                progress.update(stage, HELD_OUT, predicted / (epochs * batches))
                yield
    clock.now += FINISH


def record(run, expected, spread, **options):
    """(time, value, remaining) after each event, and the whole time."""
    clock = Clock()
    progress = Progress(expected, spread, clock=clock)
    began = clock.now
    events = simulate(run, progress, clock, **options)
    seen = [(clock.now - began, progress.value, progress.remaining()) for _ in events]
    return seen, clock.now - began


@pytest.mark.parametrize("wrong", [1.0, 2.5, 0.4])
def test_the_time_left_is_right_after_a_few_steps_however_wrong_the_estimate_was(wrong):
    expected = {part: seconds * wrong for part, seconds in truth(RUN).items()}
    seen, whole = record(RUN, expected, spread=2.5)
    for at, value, left in seen:
        assert left.low <= left.seconds <= left.high
        assert left.seconds >= FINISH
        if at > 0.06 * whole:
            assert 1 / 1.5 < left.seconds / (whole - at) < 1.5, (at, whole)
        if at > 0.1 * whole:
            assert left.low / 1.2 < whole - at < left.high * 1.2
        assert abs(value - at / whole) < (0.06 if wrong == 1 else 0.15)


def test_predicting_moves_the_bar_as_training_does():
    """Half of the time goes into held-out images: a bar that counted steps would stand still meanwhile."""
    run = [("students", 4, 50, 0.2, 40, 0.25), ("evaluation", 1, 0, 0, 20, 1.0)]
    seen, _ = record(run, truth(run), spread=1.5)
    steps = list(itertools.pairwise(seen))
    assert max(b[1] - a[1] for a, b in steps) < 0.06
    assert all(b[1] > a[1] for a, b in steps if b[0] > a[0])
    assert seen[-1][1] == pytest.approx(1, abs=0.02)
    assert seen[-1][2].seconds < 2


def test_the_range_narrows_to_a_number():
    seen, _ = record(RUN, truth(RUN), spread=2.5)
    before = Progress(truth(RUN), 2.5).remaining()
    assert before.high / before.low > 5
    widths = [left.high / left.low for _, _, left in seen]
    assert widths[0] > 1.7
    assert widths[len(widths) // 2] < 1.4


def test_a_part_whose_cost_was_misjudged_does_not_end_the_countdown_early():
    """The last stage takes four times what was foreseen: the time left follows, and the bar waits below the end."""
    expected = truth(RUN)
    expected["evaluation", HELD_OUT] /= 4
    seen, whole = record(RUN, expected, spread=1.5)
    last = [(at, value, left) for at, value, left in seen if at > whole - 10]
    assert all(left.seconds > (whole - at) / 1.5 for at, _, left in last)
    assert all(value < at / whole + 0.05 for at, value, _ in last)


def test_another_program_that_comes_in_between_is_noticed():
    run = [("students", 20, 50, 0.5, 10, 0.5)]
    seen, whole = record(run, truth(run), spread=1.5, slow=lambda passed: 1.0 if passed < 150 else 3.0)
    late = [(at, left) for at, _, left in seen if 400 < at < whole - 20]
    assert late
    assert all(1 / 1.6 < left.seconds / (whole - at) < 1.6 for at, left in late)


def test_another_attempt_goes_on_from_the_bar_and_the_pace_of_the_last_one():
    clock = Clock()
    expected = {part: seconds * 2.5 for part, seconds in truth(RUN).items()}
    progress = Progress(expected, 2.5, clock=clock)
    seen = []
    for _ in simulate(RUN, progress, clock):
        seen.append(progress.value)
        if progress.parts["students", TRAINING].fraction > 0.5:
            break
    again = Progress(expected, 2.5, value=progress.value, pace=progress.pace, clock=clock)
    began = clock.now
    later = [
        (clock.now - began, again.value, again.remaining()) for _ in simulate(RUN, again, clock, first=1, skip=4 * 35)
    ]
    whole, values = clock.now - began, seen + [value for _, value, _ in later]
    assert values == sorted(values)
    assert later[0][1] < 0.6
    assert values[-1] == pytest.approx(1, abs=0.03)
    assert all(1 / 1.4 < left.seconds / (whole - at) < 1.4 for at, _, left in later)


def test_parts_that_cost_nothing_are_no_trouble():
    progress = Progress({("students", TRAINING): 0.0, ("students", HELD_OUT): 0.0}, 2.0, clock=(clock := Clock()))
    progress.start("students", 0.0, 1.0)
    clock.now += 1
    progress.update("students", TRAINING, 1.0)
    progress.update("no such stage", TRAINING, 1.0)
    assert progress.remaining().seconds == pytest.approx(FINISH)
    assert 0 < progress.value < 1
