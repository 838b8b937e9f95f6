"""Trees of folders as people really have them, read from disk and from a zip: the same answer, or the same refusal."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iekd import data
from iekd.data import layout
from iekd.errors import DataError


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value % 256, value // 256, 7)).save(file, "PNG")
    return file.getvalue()


class Tree:
    """Files by path; images differ from each other."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0

    def add(self, *paths: str, content: bytes | None = None) -> Tree:
        for path in paths:
            for expanded in [path.replace("#", str(i)) for i in range(3)] if "#" in path else [path]:
                target = self.root / expanded
                target.parent.mkdir(parents=True, exist_ok=True)
                self.count += 1
                target.write_bytes(png(self.count) if content is None else content)
        return self

    def zipped(self) -> Path:
        path = self.root.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(self.root.rglob("*")):
                archive.write(file, file.relative_to(self.root).as_posix())
        return path


@pytest.fixture(params=["folder", "zip"])
def tree(request, tmp_path, monkeypatch):
    """A tree, and what describes it: the folder itself, or a zip of it."""
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    tree = Tree(tmp_path / "images")

    def describe(option: str = "") -> data.DatasetInfo:
        return data.describe(f"folder:{tree.root if request.param == 'folder' else tree.zipped()}{option}")

    tree.describe = describe
    tree.load = lambda option="": data.load(describe(option).name, resolution=8)
    return tree


def refused(tree: Tree, *words: str) -> str:
    with pytest.raises(DataError) as caught:
        tree.describe()
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)


def notes(info: data.DatasetInfo) -> str:
    return " | ".join(info.notes)


def test_flat_folders_for_training_and_testing_are_not_two_classes(tree):
    tree.add("train/a#.jpg", "test/b#.jpg")
    refused(tree, "no sub-folder per class", "'test' (3 images)", "'train' (3 images)", "folder per class")


def test_classes_in_file_names_are_recognised(tree):
    tree.add("train/cat.#.jpg", "train/dog.#.jpg", "test1/#.jpg")
    refused(tree, "class seems to be in the names of the files", "'cat', 'dog'", "labels.csv")


def test_a_table_of_labels_is_read_and_what_it_does_not_list_is_said(tree):
    tree.add("train/a#.jpg", "train/b#.jpg", "test/c#.jpg")
    tree.add("labels.csv", content=b"id,breed\na0,pug\na1,pug\na2,boxer\nb0,boxer\nb1,pug\nb2,boxer\n")
    tree.add("sample_submission.csv", content=b"id,label\nc0,pug\nc1,pug\nc2,pug\n")
    info = tree.describe()
    assert (info.class_names, info.class_sizes, info.test_sizes) == (("boxer", "pug"), (2, 2), (1, 1))
    assert info.test_is_drawn
    assert "'labels.csv' (column 'breed')" in notes(info)
    assert "3 images have no class in 'labels.csv'" in notes(info)


def test_a_table_of_other_files_is_named_and_not_used(tree):
    tree.add("train/a#.jpg", "test/c#.jpg").add("labels.csv", content=b"id,label\nx0,pug\nx1,pug\nx2,boxer\n")
    refused(tree, "labels may be in 'labels.csv'", "do not fit")


def test_a_folder_that_holds_the_classes_again_is_not_a_class(tree):
    for around in ("cells/", "cells/cells/"):
        tree.add(f"{around}sick/#.png", f"{around}well/#.png")
    info = tree.describe()
    assert info.class_names == ("sick", "well")
    assert info.train_images + info.test_images == 6
    assert "cells/cells' (6 images) is not used" in notes(info)


def test_several_datasets_in_one_folder_are_named(tree):
    for kind in ("color", "grey"):
        tree.add(f"plants/{kind}/apple/#.png", f"plants/{kind}/pear/#.png")
    said = refused(tree, "several datasets", "'color', 'grey'", "'apple', 'pear'", "plants/color")
    assert "classes=outer" in said
    assert tree.describe("?classes=outer").class_names == ("color", "grey")
    merged = tree.describe("?classes=inner")
    assert (merged.class_names, merged.train_images + merged.test_images) == (("apple", "pear"), 12)


def test_classes_in_classes_are_a_question_with_two_answers(tree):
    for split in ("train", "test"):
        tree.add(f"cifar/{split}/fish/ray/#.png", f"cifar/{split}/fish/shark/#.png")
        tree.add(f"cifar/{split}/mammal/seal/#.png", f"cifar/{split}/mammal/whale/#.png")
    refused(tree, "'fish', 'mammal' the classes", "the 4 folders inside", "'?classes=outer'")
    assert tree.describe("?classes=outer").class_names == ("fish", "mammal")
    inner = tree.describe("?classes=inner")
    assert inner.class_names == ("ray", "seal", "shark", "whale")
    assert (inner.class_sizes, inner.test_sizes) == ((3,) * 4, (3,) * 4)
    assert len(tree.load("?classes=inner").train) == 12


