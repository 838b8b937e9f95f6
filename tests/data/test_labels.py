"""Tables of labels as people really have them, beside flat folders: each image gets its class, or it is refused."""

from __future__ import annotations

import pytest

from iekd import data
from iekd.errors import DataError


def refused(tree, *words: str) -> str:
    with pytest.raises(DataError) as caught:
        tree.describe()
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)


def notes(info: data.DatasetInfo) -> str:
    return " | ".join(info.notes)


def classes(tree, split: str = "") -> dict[str, str]:
    """The class of each image, by the stem of its file, as it is trained and tested on."""
    loaded, found = tree.load(), {}
    for part in (split,) if split else ("train", "test"):
        images = getattr(loaded, part)
        for i, label in enumerate(images.labels):
            stem = images.files[i].rpartition("/")[2].rpartition(".")[0]
            found[stem.rpartition("-")[2]] = loaded.class_names[label]  # a number comes before those of an archive
    return found


ANSWERS = {str(i): "cat" if i in (0, 3, 4) else "dog" for i in range(6)}  # of six images; not the same backwards


def listed(tree, line: str, name: str = "labels.csv", titles: str = "", encoding: str = "utf-8", **names: str):
    """Six flat images, and a table with a line for each; i, back, label and n can be named in the line."""
    tree.add("images/#.png", *(f"images/{i}.png" for i in (3, 4, 5)))
    rows = [
        line.format(i=i, back=5 - i, label=names.get(ANSWERS[str(i)], ANSWERS[str(i)]), n=int(ANSWERS[str(i)] == "dog"),
                    m=int(ANSWERS[str(i)] == "cat"))
        for i in range(6)
    ]  # fmt: skip
    return tree.add(name, content="\n".join([*filter(None, [titles]), *rows]).encode(encoding))


def test_a_table_of_labels_is_read_and_what_it_does_not_list_is_said(tree):
    tree.add("train/a#.jpg", "train/b#.jpg", "test/c#.jpg")
    tree.add("labels.csv", content=b"id,breed\na0,pug\na1,pug\na2,boxer\nb0,boxer\nb1,pug\nb2,boxer\n")
    tree.add("sample_submission.csv", content=b"id,label\nc0,pug\nc1,pug\nc2,pug\n")
    info = tree.describe()
    assert (info.class_names, info.class_sizes, info.test_sizes) == (("boxer", "pug"), (2, 2), (1, 1))
    assert info.test_is_drawn
    assert "'labels.csv' (column 'breed')" in notes(info)
    assert "Not used: 3 images without a class in 'labels.csv'." in notes(info)


def test_a_table_of_other_files_is_named_and_not_used(tree):
    tree.add("train/a#.jpg", "test/c#.jpg").add("labels.csv", content=b"id,label\nx0,pug\nx1,pug\nx2,boxer\n")
    refused(tree, "labels may be in 'labels.csv'", "do not fit")


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


def test_a_table_by_its_own_name(files, tmp_path):
    tree = files.add("pictures/#.png", "pictures/b/#.png")
    table = (
        b"path,label\npictures/0.png,cat\npictures/1.png,dog\npictures/2.png,cat\npictures/b/0.png,dog\n"
        b"nowhere.png,dog\n"
    )
    tree.add("my.csv", content=table)
    info = data.describe(f"csv:{tmp_path}/my.csv")
    assert (info.class_names, info.class_sizes, info.test_sizes) == (("cat", "dog"), (1, 1), (1, 1))
    assert "1 row of 'my.csv' whose file is not there, such as 'nowhere.png'" in notes(info)
    assert "2 images without a class in 'my.csv'" in notes(info)
    (tmp_path / "my.csv").write_bytes(table.replace(b"dog", b"eel"))
    assert data.describe(f"csv:{tmp_path}/my.csv").class_names == ("cat", "eel"), "an edit is seen"
    for name, words in (("none.csv", "no file"), ("pictures/0.png", "does not list")):
        with pytest.raises(DataError, match=words):
            data.describe(f"csv:{tmp_path}/{name}")


