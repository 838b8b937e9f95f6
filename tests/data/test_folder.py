from __future__ import annotations

import logging
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iekd import data
from iekd.data import folder, layout
from iekd.errors import DataError, UserError

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg.tar.xz"


def picture(path: Path, colour=(9, 99, 199), size=(16, 16), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(colour)).convert(mode).save(path)
    return path


def numbered(folder: Path, count: int, first: int = 0, **options) -> None:
    """Pictures whose red says which they are."""
    for i in range(first, first + count):
        picture(folder / f"{i:03}.png", (i, 0, 0), **options)


def reds(split: data.Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def load(root: Path, **options) -> data.Dataset:
    return data.load(f"folder:{root}", **{"resolution": 16, **options})


@pytest.fixture
def two_parts(tmp_path) -> Path:
    for k, name in enumerate(("cat", "dog")):
        numbered(tmp_path / "train" / name, 5, first=10 * k)
        numbered(tmp_path / "test" / name, 2, first=100 + 10 * k)
    return tmp_path


@pytest.fixture
def one_part(tmp_path) -> Path:
    for k, name in enumerate(("cat", "dog", "eel")):
        numbered(tmp_path / name, 10, first=20 * k)
    return tmp_path


def test_train_and_test_are_as_they_lie(two_parts):
    d = load(two_parts)
    assert d.class_names == ("cat", "dog")
    assert reds(d.train) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert d.train.labels.tolist() == [0] * 5 + [1] * 5
    assert reds(d.test) == [100, 101, 110, 111]
    assert d.test.labels.tolist() == [0, 0, 1, 1]
    assert (d.channels, d.resolution, d.skipped) == (3, 16, ())
    assert d.train.labels.dtype == np.int64


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_may_stand_for_test_and_the_log_says_so(two_parts, name, caplog):
    expected = reds(load(two_parts).test)
    assert not caplog.messages
    (two_parts / "test").rename(two_parts / name)
    assert reds(load(two_parts).test) == expected
    numbered(two_parts / "test", 2)  # what is to be answered in a competition has no classes
    assert reds(load(two_parts).test) == expected
    said = f"There is no folder 'test' with one for each class: the images in '{name}' are tested on."
    unlabelled = "'test' (2 images) has no class folders: its images are unlabelled and not used."
    assert caplog.messages == [said, unlabelled, said]
    assert data.describe(f"folder:{two_parts}").tested_on == f"from its folder '{name}'"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"), ("Train", "Test"), ("TRAIN", "Val"), ("seg_train", "seg_test"),
        ("train set", "test_set"), ("seg_train/seg_train", "seg_test/seg_test"), ("train/images", "valid/images"),
        ("data/train", "data/test"), ("a/b/train_data", "a/b/test_data"),
    ],
)  # fmt: skip
def test_other_usual_names_of_the_two_parts(two_parts, tmp_path_factory, caplog, train, test):
    expected = load(two_parts)
    root = tmp_path_factory.mktemp("renamed")
    for name, as_name in (("train", train), ("test", test)):
        shutil.copytree(two_parts / name, root / as_name)
    found = load(root)
    assert found.class_names == expected.class_names
    assert (reds(found.train), reds(found.test)) == (reds(expected.train), reds(expected.test))
    assert bool(caplog.messages) == ("val" in test.lower()), "none of them brings test images"
    info = data.describe(f"folder:{root}")
    assert (info.train_images, info.test_images, info.classes) == (10, 4, 2)
    assert bool(info.tested_on) == ("val" in test.lower())
    numbered(root / train / "cat", 1, first=200)
    assert data.describe(f"folder:{root}").train_images == 11


@pytest.mark.parametrize("name", ["train-station", "test tube", "training shoes", "contest", "latest", "trainings"])
def test_names_of_classes_are_no_parts(name):
    assert layout.split_of(name) is None


def test_a_folder_around_the_classes_is_looked_into(one_part, tmp_path_factory):
    root = tmp_path_factory.mktemp("around")
    shutil.copytree(one_part, root / "animals" / "photos")
    (root / ".hidden").mkdir()
    assert load(root).class_names == ("cat", "dog", "eel")
    (root / "loop").symlink_to(root)
    assert load(root).class_names == ("cat", "dog", "eel"), "a circle of links is followed once"


def test_a_stray_picture_in_train_alone_changes_nothing(two_parts):
    shutil.rmtree(two_parts / "test")
    expected = load(two_parts)
    picture(two_parts / "train" / "cover.png")
    picture(two_parts / ".thumbnails" / "1.png")
    found = load(two_parts)
    assert found.class_names == expected.class_names == ("cat", "dog")
    assert reds(found.train) == reds(expected.train)