def test_another_answer_is_refused(tree):
    tree.add("a/#.png", "b/#.png")
    with pytest.raises(DataError, match="classes=outer"):
        tree.describe("?classes=both")


def test_an_unlabelled_test_folder_beside_classes_is_named(tree):
    tree.add("cat/#.png", "dog/#.png", "test1/#.png")
    info = tree.describe()
    assert info.class_names == ("cat", "dog")
    assert "'test1' (3 images) has no class folders: its images are unlabelled" in notes(info)


@pytest.mark.parametrize("test", ["test/#.png", "test/images/#.png", "test/unknown/#.png"])
def test_an_unlabelled_test_folder_beside_train_is_named_and_test_images_are_drawn(tree, test):
    tree.add("train/cat/#.png", "train/dog/#.png", test)
    info = tree.describe()
    assert (info.class_names, info.test_is_drawn) == (("cat", "dog"), True)
    assert "unlabelled" in notes(info)


@pytest.mark.parametrize("flat", ["unlabeled/#.png", "test/#.png"])
def test_unlabelled_images_beside_one_folder_with_all_classes(tree, flat):
    tree.add("labeled/cat/#.png", "labeled/dog/#.png", flat)
    info = tree.describe()
    assert info.class_names == ("cat", "dog")
    assert "(3 images) has no class folders: its images are unlabelled" in notes(info)


@pytest.mark.parametrize(
    "folders", [("images", "masks"), ("JPEGImages", "Annotations"), ("train", "dev"), ("train2017", "val2017")]
)
def test_images_beside_what_belongs_to_them_are_not_classes(tree, folders):
    for folder in folders:
        tree.add(f"{folder}/#.png")
    refused(tree, "no sub-folder per class")


def test_training_and_testing_within_each_class(tree):
    for name in ("cat", "dog"):
        tree.add(f"{name}/train/#.png", f"{name}/train/x#.png", f"{name}/val/#.png")
    info = tree.describe()
    assert (info.class_names, info.class_sizes, info.test_sizes) == (("cat", "dog"), (6, 6), (3, 3))
    assert info.tested_on == "from its folder 'val'"
    assert sorted(np.bincount(tree.load().train.labels).tolist()) == [6, 6]


def test_tables_of_windows_and_of_other_machines(tree):
    tree.add("train/#.png", "train/x#.png", "unused/y#.png")
    rows = "".join(f"C:\\data\\train\\{name}.png;{label}\r\n" for name, label in zip(
        ("0", "1", "2", "x0", "x1", "x2"), ("Grün", "Rot") * 3, strict=True))  # fmt: skip
    tree.add("labels.csv", content=("\ufeffDatei;class\r\n" + rows).encode())
    assert tree.describe().class_names == ("Grün", "Rot")


def test_tiny_imagenet_with_its_annotations(tree):
    """Class folders around images/, validation images in one folder with a table that has no titles."""
    tree.add("t/train/n01/images/n01_#.JPEG", "t/train/n02/images/n02_#.JPEG", "t/test/images/test_#.JPEG")
    tree.add("t/train/n01/n01_boxes.txt", content=b"n01_0.JPEG\t0\t0\t9\t9\nn01_1.JPEG\t0\t0\t8\t8\n")
    tree.add("t/val/images/val_#.JPEG")
    lines = [b"val_0.JPEG\tn01\t0\t32\t44\t62", b"val_1.JPEG\tn02\t52\t55\t57\t59", b"val_2.JPEG\tn02\t4\t0\t60\t55"]
    tree.add("t/val/val_annotations.txt", content=b"\n".join(lines) + b"\n")
    info = tree.describe()
    assert (info.class_names, info.class_sizes, info.test_sizes) == (("n01", "n02"), (3, 3), (1, 2))
    assert "val_annotations.txt" in notes(info)
    assert "test' (3 images) has no class folders" in notes(info)


def test_gtsrb_with_one_table_for_both_parts(tree):
    tree.add("Train/0/#.png", "Train/10/#.png", "Train/2/#.png", "Test/0000#.png")
    tree.add("Test.csv", content=b"Width;ClassId;Path\n8;10;Test/00000.png\n8;2;Test/00001.png\n8;0;Test/00002.png\n")
    info = tree.describe()
    assert info.class_names == ("0", "2", "10"), "by value"
    assert info.test_sizes == (1, 1, 1)


