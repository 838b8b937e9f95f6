"""What is said before Start of small datasets."""

from __future__ import annotations

import re

import pytest

from iekd.config.run import make_config
from iekd.data.base import DatasetInfo
from iekd.engine.scoring import interval
from iekd.estimate.cautions import cautions, few_steps, few_test_images, learned_from


@pytest.mark.parametrize(("learned", "batch"), [(162, 128), (90, 128), (1270, 128), (500, 4096), (4500, 512)])
def test_the_batch_size_that_is_named_gives_ten_steps(learned, batch):
    said = str(few_steps(make_config(batch_size=batch), learned))
    assert f"Batch size {batch} makes {learned // min(batch, learned)} step" in said
    size = int(re.findall(r"Batch size (\d+)", said)[-1])
    assert learned // size >= 10
    assert learned // (2 * size) < 10, "the largest power of two that does"
    assert said.endswith(f"makes {learned // size}.")


def test_images_that_every_epoch_leaves_out_are_counted():
    assert "leaves out 34 of them each time" in str(few_steps(make_config(batch_size=128), 162))
    assert "leaves out" not in str(few_steps(make_config(batch_size=128), 256))


@pytest.mark.parametrize(("learned", "batch"), [(1280, 128), (4500, 128), (40, 8), (6, 8), (0, 128)])
def test_nothing_is_said_where_no_sensible_size_is_better(learned, batch):
    assert few_steps(make_config(batch_size=batch), learned) is None


def test_so_few_images_that_even_the_smallest_sensible_batch_makes_fewer_steps():
    assert str(few_steps(make_config(), 30)).endswith("Batch size 8 makes 3.")
    assert str(few_steps(make_config(), 14)).endswith("No sensible batch size makes more of so few: add images.")


def test_two_test_images_mean_nothing():
    caution = few_test_images(2, "pictures")
    assert caution.serious
    assert "With 2 test pictures the test accuracy means nothing: 50 % may be anything from 9 to 91 %" in str(caution)
    assert "With 1 test picture the" in str(few_test_images(1, "pictures"))


@pytest.mark.parametrize(("tested", "said"), [(11, True), (12, False), (60, False)])
def test_some_dozens_are_rough_but_not_nothing(tested, said):
    assert few_test_images(tested).serious == said


@pytest.mark.parametrize("tested", [0, 100, 2000])
def test_enough_or_unknown_test_images_are_no_matter(tested):
    assert few_test_images(tested) is None


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    # of R's prop.test(correct = FALSE)
    [(1, 2, 9.453, 90.547), (50, 100, 40.383, 59.617), (0, 10, 0.0, 27.753), (10, 10, 72.247, 100.0)],
)
def test_the_interval_is_wilsons(correct, images, low, high):
    assert interval(correct, images) == pytest.approx((low, high), abs=0.002)


def test_seeds_that_begin_with_the_same_weights_are_no_repetitions():
    def said(**values):
        return [str(c) for c in cautions(make_config(**values), 5000, 5000) if "same weights" in str(c)]

    assert said(student_from="run:x/y", seeds=(0, 1, 2))
    assert not said(student_from="run:x/y", seeds=(0,))
    assert not said(seeds=(0, 1, 2))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"student_from": "pretrained"}, ["0.1", "students", "Set lr to"]),
        ({"student_from": "run:x/y", "lr": 0.05}, ["0.05", "students", "Set lr to"]),
        ({"student_from": "/w.pth", "lr": 0.02}, None),
        ({"teacher_from": "pretrained"}, ["0.1", "teacher begins", "Set teacher-lr to"]),
        ({"teacher_from": "hf:ann/net", "teacher_lr": 0.05, "lr": 0.01}, ["0.05", "teacher begins"]),
        ({"teacher_from": "/w.pth"}, ["0.1", "teacher begins", "Set teacher-lr to"]),
        ({"teacher_from": "pretrained", "teacher_lr": 0.005}, None),
        ({"student_from": "pretrained", "optimizer": "adamw", "lr": 5e-4}, None),
        ({"student_from": "pretrained", "optimizer": "adamw", "lr": 0.01}, ["AdamW", "0.01", "Set lr to about 0.0005"]),
        ({"teacher_from": "pretrained", "optimizer": "adamw", "lr": 0.005}, ["AdamW", "0.005", "teacher begins"]),
        ({"teacher_from": "hf:ann/net", "optimizer": "adamw", "lr": 1e-3, "teacher_lr": 2e-3}, None),
        ({"student_from": "pretrained", "optimizer": "adamw", "lr": 0.1}, None),  # it is too high for random ones too
        ({}, None),
    ],
)
def test_a_rate_for_random_weights_is_too_high_for_trained_ones(values, said):
    tunes = "teacher_from" in values
    given = cautions(make_config(**values), 5000, 5000, fine_tunes=tunes)
    found = [str(one) for one in given if "random weights" in str(one)]
    assert len(found) == bool(said)
    assert all(word in found[0] for word in said or ())
    if tunes:
        assert not any("random weights" in str(one) for one in cautions(make_config(**values), 5000, 5000))


def test_teacher_and_students_each_have_their_rate():
    config = make_config(student_from="pretrained", teacher_from="pretrained", teacher_lr=0.2)
    said = " ".join(map(str, cautions(config, 5000, 5000, fine_tunes=True)))
    assert "learning rate 0.1 is" in said
    assert "learning rate 0.2 is" in said


def test_images_that_are_held_out_are_not_learned_from():
    info = DatasetInfo("folder:/x", "x", 60, 6, 3, 3, 32, class_sizes=(30, 20, 10))
    assert learned_from(make_config(), info) == 27 + 18 + 9
    assert learned_from(make_config(validation_fraction=0), info) == 60
    assert learned_from(make_config(limit_train=30), info) == 27
    assert len(cautions(make_config(), 54, info.test_images)) == 2
