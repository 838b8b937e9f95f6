"""A folder's pictures are decoded once, and what that gave is found again exactly as long as it is right."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iekd import data
from iekd.data import decoded_cache, reading
from iekd.data.file_images import FileImages
from iekd.errors import DataError

COUNTS = {"train": 12, "test": 6}


@pytest.fixture
def folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in COUNTS.items():
        for i in range(count):
            path = tmp_path / "set" / part / "abc"[i % 3] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    return tmp_path / "set"


@pytest.fixture
def plain(folder) -> Path:
    """The same without test/."""
    for path in (folder / "test").rglob("*.png"):
        path.rename(folder / "train" / path.parent.name / f"more-{path.name}")
    return folder / "train"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that are decoded to be trained on; every folder is worth keeping."""
    monkeypatch.setattr(reading, "WORTH_CACHING", -1.0)
    names, to_array = [], reading.to_array

    def counted(path, *args):
        names.append(os.path.basename(path))
        return to_array(path, *args)

    monkeypatch.setattr(reading, "to_array", counted)
    return names


def load(folder: Path, **options) -> data.Dataset:
    return data.load(f"folder:{folder}", **{"resolution": 16, **options})


def assert_same(a: data.Dataset, b: data.Dataset) -> None:
    for x, y in ((a.train, b.train), (a.test, b.test)):
        np.testing.assert_array_equal(x.images[:], y.images[:])
        np.testing.assert_array_equal(x.labels, y.labels)
        assert [x.image_files[i] for i in range(len(x))] == [y.image_files[i] for i in range(len(y))]
    for field in ("statistics", "background", "skipped", "fingerprint"):
        assert getattr(a, field) == getattr(b, field)


@pytest.mark.parametrize("memory", [None, 0], ids=["in memory", "in files"])
def test_the_second_time_nothing_is_decoded(folder, decoded, memory, caplog):
    caplog.set_level(logging.INFO)
    first = load(folder, image_memory=memory)
    assert len(decoded) == 18
    assert "stored for the next run" in caplog.text
    decoded.clear()
    second = load(folder, image_memory=memory)
    assert not decoded
    assert "decoded before" in caplog.text
    assert isinstance(second.train.images, np.ndarray if memory is None else FileImages)
    assert_same(first, second)


def test_what_was_read_is_an_array_of_its_own(folder, decoded):
    """Written to, it changes nothing that is kept."""
    load(folder)
    found = load(folder)
    assert not isinstance(found.train.images, np.memmap)
    assert found.train.images.flags.writeable
    found.train.images[:] = 0
    assert load(folder).train.images.any()


def test_another_split_finds_its_images_too(plain, decoded):
    load(plain, test_fraction=0.3, seed=1)
    decoded.clear()
    found = load(plain, test_fraction=0.5, seed=2)
    assert not decoded
    fresh = load(plain, test_fraction=0.5, seed=2, cache=False)
    assert len(decoded) == 18
    assert_same(found, fresh)


@pytest.mark.parametrize("change", ["new", "gone", "other content", "other resolution"])
def test_what_changes_is_decoded_anew(folder, decoded, change):
    load(folder)
    decoded.clear()
    one = folder / "train" / "a" / "00.png"
    if change == "new":
        Image.new("RGB", (20, 20), "red").save(folder / "train" / "a" / "new.png")
    elif change == "gone":
        one.unlink()
    elif change == "other content":
        Image.new("RGB", (20, 20), "red").save(one)
    found = load(folder, resolution=12 if change == "other resolution" else 16)
    assert len(decoded) == 18 + {"new": 1, "gone": -1}.get(change, 0)
    if change == "other content":
        first = next(i for i in range(12) if found.train.image_files[i].endswith("a/00.png"))
        assert found.train.images[first].reshape(-1, 3).mean(0).tolist() == [255, 0, 0]


def test_more_or_less_memory_gives_what_fits_it(folder, decoded):
    assert isinstance(load(folder).train.images, np.ndarray)
    assert isinstance(load(folder, image_memory=0).train.images, FileImages)
    decoded.clear()
    assert isinstance(load(folder).train.images, np.ndarray)
    assert isinstance(load(folder, image_memory=0).train.images, FileImages)
    assert not decoded, "each is kept"


def test_a_broken_file_is_skipped_again(folder, decoded, monkeypatch):
    monkeypatch.setattr(reading, "MOVED", 4)
    (folder / "train" / "b" / "01.png").write_bytes(b"no picture")
    first = load(folder)
    assert_same(first, load(folder, image_memory=0))
    decoded.clear()
    second = load(folder)
    assert decoded == ["01.png"], "it may be readable now"
    assert [Path(name).name for name in second.skipped] == ["01.png"]
    assert_same(first, second)


