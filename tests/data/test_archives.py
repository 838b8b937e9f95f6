"""Archives of pictures: every shape that people pack, and every way to hurt whoever unpacks them."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import os
import shutil
import stat
import sys
import tarfile
import threading
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from iekd import data
from iekd.data import archives
from iekd.data.archives import Room
from iekd.errors import DataError


def unpack(path, into, room=None):
    """As for whoever this machine belongs to, whose tar files are read too. Zips are read in the same way for all."""
    return archives.unpack(path, into, room or Room(), tar=True)


def png(value=0):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), value % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


def packed(path, names, content=None):
    """An archive of pictures under these names, in the format that its own name says."""
    files = [(name, png(i) if content is None else content) for i, name in enumerate(names)]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in files:
                archive.writestr(name, value)
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:
        for name, value in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(value)
            archive.addfile(entry, io.BytesIO(value))
    return path


def header(name, size, kind=tarfile.REGTYPE):
    """A raw header of a tar file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def checked(block):
    """A raw header with the checksum that it needs."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tarred(*files):
    """Raw bytes of a tar file."""
    parts = [
        header(name, len(content)) + content.ljust(-(-len(content) // 512) * 512, b"\0") for name, content in files
    ]
    return b"".join(parts) + bytes(1024)


TWO = ["robin/a.png", "robin/b.png", "wren/c.png", "wren/d.png"]


@pytest.fixture
def into(tmp_path):
    return tmp_path / "deep" / "into"


@pytest.fixture(params=["birds.zip", "birds.tar"])
def archive(request, tmp_path):
    return tmp_path / request.param


def laid_out(folder):
    return sorted({str(p.parent.relative_to(folder)) for p in folder.rglob("[!.]*") if p.is_file()})


# What people pack


@pytest.mark.parametrize(
    "name", ["birds.zip", "birds.tar", "birds.tar.gz", "birds.tgz", "birds.tar.bz2", "My Birds (2).ZIP"]
)
def test_every_format_becomes_a_folder_that_can_be_loaded(tmp_path, into, name):
    path = packed(tmp_path / name.lower(), TWO).rename(tmp_path / name)
    folder = unpack(path, into)
    assert laid_out(folder) == ["robin", "wren"]
    loaded = data.load(f"folder:{folder}", resolution=8)
    assert loaded.class_names == ("robin", "wren")
    everything = np.concatenate([loaded.train.images, loaded.test.images])
    assert sorted(everything[:, 0, 0, 0].tolist()) == [0, 1, 2, 3], "every picture, unchanged"
    assert [p.name for p in into.iterdir()] == [folder.name]


def test_a_picture_that_cannot_be_read_is_found_again_by_its_name(archive, into):
    """Two of one class may be called alike, and names may be such as no system should write."""
    odd = "my wren: 'ünï' $(rm).PNG"
    names = [*(f"robin/{i}.png" for i in range(6)), f"wren/deep/{odd}", f"wren/other/{odd}", f"wren/{'x' * 200}.png"]
    folder = unpack(packed(archive, names, content=png()), into)
    (broken,) = folder.rglob("*-4.png")
    broken.write_bytes(b"no picture")
    assert data.load(f"folder:{folder}", resolution=8).skipped == (str(broken),)
    written = sorted(p.name for p in (folder / "wren").iterdir())
    assert [name[6:] for name in written[:2]] == ["-my-wren-n-rm.png"] * 2
    assert len(written) == 3
    assert max(map(len, written)) < 80


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["birds/" + name for name in TWO], ["robin", "wren"]),
        (["a/b/c/" + name for name in TWO], ["robin", "wren"]),
        (["./" + name for name in TWO], ["robin", "wren"]),
        ([name.replace("/", "\\") for name in TWO], ["robin", "wren"]),
        (["robin/2019/a.png", "robin/2020/b.png", "wren/c.png", "wren/x/y/d.png"], ["robin", "wren"]),
        ([f"d/{s}/{n}" for s in ("train", "val") for n in TWO], ["train/robin", "train/wren", "val/robin", "val/wren"]),
        ([f"{s}/{n}" for s in ("Train", "TEST") for n in TWO],
         ["test/robin", "test/wren", "train/robin", "train/wren"]),
        ([f"x/train/{n}" for n in TWO], ["robin", "wren"]),
        (["train/a.png", "train/b.png", "car/a.png", "car/b.png"], ["car", "train"]),  # vehicles
        ([*TWO, "readme.txt", "robin/notes.csv", "robin/.a.png", ".git/a.png", "__MACOSX/robin/a.png", "loose.png"],
         ["robin", "wren"]),
        ([*(f"b/{n}" for n in TWO), "b/cover.jpg"], ["robin", "wren"]),
        ([*TWO, "train/steam/a.png", "train/diesel/a.png"], ["robin", "wren"]),
        ([*TWO, "test/a.png", "test/b.png"], ["robin", "wren"]),  # without labels
        ([f"{s}/{n}" for s in ("Training", "Testing", "notes") for n in TWO],
         ["test/robin", "test/wren", "train/robin", "train/wren"]),
        ([f"d/{s}/{s}/{n}" for s in ("seg_train", "seg_test") for n in TWO],
         ["test/robin", "test/wren", "train/robin", "train/wren"]),
        ([f"{s}/images/{n}" for s in ("train", "valid") for n in TWO],
         ["train/robin", "train/wren", "valid/robin", "valid/wren"]),
        (["robin/Shot 10.00\u202fAM.png", "robin/b.png", *TWO[2:], "Icon\r", "wren/Icon\r"], ["robin", "wren"]),
        (["👩\u200d🚀/a.png", "👩\u200d🚀/b.png", *TWO[2:]], ["wren", "👩\u200d🚀"]),
        (["Été 2024/a.png", "Été 2024/b.png", "数/a.png", "数/b.png"], ["Été 2024", "数"]),
    ],
)  # fmt: skip
def test_folders_are_understood(archive, into, names, folders):
    assert laid_out(unpack(packed(archive, names), into)) == sorted(folders)


def test_names_in_utf8_that_are_not_marked_as_such(tmp_path, into):
    """As Finder packs them."""
    path = packed(tmp_path / "birds.zip", ["Ete/a.png", "Ete/b.png", *TWO[2:]])
    content = path.read_bytes().replace(b"Ete", "Té".encode())
    path.write_bytes(content)
    assert laid_out(unpack(path, into)) == ["Té", "wren"]


def test_names_of_a_tar_in_an_older_encoding_are_refused(tmp_path, into, refuses):
    path = packed(tmp_path / "birds.tar", TWO)
    names = ["r\udce9d/a.png", "r\udce9d/b.png", "r\udcfcd/c.png", "r\udcfcd/d.png"]  # "réd" and "rüd" in Latin-1
    path.write_bytes(tarred(*((name, png()) for name in names)))
    refused(path, into, refuses, "not in UTF-8")


@pytest.mark.parametrize("other", ["robin ", "ro\u3000bin", "robin\u00a0"])
def test_classes_that_look_the_same_are_not_merged(archive, into, refuses, other):
    names = [*TWO, "ro bin/a.png", "ro bin/b.png", f"{other}/a.png", f"{other}/b.png"]
    refused(packed(archive, names), into, refuses, "look the same")


@pytest.mark.parametrize("others", [["wren/a.png", "wren/b.png"], ["robin/b.png", "wren/a.png", "wren/c.png"]])
def test_of_entries_with_one_name_the_last_is_taken(tmp_path, into, others):
    path = tmp_path / "birds.zip"
    with zipfile.ZipFile(path, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own, of the repeated name
        for name in ("robin/a.png", "robin/a.png", *others, "robin/c.png"):
            file.writestr(name, png())
        file.writestr("robin/a.png", png(77))
    folder = unpack(path, into)
    assert len(list((folder / "robin").iterdir())) == len({n for n in others if n.startswith("robin")}) + 2
    (last,) = (folder / "robin").glob("*-a.png")
    assert last.read_bytes() == png(77)


def test_an_empty_folder_is_said_as_of_a_folder_on_disk(tmp_path, into):
    path = packed(tmp_path / "birds.zip", TWO)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("owl/", b"")
    folder = unpack(path, into)
    (note,) = data.describe(f"folder:{folder}").notes
    assert note == "No images that can be read lie in 'owl': not used as a class."


def test_what_was_understood_is_not_understood_again(archive, into):
    """Folders that would be taken for parts of one dataset are classes where the user has said so."""
    names = [f"data_batch_{i}/{file}.png" for i in (1, 2) for file in "ab"]
    with pytest.raises(DataError, match="classes=outer"):
        unpack(packed(archive, names), into)
    folder = archives.unpack(archive, into, tar=True, nested="outer")
    assert data.describe(f"folder:{folder}").class_names == ("data_batch_1", "data_batch_2")


def test_long_names_and_headers_of_all_kinds(tmp_path, into):
    """GNU's and pax's ways to say a name of 150 letters; other headers say nothing that counts."""
    long = "r" * 150
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"birds{kind}.tar"
        with tarfile.open(path, "w", format=kind, pax_headers={"comment": "x" * 1000}) as archive:
            for name in (f"{long}/a.png", f"{long}/b.png", *TWO[2:]):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime = len(png()), 0.5
                archive.addfile(entry, io.BytesIO(png()))
        assert laid_out(unpack(path, into)) == [long, "wren"]


def test_a_size_that_an_earlier_header_says(tmp_path, into):
    """As of files beyond 8 GB, whose own header has no room for it."""
    files = []
    for name in TWO:
        told = b"%d size=%d\n" % (9 + len(str(len(png()))), len(png()))
        assert len(told) == int(told.split()[0])
        padded = png().ljust(-(-len(png()) // 512) * 512, b"\0")
        files.append(header("x", len(told), tarfile.XHDTYPE) + told.ljust(512, b"\0") + header(name, 0) + padded)
    path = tmp_path / "birds.tar"
    path.write_bytes(b"".join(files) + bytes(1024))
    folder = unpack(path, into)
    assert laid_out(folder) == ["robin", "wren"]
    assert {p.read_bytes() for p in folder.rglob("*.png")} == {png()}


def test_the_same_file_is_unpacked_once(tmp_path, into):
    path = packed(tmp_path / "birds.zip", TWO)
    first = unpack(path, into)
    (first / "mark").touch()
    assert unpack(path, into) == first
    assert (first / "mark").is_file()
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "birds.zip"
    copy.write_bytes(path.read_bytes())
    assert unpack(copy, into) == first, "it is the content that counts"
    os.utime(packed(path, [*TWO, "robin/e.png"]), (1, 1))
    assert unpack(path, into) != first


def test_two_at_once_get_the_same_folder(tmp_path, into):
    path, got = packed(tmp_path / "birds.zip", [f"{c}/{i}.png" for c in "ab" for i in range(200)]), []
    threads = [threading.Thread(target=lambda: got.append(unpack(path, into))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    assert len(set(got)) == 1
    assert [p.name for p in into.iterdir()] == [got[0].name]
    assert len(list(got[0].rglob("*.png"))) == 400


def test_a_dataset_may_be_named_by_its_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    path = packed(tmp_path / "birds.zip", TWO)
    name = data.prepare(f"folder:{path}")
    assert name.startswith(f"folder:{tmp_path}/cache/pictures/birds-")
    assert data.describe(f"folder:{path}").classes == 2


def test_a_file_that_is_no_archive_is_said(tmp_path, refuses):
    (tmp_path / "notes.txt").write_text("x")
    refuses(lambda: data.prepare(f"folder:{tmp_path}/notes.txt"), "is a file", ".zip", kind=DataError)


# What is refused


def refused(path, into, refuses, *words, room=None):
    """Said in one sentence; nothing is left, and nothing was written anywhere else."""
    before = {p for p in path.parent.rglob("*") if not p.is_relative_to(into)}
    refuses(lambda: unpack(path, into, room or Room()), path.name, *words, kind=DataError)
    assert list(into.iterdir()) == []
    assert {p for p in path.parent.rglob("*") if not p.is_relative_to(into)} == before | {into.parent}


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "robin/../../evil.png", "/tmp/evil.png", "..\\evil.png", "\\evil\\a.png", "C:\\x\\a.png",
     "C:/x/a.png", "robin/..", "../"],
)  # fmt: skip
def test_names_that_lead_outside(archive, into, refuses, name):
    refused(packed(archive, [*TWO, name]), into, refuses, "outside")


@pytest.mark.parametrize("name", ["r" * 300 + "/a.png", " .. /a.png", "\u3000/a.png"])
def test_names_that_are_none(archive, into, refuses, name):
    refused(packed(archive, [*TWO, name]), into, refuses, "is no name")


@pytest.mark.parametrize(
    ("name", "said"),
    [("ro\nbin", "'ro\\nbin'"), ("ro\x1b[31mbin", "U+001B"), ("robin\u202e", "U+202E"), ("a\u2028b", "U+2028")],
)
def test_classes_whose_names_cannot_be_shown(archive, into, refuses, name, said):
    """A folder on disk is refused in the same words, see test_layout.py."""
    refused(packed(archive, [*TWO, f"{name}/a.png", f"{name}/b.png"]), into, refuses, said, "Rename the class.")


LABELLED = [f"images/{i}.png" for i in range(12)]


def labelled(path, classes, tmp_path):
    """An archive of images side by side, whose classes a table in it names, each in turn."""
    packed(path, LABELLED)
    rows = [f'{i}.png,"{classes[i % len(classes)]}"' for i in range(len(LABELLED))]
    (table := tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.write(table, "labels.csv")
    else:
        with tarfile.open(path, "a") as archive:
            archive.add(table, "labels.csv")
    return path


@pytest.mark.parametrize(
    "classes",
    [("dog/pug", "dog/boxer", "cat"), ("../../../evil", "cat"), ("/tmp/evil", "cat"), (".net", "java"), ("..", "cat"),
     ("test", "train", "cat"), ("x" * 300, "cat"), ("class 0", ".", "..", "/"), ("images", "data")],
)  # fmt: skip
def test_a_table_may_call_classes_what_no_folder_can_be_called(tmp_path, into, monkeypatch, classes):
    """Each class stays itself, and nothing lands outside of the folder."""
    monkeypatch.setattr("iekd.data.folder.unpacked_dir", lambda: into)
    path = labelled(tmp_path / "birds.tar" if len(classes) == 3 else tmp_path / "birds.zip", classes, tmp_path)
    before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(into)}
    info = data.describe(f"folder:{path}")
    assert info.class_names == tuple(sorted(classes))
    assert set(info.class_sizes) == {12 // len(classes) - max(1, round(12 / len(classes) * 0.2))}
    dataset = data.load(info.name, resolution=8)
    for name in classes:
        values = [png(i) for i in range(12) if classes[i % len(classes)] == name]
        wanted = sorted(np.asarray(Image.open(io.BytesIO(value)))[0, 0] for value in values)
        label = dataset.class_names.index(name)
        found = [s.images[s.labels == label][:, 0, 0, 0] for s in (dataset.train, dataset.test)]
        assert sorted(np.concatenate(found)) == wanted, name
    assert {p for p in tmp_path.rglob("*") if not p.is_relative_to(into)} == before | {into.parent}


def test_a_folder_with_nothing_but_hidden_files_is_named_as_on_disk(archive, into):
    """Many packers write no entries for folders."""
    names = [*TWO, "cow/.hidden/a.png", "pig/.a.png", ".b.png", "__MACOSX/hen/._a.png"]
    found = data.describe(f"folder:{unpack(packed(archive, names), into)}")
    assert found.notes == ("No images that can be read lie in 'cow', 'pig': not used as a class.",)


def test_what_an_earlier_version_has_unpacked_still_opens(tmp_path, into):
    """It noted sentences only; its folders were the classes."""
    folder = unpack(packed(tmp_path / "birds.zip", TWO), into)
    (folder / ".iekd.json").write_text('["A note."]')
    info = data.describe(f"folder:{folder}")
    assert (info.class_names, info.notes) == (("robin", "wren"), ("A note.",))


def test_images_that_were_taken_from_the_unpacked_folder_are_missed(tmp_path, into, refuses):
    folder = unpack(packed(tmp_path / "birds.zip", TWO), into)
    shutil.rmtree(folder / "wren")
    refuses(lambda: data.describe(f"folder:{folder}"), "Class 'wren'", "has no training image", kind=DataError)


def test_folders_that_lie_too_deep(archive, into, refuses):
    refused(packed(archive, [*TWO, "a/" * 32 + "b.png"]), into, refuses, "more than 32 folders deep")


def special(kind, target="/etc/passwd"):
    entry = tarfile.TarInfo("robin/link.png")
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path, into, refuses, kind):
    path = packed(tmp_path / "birds.tar", TWO)
    with tarfile.open(path, "a") as archive:
        archive.addfile(special(kind))
    refused(path, into, refuses, "a link or a device")


def test_a_folder_that_is_a_link_in_a_tar(tmp_path, into, refuses):
    """The classic: a link to a folder outside, then a file in it."""
    path = tmp_path / "birds.tar"
    with tarfile.open(path, "w") as archive:
        link = special(tarfile.SYMTYPE, str(tmp_path))
        link.name = "robin"
        archive.addfile(link)
        entry = tarfile.TarInfo("robin/evil.png")
        archive.addfile(entry)
    refused(path, into, refuses, "a link or a device")


def test_links_in_a_zip(tmp_path, into, refuses):
    path = packed(tmp_path / "birds.zip", TWO)
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo("robin/link.png")
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    refused(path, into, refuses, "a link or a device")


def test_a_bomb_of_one_picture(archive, into, refuses, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_IMAGE", 2**20)
    refused(packed(archive, [*TWO, "robin/bomb.png"], bytes(2**20 + 1)), into, refuses, "MB")


@pytest.mark.parametrize("name", ["birds.zip", "birds.tar.gz", "birds.tar.bz2"])
def test_a_bomb_of_many_pictures(tmp_path, into, refuses, monkeypatch, name):
    monkeypatch.setattr(archives, "RATIO_FROM", 2**20)
    path = packed(tmp_path / name, [f"robin/{i}.png" for i in range(40)], bytes(2**18))
    assert path.stat().st_size * archives.MOST_RATIO < 40 * 2**18
    refused(path, into, refuses, "unpacks to more than")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_bomb_of_something_that_is_no_picture(tmp_path, into, refuses, monkeypatch, pack):
    monkeypatch.setattr(archives, "RATIO_FROM", 2**20)
    path = packed(tmp_path / "birds.tar", ["robin/zeros.bin"], bytes(2**25))
    bomb = tmp_path / "birds.tgz"
    bomb.write_bytes(pack(path.read_bytes()))
    refused(bomb, into, refuses, "unpacks to more than")


def test_a_header_that_announces_gigabytes(tmp_path, into, refuses):
    entry = tarfile.TarInfo("pax")
    entry.type, entry.size = tarfile.XHDTYPE, 2**33
    path = tmp_path / "birds.tar"
    path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refused(path, into, refuses, "damaged")


def test_too_many_pictures_and_too_many_bytes(archive, into, refuses):
    path = packed(archive, TWO)
    refused(path, into, refuses, "more than 3 images", room=Room(images=3))
    refused(path, into, refuses, "unpacks to more than", room=Room(size=10))


@pytest.mark.parametrize("name", ["robin/a.png", "robin/notes.txt"])
def test_a_size_that_leads_backwards(tmp_path, into, refuses, name):
    """Whoever goes back by it reads the same entries for ever."""
    size = (-(2**20)).to_bytes(12, "big", signed=True)
    entry = bytearray(header(name, 0))
    entry[124:136] = size
    path = tmp_path / "birds.tar"
    path.write_bytes(tarred(("robin/x.png", png()))[:-1024] + checked(entry) + bytes(2**20))
    refused(path, into, refuses, "damaged")  # by us, or by Python 3.14


def test_files_with_holes(tmp_path, into, refuses):
    path = tmp_path / "birds.tar"
    path.write_bytes(header("robin/a.png", 0, tarfile.GNUTYPE_SPARSE) + bytes(1024))
    refused(path, into, refuses, "holes")
    content = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n24 GNU.sparse.name=x/a.png\n"
    file = header("x/a.png", 1024) + b"1\n0\n512\n".ljust(1024, b"\0")
    path.write_bytes(header("x", len(content), tarfile.XHDTYPE) + content.ljust(512, b"\0") + file + bytes(1024))
    refused(path, into, refuses)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_headers_without_end(tmp_path, into, refuses, kind):
    path = tmp_path / "birds.tar"
    path.write_bytes((header("x", 6, kind) + b"6 a=b\n".ljust(512, b"\0")) * 5000 + bytes(1024))
    refused(path, into, refuses, "damaged")


@pytest.mark.parametrize(
    "content", [b"", b"99 path=a\n", b"-5 path=a\n", b"x path=a\n", b"6 a=b\n0 b=c\n", b"11 size=-9\n"]
)
def test_broken_headers(tmp_path, into, refuses, content):
    path = tmp_path / "birds.tar"
    padded = content.ljust(-(-len(content) // 512) * 512, b"\0")
    path.write_bytes(header("x", len(content), tarfile.XHDTYPE) + padded + tarred(("robin/a.png", png())))
    refused(path, into, refuses, *([] if content else ["one class"]))


def test_a_tar_of_which_some_is_missing_gives_no_part_of_it(tmp_path, into, refuses):
    """`tarfile` by itself takes a broken header, or none, for the end."""
    names = [f"{c}/{i}.png" for c in ("robin", "wren") for i in range(4)]
    whole = packed(tmp_path / "birds.tar", names).read_bytes()
    header_of_fifth = whole.index(b"wren/0.png")
    path = tmp_path / "birds.tar"
    path.write_bytes(whole[:header_of_fifth])
    refused(path, into, refuses, "damaged", "ends too early")
    broken = bytearray(whole)
    broken[header_of_fifth + 150] ^= 1  # its checksum
    path.write_bytes(broken)
    refused(path, into, refuses, "damaged")


# Strangers


@pytest.mark.parametrize("ending", archives.TAR)
def test_a_strangers_tar_is_refused_in_words_and_not_opened(tmp_path, into, refuses, monkeypatch, ending):
    path = packed(tmp_path / f"birds{ending}", TWO)
    monkeypatch.setattr("tarfile.open", lambda *_, **__: pytest.fail("it was opened"))
    refuses(lambda: archives.unpack(path, into), path.name, "tar archive", "Pack it as zip", kind=DataError)
    assert not into.exists()


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "robin/a.png"])
def test_a_strangers_tar_that_is_called_a_zip_is_not_opened_either(tmp_path, into, refuses, monkeypatch, name):
    path = packed(tmp_path / "birds.tar", [*TWO, name]).rename(tmp_path / "birds.zip")
    monkeypatch.setattr("tarfile.open", lambda *_, **__: pytest.fail("it was opened"))
    refuses(lambda: archives.unpack(path, into), "birds.zip", "damaged or no archive", kind=DataError)
    assert list(into.iterdir()) == []


def test_a_strangers_zip_is_taken(tmp_path, into):
    assert laid_out(archives.unpack(packed(tmp_path / "birds.zip", TWO), into)) == ["robin", "wren"]


def test_an_entry_without_a_name(tmp_path, into):
    path = tmp_path / "birds.zip"
    packed(path, [*TWO, "x"])
    path.write_bytes(path.read_bytes().replace(b"\1\0\0\0x", b"\0\0\0\0x"))
    with contextlib.suppress(DataError):
        unpack(path, into)
    assert len(list(into.iterdir())) <= 1, "all or nothing"


def test_too_many_classes(archive, into, refuses):
    refused(
        packed(archive, [f"{i}/{j}.png" for i in range(5) for j in range(2)]),
        into,
        refuses,
        "more than 4 folders",
        room=Room(classes=4),
    )


def test_a_million_entries(tmp_path, into, refuses, monkeypatch):
    """Not one of them becomes an object: the list is refused by its length."""
    opened = []
    path = tmp_path / "birds.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20):
            archive.writestr(f"robin/{i}", b"")
    content = path.read_bytes()
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    many = content[start:end] * 50_000
    tail = bytearray(content[end:])
    tail[12:16] = len(many).to_bytes(4, "little")
    path.write_bytes(content[:start] + many + bytes(tail))
    monkeypatch.setattr("zipfile.ZipFile", opened.append)
    refused(path, into, refuses, "300,000 entries")
    refused(path, into, refuses, "41,000 entries", room=Room(images=20_000))
    lying = content[:start] + many + bytes(tail[:4]) + b"PK\5\6" + bytes(tail[8:])  # where disks are counted
    path.write_bytes(lying)
    refused(path, into, refuses, "entries" if sys.version_info < (3, 14) else "damaged")
    assert not opened


def test_many_entries_of_a_tar(tmp_path, into, refuses, monkeypatch):
    monkeypatch.setattr(archives, "MOST_ENTRIES", 50)
    refused(packed(tmp_path / "birds.tar", [f"robin/{i}" for i in range(51)], b""), into, refuses, "50 entries")


def test_what_is_encrypted_or_packed_in_rare_ways(tmp_path, into, refuses):
    path = tmp_path / "birds.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("robin/a.png", png())
    refused(path, into, refuses, "compressed in a way")
    packed(path, TWO)
    content = bytearray(path.read_bytes())
    for at in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
        content[at] |= 1
    path.write_bytes(content)
    refused(path, into, refuses, "encrypted")


@pytest.mark.parametrize("name", ["birds.zip", "birds.tar", "birds.tar.gz", "birds.tar.bz2"])
def test_damaged_archives(tmp_path, into, refuses, name):
    """Cut anywhere, or with a byte changed: a sentence, or all that is whole in it; never anything half done."""
    whole = packed(tmp_path / name, TWO).read_bytes()
    rng, said = np.random.default_rng(0), []
    for trial in range(60):
        bad = bytearray(whole)
        if trial % 2:
            bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        else:
            del bad[rng.integers(len(bad)) :]
        (tmp_path / name).write_bytes(bad)
        os.utime(tmp_path / name, (trial, trial))
        try:
            folder = unpack(tmp_path / name, into)
        except DataError as error:
            said.append(str(error))
            assert list(into.iterdir()) == []
        else:
            assert set(laid_out(folder)) <= {"robin", "wren"} or trial % 2
            assert [p.name for p in into.iterdir()] == [folder.name]
            shutil.rmtree(folder)
    assert said
    assert all(name in text and "cannot be unpacked" not in text for text in said), said


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ["No images found"]),
        (["a.png", "b.png"], ["no sub-folder per class"]),
        (["robin/a.txt"], ["No images found"]),
        (["robin.zip", "wren.zip"], ["No images found", "'robin.zip', 'wren.zip'", "Unpack them first"]),
        (["robin/a.png", "robin/b.png"], ["only one class", "robin"]),
        (["robin/a.png", "wren/b.png"], ["only one image"]),
    ],
)
def test_pictures_that_are_no_data_set(archive, into, refuses, names, words):
    refused(packed(archive, names), into, refuses, *words)


def test_a_disk_that_is_nearly_full(archive, into, refuses, monkeypatch):
    monkeypatch.setattr(archives, "LEAST_FREE", 2**60)
    refused(packed(archive, TWO), into, refuses, "nearly full")


def test_no_place_to_unpack_to(tmp_path, refuses):
    (tmp_path / "file").touch()
    refuses(lambda: unpack(packed(tmp_path / "birds.zip", TWO), tmp_path / "file" / "into"), "writable", kind=DataError)