def test_a_folder_train_with_folders_among_classes_is_left_out(one_part):
    """Its images lie too deep for a class, and the others are plainly classes."""
    numbered(one_part / "train" / "steam", 3)
    assert load(one_part).class_names == ("cat", "dog", "eel")


def test_test_comes_before_validation(two_parts):
    shutil.copytree(two_parts / "train", two_parts / "val")
    assert reds(load(two_parts).test) == [100, 101, 110, 111]


def test_train_alone_is_split(two_parts):
    shutil.rmtree(two_parts / "test")
    d = load(two_parts, test_fraction=0.4)
    assert sorted(reds(d.train) + reds(d.test)) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert np.bincount(d.test.labels).tolist() == [2, 2]


@pytest.mark.parametrize(("fraction", "held_out"), [(0.2, 2), (0.5, 5), (0.01, 1), (0.99, 9)])
def test_one_folder_is_split_by_the_fraction(one_part, fraction, held_out):
    d = load(one_part, test_fraction=fraction)
    assert np.bincount(d.test.labels).tolist() == [held_out] * 3
    everything = [20 * k + i for k in range(3) for i in range(10)]
    assert sorted(reds(d.train) + reds(d.test)) == everything


def test_the_split_follows_the_seed(one_part):
    first, again, other = (reds(load(one_part, seed=s).test) for s in (1, 1, 2))
    assert first == again != other


def test_the_split_does_not_depend_on_the_resolution(one_part):
    assert reds(load(one_part, resolution=8).test) == reds(load(one_part, resolution=32).test)


def test_grey_pictures_make_a_grey_data_set(tmp_path):
    for name in "ab":
        numbered(tmp_path / name, 4, mode="L")
    assert load(tmp_path).channels == 1


def test_one_coloured_picture_makes_a_coloured_data_set(tmp_path):
    for name in "ab":
        numbered(tmp_path / name, 4, mode="L")
    numbered(tmp_path / "a", 2, first=4)  # one of them at least is trained on
    assert load(tmp_path, test_fraction=0.1).channels == 3


def test_a_rare_coloured_picture_is_seen(tmp_path):
    """Grey only if all of them are grey, also in a folder too large to look at quickly."""
    for name in "ab":
        for i in range(225):
            picture(tmp_path / "train" / name / f"{i:03}.png", (i, i, i), (8, 8), "L")
        numbered(tmp_path / "test" / name, 1, mode="L")
    picture(tmp_path / "train" / "a" / "101.png", (255, 0, 0), (8, 8))
    assert load(tmp_path, resolution=8).channels == 3


def test_sizes_and_formats_may_be_mixed(tmp_path):
    for name in "ab":
        picture(tmp_path / name / "1.PNG", size=(40, 10))
        picture(tmp_path / name / "2.Jpeg", size=(5, 70))
        picture(tmp_path / name / "3.gif", size=(16, 16))
        picture(tmp_path / name / "4.webp", size=(1, 1))
        picture(tmp_path / name / "5.bmp", size=(300, 200))
    d = load(tmp_path, resolution=24)
    assert len(d.train) + len(d.test) == 10
    assert d.train.images.shape[1:] == (24, 24, 3)
    assert np.abs(d.train.images.astype(int) - (9, 99, 199)).max() < 40


def test_the_usual_resolution_is_32(two_parts):
    assert data.load(f"folder:{two_parts}").resolution == 32


def test_broken_pictures_are_skipped_counted_and_named(two_parts, caplog):
    broken = [two_parts / "train" / "cat" / "002.png", two_parts / "test" / "dog" / "110.png"]
    broken[0].write_bytes(b"no image")
    broken[1].write_bytes(broken[1].read_bytes()[:50])
    with caplog.at_level(logging.WARNING, "iekd"):
        d = load(two_parts)
    assert reds(d.train) == [0, 1, 3, 4, 10, 11, 12, 13, 14]
    assert d.train.labels.tolist() == [0] * 4 + [1] * 5
    assert reds(d.test) == [100, 101, 111]
    assert d.skipped == tuple(map(str, broken))
    for path in broken:
        assert str(path) in caplog.text
    assert "2 of 14" in caplog.text


def test_each_image_knows_its_file(two_parts):
    """Also what is left after broken ones, a limit and held-out images."""
    (two_parts / "train" / "cat" / "001.png").write_bytes(b"broken")
    d = load(two_parts).limited(7, seed=1).held_out(0.4, seed=1)
    for split in (d.train, d.validation, d.test, d.train.joined(d.test)):
        names = [Path(split.image_files[i]) for i in range(len(split))]
        assert [int(name.stem) for name in names] == reds(split)
        assert [d.class_names.index(name.parent.name) for name in names] == split.labels.tolist()
    assert data.load("fashion-mnist-sample").test.image_files is None


