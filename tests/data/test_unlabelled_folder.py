"""A folder of images without classes, read to be like a dataset's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from iekd.data.file_images import FileImages
from iekd.data.unlabelled import check_unlabelled, load_unlabelled
from iekd.errors import DataError


@pytest.fixture
def folder(tmp_path, tiny):
    """Two levels; one file is broken, one is a copy of a test image, one is grey."""
    rng = np.random.default_rng(0)
    for i in range(5):
        path = tmp_path / "more" / ("deep/er" if i % 2 else "") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 20, 3), np.uint8)).save(path)
    (tmp_path / "more" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    Image.fromarray(tiny.test.images[7]).save(tmp_path / "more" / "copy.png")
    Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).save(tmp_path / "more" / "grey.png")
    return tmp_path / "more"


def test_it_is_read_as_the_dataset_is(folder, tiny):
    assert check_unlabelled(str(folder)) == 8
    split, notes = load_unlabelled(str(folder), tiny)
    assert split.images.shape == (7, 16, 16, 3)
    assert split.labels.tolist() == [-1] * 7
    assert any("1 unlabelled image cannot be read" in note and "broken.png" in note for note in notes)
    assert any("1 of 60 test images" in note for note in notes)
    streamed, _ = load_unlabelled(str(folder), tiny, image_memory=0.0)
    assert isinstance(streamed.images, FileImages)
    np.testing.assert_array_equal(streamed.images[:], split.images)


def test_grey_datasets_get_grey_images(folder, tiny):
    grey = replace(tiny, train=replace(tiny.train, images=tiny.train.images[..., :1]))
    split, _ = load_unlabelled(str(folder), grey)
    assert split.images.shape == (7, 16, 16, 1)


def test_what_cannot_be_used_is_a_sentence(tmp_path, tiny, refuses):
    refuses(lambda: check_unlabelled(str(tmp_path / "none")), "no folder", tmp_path / "none", kind=DataError)
    (tmp_path / "empty").mkdir()
    refuses(lambda: load_unlabelled(str(tmp_path / "empty"), tiny), "no images", kind=DataError)
    (tmp_path / "empty" / "a.png").write_bytes(b"no image")
    refuses(lambda: load_unlabelled(str(tmp_path / "empty"), tiny), "can be read", kind=DataError)