def test_a_column_of_numbers_is_not_the_one_with_the_files(tree):
    """The index that pandas writes counts 0, 1, 2 as the names of the files do, in another order."""
    listed(tree, "{back},{i}.png,{label}", titles=",file,label")
    assert classes(tree) == ANSWERS


@pytest.mark.parametrize(
    ("line", "titles"), [("{n},{i}", "label,id"), ("{label},{i}.png", ""), ("{back},{i},{n}", "index,id,y")]
)
def test_the_column_with_the_files_may_be_any(tree, line, titles):
    listed(tree, line, titles=titles)
    names = {"cat": "0", "dog": "1"} if "n" in line else {"cat": "cat", "dog": "dog"}
    assert classes(tree) == {i: names[label] if "{n}" in line else label for i, label in ANSWERS.items()}


def test_two_columns_that_may_be_the_files_are_asked_about(tree):
    listed(tree, "{back},{i},{label}", titles="nr,number,label")
    refused(tree, "'nr'", "'number'", "could name the files")


@pytest.mark.parametrize(
    ("line", "titles"),
    [
        ("{i}.png\t{label}", "file\tlabel"), ("{i}.png;{label};", "file;label;"), ("{i}.PNG,{label}", "file,label"),
        ("{i}.bmp,{label}", "file,label"), ('"C:\\me\\images\\{i}.png","{label}"', '"file","label"'),
        ("{i}.png,{label}", "sep=,\nfile,label"), ("{i}.png,{label}", "# by me, 2020\n# again\nfile,label"),
        ("{i}.png|{label}", "file|label"), ("{i}.png {label}", ""), ("/home/me/{i}.png,{label}", ""),
        ("{i}.png,{m},{n}", "file,cat,dog"), ("{i}.png,{m}.0,{n}.0", "file, cat, dog"),
    ],
)  # fmt: skip
def test_tables_of_many_kinds(tree, line, titles):
    listed(tree, line, titles=titles)
    assert classes(tree) == ANSWERS


def test_lines_of_an_old_mac(files):
    listed(files, "{i}.png,{label}", titles="file,label")
    table = files.root / "labels.csv"
    table.write_bytes(table.read_bytes().replace(b"\n", b"\r"))
    assert data.describe(f"folder:{files.root}").class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("encoding", "cat", "dog"),
    [
        ("gbk", "猫", "狗"), ("cp932", "ねこ", "いぬ"), ("cp1251", "кошка", "собака"), ("koi8-r", "кошка", "собака"),
        ("cp1252", "château", "élève"), ("utf-16", "猫", "狗"), ("utf-8-sig", "猫", "狗"), ("cp949", "고양이", "개"),
    ],
)  # fmt: skip
def test_tables_in_older_encodings(tree, encoding, cat, dog):
    listed(tree, "{i}.png,{label}", titles="file,label", encoding=encoding, cat=cat, dog=dog)
    assert set(tree.describe().class_names) == {cat, dog}
    assert ("is not UTF-8" in notes(tree.describe())) == (not encoding.startswith("utf"))


@pytest.mark.parametrize("row", ["0.png,1,1", "0.png,0,0"])
def test_several_classes_of_one_image_are_refused(tree, row):
    """Roboflow's multi-label export: a column that happens to have both values is not the class."""
    tree.add("train/#.png", "train/_x#.png")
    rows = "1.png,1,0\n2.png,1,0\n_x0.png,1,0\n_x1.png,1,0\n_x2.png,1,0\n"
    tree.add("train/_classes.csv", content=f"filename, cat, dog\n{row}\n{rows}".encode())
    refused(tree, "a column per class", "'0.png'", "exactly one")