def test_other_files_and_hidden_ones_are_no_pictures(two_parts):
    (two_parts / "train" / "cat" / "notes.txt").write_text("hello")
    (two_parts / "train" / "cat" / ".hidden.png").write_bytes(b"")
    (two_parts / "train" / "cat" / "Thumbs.db").write_bytes(b"")
    (two_parts / "train" / ".git").mkdir()
    (two_parts / "train" / "empty").mkdir()
    (two_parts / "train" / "readme.md").write_text("")
    d = load(two_parts)
    assert d.class_names == ("cat", "dog")
    assert len(d.train) == 10
    assert d.skipped == ()


def test_odd_names_are_kept(tmp_path):
    names = ("Grüße 世界", "a b  c", "x'y\"z", "[red]", "50%")
    for name in names:
        picture(tmp_path / name / "ein Bild (1) ☃.png")
        picture(tmp_path / name / "-2.png")
    d = load(tmp_path)
    assert sorted(d.class_names) == sorted(names)
    assert len(d.train) == len(d.test) == 5


def test_folders_that_are_no_classes_are_named(one_part, caplog):
    """A class whose pictures are all of another kind would be missed without a word."""
    (one_part / "fox").mkdir()
    (one_part / "fox" / "a.xcf").write_bytes(b"gimp")
    (one_part / ".git").mkdir()
    with caplog.at_level(logging.WARNING):
        assert load(one_part).class_names == ("cat", "dog", "eel")
    assert [r.getMessage() for r in caplog.records] == [
        "No images that can be read lie in 'fox': not used as a class.", "Files that are not used: 1 .xcf.",
    ]  # fmt: skip
    (one_part / "cat" / "000.png").rename(one_part / "cat" / "000.JFIF")
    assert len(load(one_part).train) + len(load(one_part).test) == 30


def test_names_that_are_not_utf8_are_spelt_out(tmp_path):
    """From an old disk or a Latin-1 archive: reports, pages and logs must be able to carry them."""
    for name in (b"caf\xe9", b"caf\xe8", b"tea"):
        place = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
        try:
            picture(place / "a.png")
        except OSError:
            pytest.skip("this file system takes UTF-8 names alone")
        picture(place / "b.png")
    (place.parent / os.fsdecode(b"caf\xe8") / os.fsdecode(b"broken\xff.png")).write_bytes(b"")
    d = load(tmp_path, test_fraction=0.5)
    assert d.class_names == ("caf\\udce8", "caf\\udce9", "tea")
    assert [name.rpartition("/")[2] for name in d.skipped] == ["broken\\udcff.png"]
    assert len(d.train) + len(d.test) == 6
    shown = [label for _, label in data.thumbnails(f"folder:{tmp_path}", 1)]
    assert set(shown) <= set(d.class_names)
    assert "caf\\udce9" in shown


def test_no_images(tmp_path, refuses):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("")
    refuses(lambda: load(tmp_path), tmp_path, "No images", kind=DataError)


def test_pictures_without_class_folders(tmp_path, refuses):
    numbered(tmp_path, 3)
    refuses(lambda: load(tmp_path), tmp_path, "sub-folder", kind=DataError)


def test_one_class(tmp_path, refuses):
    numbered(tmp_path / "cat", 3)
    refuses(lambda: load(tmp_path), "cat", "two", kind=DataError)


def test_a_class_with_one_picture_cannot_be_split(one_part, refuses):
    picture(one_part / "zebra" / "1.png")
    refuses(lambda: load(one_part), "zebra", "one image", kind=DataError)


def test_a_class_that_is_only_tested(two_parts, refuses):
    numbered(two_parts / "test" / "zebra", 2)
    refuses(lambda: load(two_parts), "zebra", "train", kind=DataError)


def test_a_class_that_is_broken_throughout(two_parts, refuses):
    for path in (two_parts / "train" / "dog").iterdir():
        path.write_bytes(b"broken")
    refuses(lambda: load(two_parts), "dog", kind=DataError)


def test_a_test_part_that_is_broken_throughout(two_parts, refuses):
    for path in (two_parts / "test").rglob("*.png"):
        path.write_bytes(b"broken")
    refuses(lambda: load(two_parts), "test image", kind=DataError)


def test_test_without_train(two_parts, refuses):
    shutil.rmtree(two_parts / "train")
    refuses(lambda: load(two_parts), "train", kind=DataError)


