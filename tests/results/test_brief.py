from __future__ import annotations

import pytest

from iekd.config.run import make_config
from iekd.results.brief import IMAGES, SEEDS, brief, interval, settings_that_differ
from iekd.runs.store import Store


@pytest.fixture
def briefly(tmp_path, written_run):
    return lambda **values: brief(written_run(Store(tmp_path), **values).report)


def test_the_best_taught_method_is_compared_with_the_plain_one(briefly):
    found = briefly(plain=86.0, taught=88.0, methods=("baseline", "kd", "ie-ft"))
    assert found.teacher == 94.0
    assert found.plain.mean == 86.0
    assert found.taught.method in ("kd", "ie-ft")
    assert found.gain.mean == pytest.approx(2.0)
    assert found.best == pytest.approx(88.0)
    assert found.too_weak == ""


def test_an_interval_is_over_seeds_if_there_are_several_else_over_images(briefly):
    alone = interval(briefly().gain)
    assert (alone.over, alone.n, alone.low, alone.high) == (IMAGES, 1000, 1.0, 3.0)
    found = briefly(methods=("baseline", "ie-ft"), seeds=(0, 1, 2))
    assert interval(found.gain).over == IMAGES, "seeds that are all alike give no interval"
    assert SEEDS != IMAGES


def test_a_run_without_a_plain_student_or_without_others_has_no_gain(briefly):
    assert briefly(methods=("ie-ft",)).gain is None
    only = briefly(methods=("baseline",))
    assert (only.taught, only.gain, only.best) == (None, None, 86.0)


@pytest.mark.parametrize(
    ("values", "weak"),
    [
        ({"plain": 10.0, "taught": 10.5}, True),
        ({"teacher": 11.0}, True),
        ({"plain": 10.0, "taught": 40.0}, False),  # the teacher helped
        ({}, False),
    ],
)
def test_a_run_at_chance_level_is_too_weak_to_judge(briefly, values, weak):
    said = briefly(**values).too_weak
    assert bool(said) == weak
    assert not weak or "majority class" in said


def test_only_the_settings_that_differ_are_named_in_their_order():
    one = make_config(name="a", epochs=3)
    assert settings_that_differ([one, make_config(name="b", epochs=3)]) == {}
    found = settings_that_differ([one, make_config(epochs=3, lr=0.05), make_config(epochs=4, seeds=(1, 2))])
    assert found == {"seeds": [(0,), (0,), (1, 2)], "epochs": [3, 3, 4], "lr": [0.1, 0.05, 0.1]}
    assert list(found) == ["seeds", "epochs", "lr"]
