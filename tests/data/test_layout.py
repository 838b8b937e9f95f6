"""Trees of folders as people really have them, read from disk and from a zip: the same answer, or the same refusal."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from iekd import data
from iekd.data import decoding, header_notes, layout
from iekd.errors import DataError


def refused(tree, *words: str) -> str:
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


def test_several_datasets_beside_a_folder_of_images_are_asked_about(tree):
    """Rock, paper, scissors of Kaggle."""
    for folder in ("rps/rps", "rps-test-set/rps-test-set"):
        tree.add(f"{folder}/paper/#.png", f"{folder}/rock/#.png")
    tree.add("rps-cv-images/#.png")
    refused(tree, "several datasets", "'rps', 'rps-test-set'", "'paper', 'rock'")


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
    assert "Not used: 1 image in" in notes(tree.describe())
    assert "outside of the class folders" in notes(tree.describe())


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
    tree.add("train/cat/#.png", "train/dog/#.png", "test/Cat/#.png", "test/dog/#.png")
    refused(tree, "'Cat'", "is called 'cat'", "spaces, capitals")


def test_numbers_are_sorted_by_value_and_the_draw_stays_what_it_was(files):
    tree = files
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


def test_copies_of_training_images_among_the_test_images(files, tmp_path):
    tree = files.add("train/a/#.png", "train/b/#.png", "test/a/#.png", "test/b/#.png")
    assert not data.describe(f"folder:{tmp_path}").notes
    (tmp_path / "test/a/0.png").write_bytes((tmp_path / "train/b/1.png").read_bytes())
    tree.add("test/a/new.png")  # a folder has changed
    said = notes(data.describe(f"folder:{tmp_path}"))
    assert "1 of 7 test images is an exact copy of a training image ('0.png')" in said
    for memory in (None, 0.0):  # in memory, and in their files
        loaded = data.load(f"folder:{tmp_path}", resolution=8, image_memory=memory)
        assert [n for n in loaded.notes if "1 of 7 test images is equal to a training image ('0.png')" in n]
    Image.open(tmp_path / "train/b/1.png").save(tmp_path / "test/a/0.bmp")  # the same pixels, other bytes
    (tmp_path / "test/a/0.png").unlink()
    assert "equal to a training image ('0.bmp')" in notes(data.load(f"folder:{tmp_path}", resolution=8))


def test_images_that_only_have_the_same_sums_are_not_copies(tmp_path):
    """Streamed images are compared by their sums first, and those of a mirrored image are the same."""
    for split, flip in (("train", 1), ("test", -1)):
        for k, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = np.random.default_rng([k, i]).integers(0, 256, (8, 8, 3), np.uint8)[:, ::flip]
                Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / split / name / f"{i}.png")
    assert not data.load(f"folder:{tmp_path}", resolution=8, image_memory=0.0).notes


def test_more_files_than_any_dataset_has(files, tmp_path, monkeypatch):
    files.add("a/#.png", "b/#.png")
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


def test_folders_that_know_each_other_by_their_names(tree):
    """The ASL alphabet of Kaggle: neither name says train or test alone, and the test images have no folders."""
    tree.add("asl_train/asl_train/A/#.png", "asl_train/asl_train/B/#.png", "asl_test/asl_test/A_test.png")
    info = tree.describe()
    assert (info.class_names, info.test_is_drawn) == (("A", "B"), True)
    assert "asl_test' (1 image) has no class folders" in notes(info)
    tree.add("asl_test/A/x#.png", "asl_test/B/x#.png")
    (tree.root / "asl_test/asl_test/A_test.png").unlink()
    info = tree.describe()
    assert (info.class_names, info.test_sizes, info.tested_on) == (("A", "B"), (3, 3), "")


def test_flat_folders_that_know_each_other_by_their_names(tree):
    tree.add("fruits_train/#.png", "fruits_test/#.png")
    refused(tree, "no sub-folder per class")


@pytest.mark.parametrize(
    "folders", [("trainA", "trainB", "testA", "testB"), ("cat_train", "dog_train", "cat_val", "dog_val")]
)
def test_names_of_class_and_part_in_one_are_refused(tree, folders):
    tree.add(*(f"{folder}/#.png" for folder in folders))
    refused(tree, "say both a class", f"'{min(folders)}'", "classes=outer")
    assert tree.describe("?classes=outer").class_names == tuple(sorted(folders))


def test_test_tubes_are_a_class(tree):
    tree.add("test_tube/#.png", "beaker/#.png", "flask/#.png")
    assert tree.describe().class_names == ("beaker", "flask", "test_tube")


@pytest.mark.parametrize("name", ["images_00{}", "HAM10000_images_part_{}", "data_batch_{}", "part{}"])
def test_parts_of_one_dataset_are_no_classes(tree, name):
    tree.add(*(f"{name.format(i)}/{i}x#.png" for i in (1, 2)))
    refused(tree, "no sub-folder per class", "If these folders are the classes", "classes=outer")
    assert tree.describe("?classes=outer").class_names == (name.format(1), name.format(2))
    rows = "".join(f"{i}x{j}.png,{'mel' if i == j else 'nv'}\n" for i in (1, 2) for j in range(3))
    tree.add("truth.csv", content=f"image,dx\n{rows}".encode())
    info = tree.describe()
    assert info.class_names == ("mel", "nv")
    assert info.train_images + info.test_images == 6


def test_numbered_classes_are_classes(tree):
    tree.add("class_1/#.png", "class_2/#.png", "class_10/#.png")
    assert tree.describe().class_names == ("class_1", "class_10", "class_2")


def test_masks_are_not_trained_on(tree):
    tree.add("COVID/images/#.png", "COVID/masks/#.png", "normal/images/#.png", "normal/masks/#.png")
    tree.add("benign/benign (#).png", "benign/benign (#)_mask.png", "benign/benign (0)_mask_1.png")
    info = tree.describe()
    assert info.class_names == ("COVID", "benign", "normal")
    assert [a + b for a, b in zip(info.class_sizes, info.test_sizes, strict=True)] == [3, 3, 3]
    assert "Not used: 6 images in folders called 'masks'" in notes(info)
    assert "Not used: 4 masks of other images, by the names, such as 'benign (0)_mask.png'" in notes(info)


@pytest.mark.parametrize("names", [("mask", "no_mask"), ("image", "label", "text")])
def test_classes_that_are_called_as_masks_are(tree, names):
    tree.add(*(f"{name}/#_mask.png" for name in names))
    info = tree.describe()
    assert (info.class_names, info.train_images + info.test_images) == (names, 3 * len(names))


@pytest.mark.parametrize(
    "junk", ["$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found", "__pycache__", ".ipynb_checkpoints"]
)
def test_what_systems_put_beside_classes_is_none(tree, junk):
    tree.add("cat/#.png", "dog/#.png", f"{junk}/#.png", "cat/ehthumbs.db", "cat/0.png:Zone.Identifier", "cat/~$1.png")
    info = tree.describe()
    assert (info.class_names, info.train_images + info.test_images, info.notes) == (("cat", "dog"), 6, ())


def test_classes_that_differ_in_capitals_only_are_spoken_of(tree):
    tree.add("Cat/#.png", "cat/x#.png", "dog/#.png")
    assert tree.describe().class_names == ("Cat", "cat", "dog")
    assert tree.describe().notes == (
        "The classes 'Cat' and 'cat' differ in capitals only. If they are one, rename it.",
    )


@pytest.mark.parametrize("name", ["do\x1b[31mg", "dog\u202e", "do\ng", "\u2066dog"])
def test_class_names_that_cannot_be_shown_are_refused(tree, name):
    tree.add("cat/#.png", f"{name}/#.png")
    refused(tree, "The name of class", "cannot be seen", "Rename the class.")


def test_a_table_may_name_classes_what_no_folder_can_be_called(tree):
    """As 'dog/pug' and 'dog/boxer', which are not both 'dog'; and '.net', which is not hidden."""
    classes = ["cat", "dog/boxer", "dog/pug", ".net"]
    rows = [f"{i}.png,{classes[i % 4]}" for i in range(12)]
    tree.add(*(f"images/{i}.png" for i in range(12)))
    tree.add("labels.csv", content="\n".join(["file,label", *rows]).encode())
    info = tree.describe()
    assert info.class_names == tuple(sorted(classes))
    assert (info.class_sizes, info.test_sizes) == ((2,) * 4, (1,) * 4)


@pytest.mark.parametrize(
    "other", ["cat ", "c\u200aat", "cafe\u0301", "cat\u200b", "\u200ecat", "ca\u00adt", "cat\ufeff"]
)
def test_classes_that_look_the_same_are_refused(tree, other):
    tree.add("cat/#.png", "c at/#.png", "caf\u00e9/#.png", f"{other}/x#.png")
    refused(tree, "look the same")


def test_a_single_class_says_what_was_left_out_of_the_others(tree):
    tree.add("cat/#.png").add("dog/#.jp2", content=b"?")
    refused(tree, "only one class, 'cat'", "lie in 'dog'", "3 .jp2")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (LFS, "git lfs pull"), (b"<!DOCTYPE html><html>", "page of the web"), (HEIC, "HEIC photo")],
    ids=["empty", "lfs", "page", "heic"],
)
def test_files_that_are_no_images_are_spoken_of_before_the_start(tree, monkeypatch, content, said):
    readable = tuple(f for f in decoding.formats() if f != "HEIF")  # an older Pillow has fewer
    monkeypatch.setattr(decoding, "formats", lambda: readable)
    tree.add("cat/#.jpg", "dog/#.jpg").add("cat/z.jpg", content=content)
    found = notes(tree.describe())
    assert "1 of the 7 files looked at cannot be read." in found
    assert said in found
    tree.add("cat/#.jpg", "cat/y.jpg", content=content)
    refused(tree, "No image of class 'cat' can be read.", said)
    tree.add("dog/#.jpg", "dog/y.jpg", content=content)
    refused(tree, "None of the 9 files looked at can be read.", said)


def test_files_that_are_no_images_are_found_among_many(files, monkeypatch):
    """Not only among those whose headers are read."""
    monkeypatch.setattr(header_notes, "LOOKED_AT", 2)
    files.add("cat/#.jpg", "dog/#.jpg").add("dog/m.jpg", content=b"").add("dog/n.jpg", content=b"no image")
    found = notes(data.describe(f"folder:{files.root}"))
    assert "2 of the 8 files looked at cannot be read ('m.jpg', 'n.jpg'). 'm.jpg' is empty" in found


CUTS = [("JPEG", 2), ("JPEG", 300), ("PNG", 300), ("GIF", 300), ("WEBP", 1), ("BMP", 1)]


@pytest.mark.parametrize(("kind", "cut"), CUTS)
def test_images_that_are_cut_off_are_counted_and_named_before_the_start(files, kind, cut):
    """Their headers are whole. What follows an image, as in photographs of some telephones, does no harm."""
    tree, file = files, io.BytesIO()
    Image.effect_noise((40, 40), 80).convert("RGB").save(file, kind)
    whole = file.getvalue()
    assert len(whole) > 600
    tree.add("train/cat/#.png", "train/dog/#.png", "test/cat/#.png", "test/dog/#.png")
    tree.add("train/dog/more", content=whole + b"trailer")
    assert notes(data.describe(f"folder:{tree.root}")) == ""
    tree.add("train/dog/broken1", "train/dog/broken2", "test/dog/broken3", content=whole[:-cut])
    found = data.describe(f"folder:{tree.root}").notes
    assert found[0].startswith("2 of the 9 files looked at cannot be read ('broken1', 'broken2'). 'broken1' is broken")
    assert found[1].startswith("1 of the 7 test files looked at cannot be read. 'broken3' is broken")
    loaded = data.load(f"folder:{tree.root}", resolution=8)
    assert sorted(file.rpartition("/")[2] for file in loaded.skipped) == ["broken1", "broken2", "broken3"]
    assert (len(loaded.train), len(loaded.test)) == (7, 6)


def test_a_class_of_nothing_but_files_that_are_cut_off_is_refused_before_the_start(files):
    file = io.BytesIO()
    Image.effect_noise((40, 40), 80).save(file, "JPEG")
    files.add("cat/#.png").add("dog/#.jpg", content=file.getvalue()[:500])
    with pytest.raises(DataError, match=r"No image of class 'dog' can be read\. '0\.jpg' is broken"):
        data.describe(f"folder:{files.root}")


@pytest.mark.parametrize(
    ("kind", "said"), [("TIFF", True), ("GIF", True), ("WEBP", True), ("PNG", True), ("MPO", False)]
)
def test_files_of_several_images_are_spoken_of(files, kind, said):
    """All but the first are not used. The preview in a photograph of a telephone is nobody's image."""
    file = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), (60 * i, 9, 200 - 60 * i)) for i in range(3)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    files.add("cat/#.png", "dog/#.png").add("dog/stack", content=file.getvalue())
    found = notes(data.describe(f"folder:{files.root}"))
    assert found.startswith("Some files hold several images, pages or frames") == said, found


