"""Images that stay in their files are, to every reader, the array that they would be."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iekd import data
from iekd.data.base import Dataset
from iekd.data.file_images import FileImages, Files, image_sums
from iekd.errors import DataError

name = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12)


@pytest.fixture(params=["grey", "colour"])
def both(request, tmp_path) -> tuple[Dataset, Dataset]:
    """A folder with broken files among them, as arrays and as files."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 11)):
        for i in range(count):
            path = tmp_path / part / "abc"[i % 3] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels[..., 0] if request.param == "grey" else pixels).save(path)
            if i % 10 == 4:
                path.write_bytes(path.read_bytes()[:60])
    return tuple(data.load(f"folder:{tmp_path}", resolution=16, image_memory=memory) for memory in (None, 0))


def same(kept: Dataset, read: Dataset) -> None:
    for part in ("train", "test", "validation"):
        a, b = getattr(kept, part), getattr(read, part)
        assert (a is None) == (b is None)
        if a is not None:
            assert isinstance(a.images, np.ndarray)
            assert isinstance(b.images, FileImages)
            assert a.images.shape == b.images.shape
            assert (a.images.nbytes, a.images.dtype, len(a.images)) == (b.images.nbytes, b.images.dtype, len(b.images))
            np.testing.assert_array_equal(a.images, b.images[:])
            np.testing.assert_array_equal(a.labels, b.labels)
            assert a.labels.dtype == b.labels.dtype
            assert [a.image_files[i] for i in range(len(a))] == [b.image_files[i] for i in range(len(b))]
    assert kept.statistics == read.statistics
    assert kept.background == read.background
    assert (kept.channels, kept.resolution, kept.skipped) == (read.channels, read.resolution, read.skipped)


def test_files_are_what_arrays_are(both):
    same(*both)
    assert len(both[0].skipped) == 4
    assert len(both[0].train) == 27


@pytest.mark.parametrize("change", [lambda d: d.limited(12, 3), lambda d: d.held_out(0.3, 2)], ids=["fewer", "split"])
def test_parts_of_files_are_parts_of_arrays(both, change):
    same(*map(change, both))
    same(*(change(d).limited(9).held_out(0.5) for d in both))


def test_joined_files_are_joined_arrays(both):
    kept, read = (d.train.joined(d.test) for d in both)
    np.testing.assert_array_equal(kept.images, read.images[:])
    np.testing.assert_array_equal(kept.labels, read.labels)
    assert kept.sums() == read.sums()


@pytest.mark.parametrize("rows", [slice(2, 9, 3), np.array([5, 0, 5, -1]), np.array([], int), 3, -2], ids=str)
def test_rows_are_those_of_an_array(both, rows):
    kept, read = (d.train.images for d in both)
    np.testing.assert_array_equal(kept[rows], read[rows])
    assert all(np.array_equal(a, b) for a, b in zip(kept, read, strict=True))
    with pytest.raises(IndexError):
        read[len(read)]


def test_nothing_is_decoded_before_it_is_asked_for(both, monkeypatch):
    def decode(*_):
        pytest.fail("decoded")

    monkeypatch.setattr("iekd.data.file_images.to_array", decode)
    d = both[1].limited(15).held_out(0.2)
    assert len(d.statistics) == 2
    assert d.background > 0
    assert d.train.joined(d.test).images.shape[1:] == (16, 16, d.channels)


def test_sums_are_exact():
    images = np.random.default_rng(0).integers(0, 256, (5, 300, 300, 3), np.uint8)
    images[0] = 255  # its squares need 33 bits
    for image, sums in zip(images.astype(object), image_sums(images).tolist(), strict=True):
        assert sums[:3] == [image[..., c].sum() for c in range(3)]
        assert sums[3:6] == [(image[..., c] ** 2).sum() for c in range(3)]
        assert sums[6] == image[0].sum() + image[-1].sum() + image[:, 0].sum() + image[:, -1].sum()


@pytest.mark.parametrize(("memory", "kind"), [(None, np.ndarray), (0.0001, FileImages), (0.1, np.ndarray)])
def test_the_memory_that_they_may_take_decides(picture_folder, memory, kind, caplog):
    with caplog.at_level(logging.INFO, "iekd"):  # 156 images of 768 bytes: 0.00012 GB
        d = data.load(f"folder:{picture_folder}", resolution=16, image_memory=memory)
    assert isinstance(d.train.images, kind)
    assert isinstance(d.test.images, kind)
    assert ("re-decoded every epoch" in caplog.text) == (kind is FileImages)


def test_half_of_what_is_free_is_the_limit(picture_folder, monkeypatch):
    for free, kind in ((2 * 156 * 768, np.ndarray), (2 * 156 * 768 - 2, FileImages)):
        monkeypatch.setattr("iekd.data.memory.free_memory", lambda free=free: free)
        assert isinstance(data.load(f"folder:{picture_folder}", resolution=16).train.images, kind)


def test_a_file_that_has_gone_is_named(both, refuses):
    images = both[1].train.images
    os.remove(images.files[7])
    refuses(lambda: images[np.array([6, 7, 8])], images.files[7], "start again", kind=DataError)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(name, max_size=5), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_paths_come_back_as_they_were(listed, random):
    folders = [f"/root/{k} é" for k in range(len(listed))]
    files = Files.of(folders, listed)
    paths = [f"{folders[k]}/{n}" for k, names in enumerate(listed) for n in names]
    assert [files[i] for i in range(len(files))] == paths
    assert files.which.tolist() == [k for k, names in enumerate(listed) for _ in names]
    rows = np.array(random.choices(range(len(paths)), k=7) if paths else [], int)
    taken = files.take(rows).joined(files)
    assert [taken[i] for i in range(len(taken))] == [paths[i] for i in rows] + paths


def test_a_name_that_is_no_text_is_kept(tmp_path):
    odd = os.fsdecode(b"\xff\xfe.png")
    assert Files.of([str(tmp_path)], [[odd]])[0] == str(tmp_path / odd)


def test_a_name_takes_its_letters_and_twenty_bytes():
    files = Files.of(["/a", "/b"], [[f"{i:012}.png" for i in range(1000)]] * 2)
    taken = sum(array.nbytes for array in (files.which, files.names, files.starts, files.ends))
    assert taken == 2000 * (16 + 20)