def test_one_hot_tables_and_columns_for_the_parts(tree):
    tree.add("img/#.png", "img/x#.png")
    listed = (
        ("0", 1, "train"), ("1", 0, "train"), ("2", 1, "test"), ("x0", 0, "test"), ("x1", 1, "train"),
        ("x2", 0, "train"),
    )  # fmt: skip
    rows = "\n".join(f"{name},{mel},{1 - mel},{part}" for name, mel, part in listed)
    tree.add("truth.csv", content=f"image,MEL,NV,split\n{rows}\n".encode())
    info = tree.describe()
    assert (info.class_names, info.class_sizes, info.test_sizes) == (("MEL", "NV"), (2, 2), (1, 1))


def test_a_table_with_several_possible_columns_asks(tree):
    tree.add("#.png", "x#.png")
    names = ("0", "1", "2", "x0", "x1", "x2")
    rows = "\n".join(f"{n},{c},{d}" for n, c, d in zip(names, "ababab", "ccdccd", strict=True))
    tree.add("animals.csv", content=f"file,family,colour\n{rows}\n".encode())
    refused(tree, "family, colour", "?label=COLUMN")
    name = f"csv:{tree.root}/animals.csv"
    assert data.describe(f"{name}?label=colour").class_names == ("c", "d")
    assert data.load(f"{name}?label=family", resolution=8).class_names == ("a", "b")
    with pytest.raises(DataError, match=r"no column 'size'.*family, colour"):
        data.describe(f"{name}?label=size")


def test_what_a_table_says_twice_and_differently_is_refused(tree):
    tree.add("#.png", "x#.png").add("labels.csv", content=b"file,label\n0.png,a\n1.png,b\n2.png,a\n0.png,b\n")
    refused(tree, "lists '0.png' twice", "'a'", "'b'")


def test_a_table_by_its_own_name(tmp_path):
    tree = Tree(tmp_path).add("pictures/#.png", "pictures/b/#.png")
    table = (
        b"path,label\npictures/0.png,cat\npictures/1.png,dog\npictures/2.png,cat\npictures/b/0.png,dog\n"
        b"nowhere.png,dog\n"
    )
    tree.add("my.csv", content=table)
    info = data.describe(f"csv:{tmp_path}/my.csv")
    assert (info.class_names, info.class_sizes, info.test_sizes) == (("cat", "dog"), (1, 1), (1, 1))
    assert "1 rows of 'my.csv' name files that are not there, such as 'nowhere.png'" in notes(info)
    assert "2 images have no class in 'my.csv'" in notes(info)
    (tmp_path / "my.csv").write_bytes(table.replace(b"dog", b"eel"))
    assert data.describe(f"csv:{tmp_path}/my.csv").class_names == ("cat", "eel"), "an edit is seen"
    for name, words in (("none.csv", "no file"), ("pictures/0.png", "does not list")):
        with pytest.raises(DataError, match=words):
            data.describe(f"csv:{tmp_path}/{name}")


def test_files_that_are_left_out_are_counted_by_ending_and_archives_are_named(tree):
    tree.add("a/#.png", "b/#.png").add("a/x#.svg", "b/y.pdf", "b/part.zip", content=b"?")
    said = notes(tree.describe())
    assert "Files that are not used: 3 .svg, 1 .pdf." in said
    assert "Archives inside are not looked into: 'b/part.zip'" in said


def test_files_without_an_ending_are_looked_into(tree):
    tree.add("a/#", "b/#").add("a/notes", content=b"hello")
    info = tree.describe()
    assert info.train_images + info.test_images == 6
    assert "1 without an ending" in notes(info)
    assert len(tree.load().train) == info.train_images


def test_images_in_folders_of_a_class_are_of_that_class_and_it_is_said(tree):
    tree.add("cat/#.png", "dog/2023/#.png", "dog/2024/#.png")
    info = tree.describe()
    assert info.class_names == ("cat", "dog")
    assert info.train_images + info.test_images == 9
    assert "'dog' is taken as one class" in notes(info)


def test_images_beside_the_classes_are_counted(tree):
    tree.add("cat/#.png", "dog/#.png", "cover.png")
    assert "1 images" in notes(tree.describe())
    assert "lie in no class folder" in notes(tree.describe())


def test_more_than_one_folder_to_test_with(tree):
    for split in ("train", "val", "test"):
        tree.add(f"{split}/cat/#.png", f"{split}/dog/#.png")
    info = tree.describe()
    assert info.tested_on == ""
    assert "'val' (6 images) is not used: 'test' is tested on" in notes(info)


def test_a_test_folder_with_some_classes_says_which_are_missing(tree):
    tree.add("train/cat/#.png", "train/dog/#.png", "test/cat/#.png")
    info = tree.describe()
    assert info.test_sizes == (3, 0)
    assert "No test images of the class 'dog'" in notes(info)