def test_a_class_may_be_called_train_or_test(tmp_path):
    for k, name in enumerate(("car", "plane", "test", "train")):
        numbered(tmp_path / name, 5, first=10 * k)
    d = load(tmp_path)
    assert d.class_names == ("car", "plane", "test", "train")
    assert (len(d.train), len(d.test)) == (16, 4)


def test_a_stray_picture_beside_the_classes_leaves_the_parts_what_they_are(two_parts):
    picture(two_parts / "train" / "cover.png")
    picture(two_parts / "test" / "cover.png")
    d = load(two_parts)
    assert d.class_names == ("cat", "dog")
    assert (len(d.train), len(d.test)) == (10, 4)


def test_no_such_folder(tmp_path, refuses):
    refuses(lambda: load(tmp_path / "nowhere"), tmp_path / "nowhere", kind=UserError)


def test_an_empty_name_is_no_folder(refuses):
    refuses(lambda: data.check_name("folder:"), "folder", kind=UserError)


def test_nothing_in_the_folder_changes(two_parts):
    def tree():
        return {p: p.stat().st_mtime_ns for p in two_parts.rglob("*")}

    before = tree()
    load(two_parts)
    data.describe(f"folder:{two_parts}")
    data.thumbnails(f"folder:{two_parts}")
    assert tree() == before


def test_describing_counts_files(two_parts):
    info = data.describe(f"folder:{two_parts}", 0.5)
    assert (info.train_images, info.test_images, info.classes, info.tested_on) == (10, 4, 2, "")


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_describing_counts_what_will_be_drawn(one_part, fraction):
    info, drawn = data.describe(f"folder:{one_part}", fraction), load(one_part, test_fraction=fraction)
    assert (info.train_images, info.test_images) == (len(drawn.train), len(drawn.test))
    assert info.tested_on == "drawn by chance"


@pytest.mark.parametrize("layout", ["two_parts", "one_part"])
def test_files_are_counted_anew_only_where_some_have_come_or_gone(request, layout, monkeypatch):
    """The form asks at every change of a setting; a large folder takes seconds to scan."""
    root, parts = request.getfixturevalue(layout), ("train", "test") if layout == "two_parts" else ("",)
    read_tree, scans = folder.read_tree, []
    monkeypatch.setattr(folder, "read_tree", lambda *args: scans.append(args) or read_tree(*args))

    def counted() -> tuple[int, int]:
        info = data.describe(f"folder:{root}")
        return info.train_images + info.test_images, info.classes

    def touch(place: Path) -> None:
        """A clock's tick may be longer than this test."""
        later = place.stat().st_mtime_ns + 10**9
        os.utime(place, ns=(later, later))

    images, classes = counted()
    assert counted() == (images, classes)
    assert len(scans) == 1
    for i, part in enumerate(parts, 1):
        numbered(root / part / "dog", 30, first=200)
        touch(root / part / "dog")
        assert counted() == (images + 30 * i, classes)
    for part in parts:
        shutil.copytree(root / part / "dog", root / part / "fox")
        touch(root / part)
    assert counted()[1] == classes + 1
    assert len(scans) == 2 + len(parts)


def test_a_folder_that_cannot_be_listed(two_parts, refuses, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refused)
    for use in (data.describe, data.load):
        refuses(lambda use=use: use(f"folder:{two_parts}"), two_parts, "Permission denied", kind=DataError)


def test_thumbnails_skip_what_is_broken(two_parts):
    (two_parts / "test" / "cat" / "100.png").write_bytes(b"broken")
    shown = data.thumbnails(f"folder:{two_parts}", 2)
    assert [name for _, name in shown] == ["cat", "dog", "dog"]
    assert all(image.dtype == np.uint8 and image.ndim == 3 for image, _ in shown)


@pytest.mark.skipif(not REAL.is_file(), reason="../shared/data/cifar10-jpeg.tar.xz is not beside this checkout")
def test_real_photographs(tmp_path):
    """A few hundred JPEG files of CIFAR-10, as people keep theirs."""
    with tarfile.open(REAL) as archive:
        for taken, member in enumerate(m for m in archive if m.isfile()):
            parts = Path(member.name).parts[-3:]
            path = tmp_path / "all" / parts[1] / f"{parts[0]}-{parts[2]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.extractfile(member).read())
            if taken >= 5_100:
                break
    d = data.load(f"folder:{tmp_path / 'all'}")
    assert len(d.class_names) >= 2
    assert (d.channels, d.resolution, d.skipped) == (3, 32, ())
    assert len(d.train) + len(d.test) == 5_101
    mean, std = d.statistics
    assert all(0.2 < m < 0.8 for m in mean)
    assert all(0.1 < s < 0.4 for s in std)