@pytest.mark.parametrize("mark", ["|", " ", ", "])
def test_lists_of_classes_are_spoken_of(tree, mark):
    listed(tree, '{i}.png,"{label}"', titles="file,label", dog="rust")
    rows = f'"rust{mark}cat"'
    tree.add("images/6.png", "images/7.png")
    with open(tree.root / "labels.csv", "a") as file:
        file.write(f"\n6.png,{rows}\n7.png,{rows}\n")
    assert f"several classes, such as 'rust{mark}cat'" in notes(tree.describe())


def test_classes_as_pandas_writes_them(tree):
    """A column with a missing value becomes one of floating-point numbers."""
    listed(tree, "{i}.png,{n}.0", titles="file,label")
    tree.add("images/6.png")
    with open(tree.root / "labels.csv", "a") as file:
        file.write("\n6.png,nan\n")
    assert classes(tree) == {i: {"cat": "0", "dog": "1"}[label] for i, label in ANSWERS.items()}
    assert "1 image without a class in 'labels.csv'" in notes(tree.describe())


def test_two_columns_of_classes_that_differ_are_asked_about(tree):
    tree.add("images/#.png", "images/x#.png")
    names = ("0", "1", "2", "x0", "x1", "x2")
    rows = "".join(f"{n}.png,{c},{d}\n" for n, c, d in zip(names, "ababab", "ccdccd", strict=True))
    tree.add("labels.csv", content=f"file,category,class\n{rows}".encode())
    refused(tree, "several columns could be their class: class, category")


@pytest.mark.parametrize(
    ("title", "marks"),
    [
        ("dataset", ("train", "test")),
        ("is_valid", ("False", "True")),
        ("is_train", ("1", "0")),
        ("is_training_img", ("1", "0")),
    ],
)
def test_a_column_that_says_what_is_to_be_tested_on(tree, title, marks):
    tree.add("images/#.png", "images/x#.png")
    names = ("0", "1", "2", "x0", "x1", "x2")
    rows = "".join(f"{name}.png,{'ab'[k % 2]},{marks[name in ('2', 'x0')]}\n" for k, name in enumerate(names))
    tree.add("labels.csv", content=f"file,label,{title}\n{rows}".encode())
    assert not tree.describe().test_is_drawn
    assert classes(tree, "test") == {"2": "a", "x0": "b"}


def test_a_column_of_parts_is_no_column_of_classes(tree):
    """CelebA: one table has columns for 40 attributes, another has a number for the part alone."""
    tree.add("images/#.png", *(f"images/{i}.png" for i in (3, 4, 5)))
    rows = "".join(f"{i}.png,{i % 2},1\n" for i in range(6))
    tree.add("list_attr.csv", content=f"image_id,Male,Smiling\n{rows}".encode())
    rows = "".join(f"{i}.png,{i % 3}\n" for i in range(6))
    tree.add("list_eval_partition.csv", content=f"image_id,partition\n{rows}".encode())
    refused(tree, "'list_attr.csv' has a column per class", "exactly one")


def test_classes_of_several_words_after_a_space(tree):
    listed(tree, "{i} {label}", name="list.txt", cat="Boeing 707", dog="Boeing 747")
    assert tree.describe().class_names == ("Boeing 707", "Boeing 747")


def test_a_column_of_folds_is_said_not_to_be_used(tree):
    listed(tree, "{i}.png,{label},{i}", titles="file,label,fold")
    assert "The column 'fold' is not used" in notes(tree.describe())
    assert tree.describe().test_is_drawn


def test_tables_whose_names_say_what_is_to_be_tested_on(tree):
    tree.add("images/#.png", "images/x#.png", "images/y#.png")
    for name, images in (("train", ("0", "1", "x0", "x1")), ("test", ("2", "x2")), ("val", ("y0", "y1"))):
        rows = "".join(f"{image},{'ab'[k % 2]}\n" for k, image in enumerate(images))
        tree.add(f"{name}_labels.csv", content=f"id,label\n{rows}".encode())
    info = tree.describe()
    assert (info.class_sizes, info.test_sizes, info.tested_on) == ((2, 2), (1, 1), "")
    assert classes(tree, "test") == {"2": "a", "x2": "b"}
    assert "Not used: 2 images of 'val'." in notes(info)
    assert "1 image without a class in" in notes(info)