def test_a_pipe_in_a_folder_is_counted_and_not_waited_for(files):
    files.add("cat/#.png", "dog/#.png")
    os.mkfifo(files.root / "dog/live.jpg")
    assert notes(data.describe(f"folder:{files.root}")) == "Files that are not used: 1 pipe, socket or device."


def test_an_avif_file_that_is_cut_off_is_not_called_heic():
    assert decoding.no_image(b"\0\0\0\x1cftypavif\0\0\0\0") == ""


def test_images_that_are_too_large_are_spoken_of_before_the_start(files, tmp_path):
    files.add("cat/#.png", "dog/#.png")
    Image.new("1", (6000, 5000)).save(tmp_path / "cat/huge.png")
    Image.new("L", (6000, 5000)).save(tmp_path / "dog/huge.jpg")  # which is decoded at an eighth
    found = notes(data.describe(f"folder:{tmp_path}"))
    assert "1 of the 8 files looked at cannot be read. 'huge.png' has more than" in found


@pytest.mark.parametrize("table", ["labels.xlsx", "project.json", "train/metadata.jsonl"])
@pytest.mark.parametrize("images", ["train/#.jpg", "images/#.jpg"])
def test_labels_in_other_kinds_of_files_are_named(tree, table, images):
    tree.add(images).add(table, content=b"{}")
    ending = table[table.rindex(".") :]
    refused(tree, f"Labels in {ending} files are not read", ".csv")


