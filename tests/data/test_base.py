from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iekd import data
from iekd.data import Dataset, Split
from iekd.errors import DataError

SEEDS = st.integers(0, 2**32 - 1)


def random_split(rng: np.random.Generator, count: int, channels: int = 3, side: int = 4, classes: int = 3) -> Split:
    images = rng.integers(0, 256, (count, side, side, channels)).astype(np.uint8)
    return Split(images, rng.integers(0, classes, count).astype(np.int64))


def make(train: Split, test: Split | None = None, classes: int = 3) -> Dataset:
    return Dataset("made", tuple(f"class {k}" for k in range(classes)), train, train if test is None else test)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([1, 3]), st.integers(1, 40))
def test_statistics_are_numpys_of_the_training_split(seed, channels, count):
    rng = np.random.default_rng(seed)
    train, test = random_split(rng, count, channels), random_split(rng, 7, channels)
    mean, std = make(train, test).statistics
    pixels = train.images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)), atol=1e-9)


def test_statistics_do_not_look_at_the_test_split():
    rng = np.random.default_rng(0)
    train = random_split(rng, 10)
    white = Split(np.full((5, 4, 4, 3), 255, np.uint8), np.zeros(5, np.int64))
    assert make(train, white).statistics == make(train, train).statistics


def test_statistics_of_the_sample_are_numpys():
    sample = data.load("fashion-mnist-sample")
    mean, std = sample.statistics
    pixels = sample.train.images.astype(np.float64) / 255
    assert mean[0] == pytest.approx(pixels.mean(), abs=1e-9)
    assert std[0] == pytest.approx(pixels.std(), abs=1e-9)


def test_a_channel_without_contrast_can_be_divided_by():
    black = Split(np.zeros((3, 4, 4, 1), np.uint8), np.arange(3))
    mean, std = make(black).statistics
    assert mean == (0.0,)
    assert std[0] > 0


def test_shape_says_channels_and_resolution():
    made = make(random_split(np.random.default_rng(0), 5, channels=1, side=7))
    assert (made.channels, made.resolution, len(made.train)) == (1, 7, 5)


def numbered(count: int, classes: int) -> Dataset:
    """Every image tells its own number, classes in unequal parts."""
    images = np.arange(count, dtype=np.uint32).view(np.uint8).reshape(count, 2, 2, 1)
    labels = np.sort(np.random.default_rng(0).integers(0, classes, count))
    labels[:classes] = np.arange(classes)
    return make(Split(images, labels.astype(np.int64)), classes=classes)


def numbers(split: Split) -> np.ndarray:
    return np.ascontiguousarray(split.images).reshape(len(split), 4).view(np.uint32).ravel()


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 1000), SEEDS)
def test_a_limited_data_set_is_balanced_and_a_subset(classes, extra, seed):
    whole = numbered(400, classes)
    count = min(400, classes + extra)
    part = whole.limited(count, seed)
    assert len(part.train) == count
    chosen = numbers(part.train)
    assert len(set(chosen.tolist())) == count, "an image twice"
    np.testing.assert_array_equal(part.train.labels, whole.train.labels[chosen])
    sizes, there = (np.bincount(d.train.labels, minlength=classes) for d in (part, whole))
    assert ((sizes == there) | (sizes >= sizes.max() - 1)).all(), "a class is short while it has images left"
    assert part.test is whole.test


def test_limits_are_the_same_for_a_seed_and_others_for_another():
    whole = numbered(400, 4)
    assert (numbers(whole.limited(50, 3).train) == numbers(whole.limited(50, 3).train)).all()
    assert set(numbers(whole.limited(50, 3).train)) != set(numbers(whole.limited(50, 4).train))


def test_a_smaller_limit_is_part_of_a_larger_one():
    whole = numbered(400, 4)
    assert set(numbers(whole.limited(40, 1).train)) <= set(numbers(whole.limited(90, 1).train))


def test_the_choice_is_spread_over_the_class():
    """Not the first images of each class: a file may be sorted."""
    chosen = numbers(numbered(400, 4).limited(100, 0).train)
    assert chosen.mean() == pytest.approx(199.5, abs=30)
    assert set(chosen.tolist()) != set(range(100))


@pytest.mark.parametrize("count", [None, 400, 5000])
def test_a_limit_that_does_not_limit_changes_nothing(count):
    whole = numbered(400, 4)
    assert whole.limited(count) is whole


def test_too_few_images_for_the_classes_are_refused(refuses):
    refuses(lambda: numbered(400, 8).limited(7), "7", "8", kind=DataError)
    assert set(numbered(400, 8).limited(8).train.labels) == set(range(8))


def test_the_background_is_the_brightness_of_the_edge():
    images = np.zeros((2, 6, 6, 1), np.uint8)
    images[:, 1:-1, 1:-1] = 255
    assert make(Split(images, np.arange(2))).background == 0
    assert make(Split(255 - images, np.arange(2))).background == 1


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_held_out_images_are_a_share_of_each_class_and_leave_training(tiny, fraction):
    split = tiny.held_out(fraction, 3)
    assert len(split.train) + len(split.validation) == len(tiny.train)
    for k in range(3):
        count = (tiny.train.labels == k).sum()
        assert (split.validation.labels == k).sum() == round(count * fraction)
    everything = sorted(image.tobytes() for image in tiny.train.images)
    both = [image.tobytes() for part in (split.train, split.validation) for image in part.images]
    assert sorted(both) == everything
    assert split.test is tiny.test
    as_before = {image.tobytes(): label for image, label in zip(tiny.train.images, tiny.train.labels, strict=True)}
    assert all(
        as_before[i.tobytes()] == k for i, k in zip(split.validation.images, split.validation.labels, strict=True)
    )


def test_the_seed_decides_what_is_held_out(tiny):
    a, b, c = (tiny.held_out(0.25, seed).validation.images for seed in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_nothing_is_held_out_where_that_is_asked_or_nothing_could_be(tiny):
    assert tiny.held_out(0.0) is tiny
    assert tiny.held_out(0.001).validation is None


def test_an_image_of_each_class_is_left_to_learn_from(tiny):
    split = tiny.held_out(0.999)
    assert np.bincount(split.train.labels).tolist() == [1, 1, 1]