def test_class_names_that_differ_by_a_space_say_so(tree):
    if "zip" in str(type(tree.describe)):
        pytest.skip("a zip's names are trimmed")
    tree.add("train/cat/#.png", "train/dog/#.png", "test/Cat/#.png", "test/dog/#.png")
    refused(tree, "'Cat'", "is called 'cat'", "spaces, capitals")


def test_numbers_are_sorted_by_value_and_the_draw_stays_what_it_was(tmp_path):
    tree = Tree(tmp_path / "n")
    for name in ("1", "2", "10"):
        tree.add(*(f"{name}/{i}.png" for i in range(10)))
    found = data.load(f"folder:{tree.root}", resolution=8)
    as_text = data.load(f"folder:{tree.root}", resolution=8, class_order=("text",))
    assert (found.class_names, as_text.class_names) == (("1", "2", "10"), ("1", "10", "2"))
    assert np.array_equal(found.test.images, as_text.test.images)
    assert [found.class_names[k] for k in found.test.labels] == [as_text.class_names[k] for k in as_text.test.labels]
    assert data.describe(f"folder:{tree.root}", class_order=("2", "1", "10")).class_names == ("2", "1", "10")
    for wrong, words in ((("1", "2"), "'10' is missing"), (("1", "2", "11"), "'11' is not among"),
                         (("1", "2", "10", "1"), "twice")):  # fmt: skip
        with pytest.raises(DataError, match=words):
            data.load(f"folder:{tree.root}", resolution=8, class_order=wrong)


def test_copies_of_training_images_among_the_test_images(tmp_path):
    tree = Tree(tmp_path).add("train/a/#.png", "train/b/#.png", "test/a/#.png", "test/b/#.png")
    assert not data.describe(f"folder:{tmp_path}").notes
    (tmp_path / "test/a/0.png").write_bytes((tmp_path / "train/b/1.png").read_bytes())
    tree.add("test/a/new.png")  # a folder has changed
    said = notes(data.describe(f"folder:{tmp_path}"))
    assert "1 of 7 test images are exact copies of training images ('0.png')" in said
    for memory in (None, 0.0):  # in memory, and in their files
        loaded = data.load(f"folder:{tmp_path}", resolution=8, image_memory=memory)
        assert [n for n in loaded.notes if "1 of 7 test images are equal to training images ('0.png')" in n]
    Image.open(tmp_path / "train/b/1.png").save(tmp_path / "test/a/0.bmp")  # the same pixels, other bytes
    (tmp_path / "test/a/0.png").unlink()
    assert "equal to training images ('0.bmp')" in notes(data.load(f"folder:{tmp_path}", resolution=8))


def test_images_that_only_have_the_same_sums_are_not_copies(tmp_path):
    """Streamed images are compared by their sums first, and those of a mirrored image are the same."""
    for split, flip in (("train", 1), ("test", -1)):
        for k, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = np.random.default_rng([k, i]).integers(0, 256, (8, 8, 3), np.uint8)[:, ::flip]
                Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / split / name / f"{i}.png")
    assert not data.load(f"folder:{tmp_path}", resolution=8, image_memory=0.0).notes


def test_more_files_than_any_dataset_has(tmp_path, monkeypatch):
    Tree(tmp_path).add("a/#.png", "b/#.png")
    monkeypatch.setattr("iekd.data.tree.MOST_FILES", 5)
    with pytest.raises(DataError, match="more than 5 files"):
        data.describe(f"folder:{tmp_path}")


def test_split_names():
    assert [layout.split_of(n) for n in ("train", "test1", "Validation", "seg_test", "testing")] == [
        "train", "test", "validation", "test", "test",
    ]  # fmt: skip


def test_images_far_from_square_are_spoken_of(tmp_path):
    for k, name in enumerate("ab"):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (24, 8), (k, i, 0)).save(tmp_path / name / f"{i}.png")
    name = f"folder:{tmp_path}"
    assert "3.0 times as long as wide" in notes(data.describe(name))
    assert "3.0 times as long as wide" in notes(data.load(name, resolution=8))
    assert not data.load(name, resolution=8, fit="squash").notes


def test_colours_of_16_bits_are_spoken_of(tmp_path):
    """Pillow reads the upper half of each value, and no more."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    for k, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        for i in range(2):
            rows = b"".join(b"\0" + struct.pack(">24H", *[4000 + k + i] * 24) for _ in range(8))
            head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
            parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
            (tmp_path / name / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert "colour images have 16 bits" in notes(data.describe(f"folder:{tmp_path}"))