def test_lists_of_test_images_are_not_passed_over_in_silence(tree):
    """As Food-101 has them."""
    tree.add("images/pizza/#.jpg", "images/sushi/#.jpg")
    tree.add("meta/train.txt", content=b"pizza/0\nsushi/0\n").add("meta/test.txt", content=b"pizza/1\nsushi/1\n")
    assert "'meta/test.txt' may list those that others test on, and is not followed" in notes(tree.describe())


def test_long_endings_are_named(tree):
    tree.add("train.tfrecord", "val.tfrecord", content=b"x")
    refused(tree, "2 .tfrecord")


def test_one_image_in_two_classes_is_spoken_of(files, tmp_path):
    files.add("cat/#.png", "dog/#.png")
    assert not data.describe(f"folder:{tmp_path}").notes
    files.add("dog/9.png", content=(tmp_path / "cat/1.png").read_bytes())
    said = notes(data.describe(f"folder:{tmp_path}"))
    assert "1 image is in two classes at once, such as 'cat/1.png' and 'dog/9.png'" in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.zip", b"Rar!\x1a\x07\x01\0", "archive of RAR"), ("a.7z", b"7z\xbc\xaf'\x1c", "archive of 7-Zip"),
        ("a.tar.xz", b"\xfd7zXZ\0", "archive of xz"), ("a.zip", b"<!DOCTYPE html><html>", "page of the web"),
        ("a.zip", b"", "is empty"), ("a.zip", LFS, "git lfs pull"),
    ],
)  # fmt: skip
def test_what_is_no_archive_that_is_read_is_named(tmp_path, monkeypatch, name, content, said):
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / name).write_bytes(content + bytes(200) * bool(content))
    with pytest.raises(DataError, match=f"{name}.*{said}"):
        data.describe(f"folder:{tmp_path / name}")
