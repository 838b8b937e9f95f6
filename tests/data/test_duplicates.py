"""Equal images among training and test images that are in memory."""

from __future__ import annotations

import numpy as np
import pytest

from iekd.data import Split
from iekd.data.duplicates import repeated


def split(images: np.ndarray) -> Split:
    return Split(images, np.zeros(len(images), np.int64))


@pytest.mark.parametrize(("side", "channels"), [(28, 1), (33, 3), (5, 1), (2, 1), (1, 1)])
def test_equal_images_are_found_and_no_others(side, channels):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (count, side, side, channels), np.uint8) for count in (300, 200))
    test[7], test[20], test[150] = train[3], train[3], train[299]
    known = {image.tobytes() for image in train}
    expected = [row for row in range(200) if test[row].tobytes() in known]
    assert {7, 20, 150} <= set(expected)
    assert repeated(split(train), split(test)).tolist() == expected


@pytest.mark.parametrize("pixel", [(0, 0), (2, 4), (4, 4)])
def test_one_pixel_of_difference_is_enough(pixel):
    train = np.random.default_rng(1).integers(0, 255, (5, 5, 5, 1), np.uint8)
    test = train.copy()
    test[2, pixel[0], pixel[1]] += 1
    assert repeated(split(train), split(test)).tolist() == [0, 1, 3, 4]