def test_a_small_table_is_clear_by_the_classes_of_another(tree):
    """In two rows each value occurs once: alone, it could be anything."""
    tree.add("images/#.png", "images/x#.png")
    tree.add("train.txt", content=b"0 Boeing 707\n1 Boeing 747\nx0 Boeing 707\nx1 Boeing 747\n")
    tree.add("test.txt", content=b"2 Boeing 747\nx2 Boeing 707\n")
    tree.add("hours.csv", content=b"file,hour,minute\n0,1,1\n1,2,1\n2,1,2\nx0,2,2\nx1,1,1\nx2,2,1\n")
    info = tree.describe()
    assert (info.class_names, info.class_sizes) == (("Boeing 707", "Boeing 747"), (2, 2))
    assert classes(tree, "test") == {"2": "Boeing 747", "x2": "Boeing 707"}
    assert "Not used: 'hours.csv' has no column with" in notes(info)


@pytest.mark.parametrize("titles", ["file,label", "file,colour"])
def test_a_table_that_says_other_than_the_folders(tree, titles):
    """Folders of patients: what they are of stands in the table. A column of another name may be about anything."""
    tree.add("anna/a#.png", "bob/b#.png")
    rows = "".join(f"{p}/{p[0]}{i}.png,{'sick' if i == 0 else 'well'}\n" for p in ("anna", "bob") for i in range(3))
    tree.add("data.csv", content=f"{titles}\n{rows}".encode())
    if "label" in titles:
        refused(tree, "'anna', 'bob'", "'data.csv'", "'sick', 'well'", "csv:FILE", "classes=outer")
    else:
        assert "'data.csv' lists the images too, and is not used" in notes(tree.describe())
    assert tree.describe("?classes=outer").class_names == ("anna", "bob")
    assert data.describe(f"csv:{tree.root}/data.csv").class_names == ("sick", "well")


def test_a_table_that_agrees_with_the_folders_is_not_spoken_of(tree):
    tree.add("c0/a#.png", "c1/b#.png")
    rows = "".join(f"p{i},{'safe' if c else 'texting'},{'ab'[c]}{i}.png\n" for c in (0, 1) for i in range(3))
    tree.add("list.csv", content=f"subject,classname,img\n{rows}".encode())
    assert (tree.describe().class_names, tree.describe().notes) == (("c0", "c1"), ())


def test_boxes_of_single_images_are_no_tables(tree):
    """YOLO's labels: a text per image whose first numbers are those of classes, and may be names of images too."""
    for split in ("train", "valid"):
        tree.add(f"{split}/images/#.png")
        tree.add(*(f"{split}/labels/{i}.txt" for i in range(3)), content=b"0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.2 0.2\n")
    assert "list" not in refused(tree, "no sub-folder per class", "boxes for detection").partition("Make a folder")[0]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_table_in_utf16_that_does_not_say_so(tree, encoding):
    lines = ["file\tlabel", *(f"{i}.png\t{'cat' if i % 2 else 'dog'}" for i in range(4))]
    tree.add(*(f"x/{i}.png" for i in range(4))).add("labels.csv", content="\r\n".join(lines).encode(encoding))
    assert tree.describe().class_names == ("cat", "dog")


def test_columns_of_classes_may_have_others_beside_them(tree):
    """As in tables of skin lesions: the first column of a class is not the classes."""
    lines = ["image,patient,MEL,NV", *(f"i{i},p{i // 2},{i % 2},{1 - i % 2}" for i in range(6))]
    tree.add(*(f"x/i{i}.png" for i in range(6))).add("truth.csv", content="\n".join(lines).encode())
    info = tree.describe()
    assert info.class_names == ("MEL", "NV")
    assert "one column per class" in notes(info)