def test_a_file_that_could_not_be_read_for_a_while_is_back(folder, decoded, monkeypatch):
    """Its disk was away: neither its size nor its time has changed."""
    with monkeypatch.context() as away:
        to_array = reading.to_array

        def refuse(path, *args):
            if path.endswith("01.png"):
                raise DataError("The disk is away.")
            return to_array(path, *args)

        away.setattr(reading, "to_array", refuse)
        assert len(load(folder).skipped) == 2
    assert load(folder).skipped == ()
    decoded.clear()
    assert load(folder).skipped == ()
    assert not decoded, "what is kept now has all of them"


@pytest.mark.parametrize("damage", ["empty", "values cut off", "rows cut off", "rows of another", "a folder"])
def test_what_is_damaged_is_decoded_anew(folder, decoded, damage):
    first = load(folder)
    (file,) = decoded_cache.folder().iterdir()
    values, rows = decoded_cache.find(file.stem)
    if damage == "rows of another":
        decoded_cache.store(file.stem, [values[:-1]], rows)
    elif damage == "a folder":
        file.unlink()
        file.mkdir()
    else:
        size = {"empty": 0, "values cut off": 200, "rows cut off": file.stat().st_size - 8}[damage]
        file.write_bytes(file.read_bytes()[:size])
    decoded.clear()
    assert_same(load(folder), first)
    assert len(decoded) == 18


@pytest.mark.parametrize("inside", ["", "pictures"])
def test_of_what_was_uploaded_nothing_is_kept(folder, decoded, tmp_path, inside):
    place = tmp_path / "runs" / ".pictures" / "set-0123456789ab" / inside
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(place)
    load(place)
    assert not decoded_cache.folder().exists()


def test_what_takes_no_time_or_is_not_to_be_kept_is_not(folder, decoded, monkeypatch):
    load(folder, cache=False)
    monkeypatch.setattr(reading, "WORTH_CACHING", 60.0)
    load(folder)
    assert not decoded_cache.folder().exists()


@pytest.mark.parametrize("why", ["too large", "disk full", "no right"])
def test_without_room_it_goes_on(folder, decoded, monkeypatch, why):
    place = decoded_cache.folder()
    if why == "too large":
        monkeypatch.setattr(decoded_cache, "MOST", 1000)
    elif why == "disk full":
        monkeypatch.setattr(decoded_cache, "LEFT", 10**18)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("a file where the folder should be")
    assert len(load(folder).train) == 12
    assert not place.is_dir() or not list(place.iterdir())


def test_a_disk_that_fills_up_leaves_nothing_behind(folder, decoded, monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded_cache.os, "fsync", full)
    assert len(load(folder).train) == 12
    assert "No space left" in caplog.text
    assert not list(decoded_cache.folder().iterdir())


def test_what_was_not_used_for_longest_goes_first(folder, decoded, monkeypatch):
    def names() -> list[int]:
        return sorted(int(p.name.split("-")[1]) for p in decoded_cache.folder().iterdir())

    for i, resolution in enumerate((10, 11, 12)):
        load(folder, resolution=resolution)
        for path in decoded_cache.folder().glob(f"*-{resolution}-*"):
            os.utime(path, (1000 + i, 1000 + i))
    assert names() == [10, 11, 12]
    load(folder, resolution=10)  # used again
    monkeypatch.setattr(decoded_cache, "MOST", 3 * 18 * 13 * 13 * 3)
    load(folder, resolution=13)
    assert names() == [10, 12, 13]


def test_progress_is_told_and_may_end_it(folder, decoded, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", 5)
    told = []
    load(folder, progress=lambda done, total: told.append((done, total)))
    assert told == [(5, 18), (10, 18), (12, 18), (17, 18), (18, 18)]

    class EnoughError(Exception):
        pass

    def end(done, total):
        raise EnoughError

    slow = threading.Event()
    to_array = reading.to_array
    monkeypatch.setattr(reading, "to_array", lambda *args: slow.wait(0.2) or to_array(*args))
    monkeypatch.setattr(reading, "BLOCK", 1)
    monkeypatch.setattr(reading.ThreadPoolExecutor, "__init__", two_threads(reading.ThreadPoolExecutor.__init__))
    decoded.clear()
    began = time.monotonic()
    with pytest.raises(EnoughError):
        load(folder, cache=False, progress=end)
    assert len(decoded) < 10, f"in {time.monotonic() - began:.1f} s"


def two_threads(init):
    return lambda self, _: init(self, 2)
