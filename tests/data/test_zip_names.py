"""Names in zips of other systems: read as they were meant, or said to be a guess; never two classes as one."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from iekd import data
from iekd.data.zip_names import names_of
from iekd.errors import DataError


def zip_of(path, names: list[bytes], utf8: list[str] | None = None):
    """A zip whose folders have these names, without the flag that says UTF-8; two images each.

    utf8: the names in UTF-8, for the field that some packers add.
    """
    rng, content = np.random.default_rng(0), b""
    stand_ins = [(chr(0x41 + k) + "~" * (len(raw) - 1)).encode() for k, raw in enumerate(names)]
    with zipfile.ZipFile(path, "w") as archive:
        for k, stand_in in enumerate(stand_ins):
            for i in range(2):
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(file, "PNG")
                entry = zipfile.ZipInfo(f"{stand_in.decode()}/{i}.png")
                if utf8:
                    name = (
                        b"\1" + struct.pack("<I", zlib.crc32(names[k] + b"/%d.png" % i)) + f"{utf8[k]}/{i}.png".encode()
                    )
                    entry.extra = struct.pack("<HH", 0x7075, len(name)) + name
                archive.writestr(entry, file.getvalue())
    content = path.read_bytes()
    for stand_in, raw in zip(stand_ins, names, strict=True):
        for i in range(2):
            assert content.count(stand_in + b"/%d.png" % i) == 2, "in its header, and in the list of all"
            content = content.replace(stand_in + b"/%d.png" % i, raw + b"/%d.png" % i)
    path.write_bytes(content)
    return path


WRITTEN = [
    (["水果/苹果", "水果/葡萄", "水果/香蕉"], "gbk"), (["猫", "狗"], "gbk"), (["貓", "狗"], "big5"),
    (["犬", "猫", "テスト"], "shift_jis"), (["表", "ソース"], "shift_jis"),  # whose second bytes are backslashes
    (["고양이", "개"], "euc_kr"), (["кошки", "собаки"], "cp866"), (["кошки", "собаки"], "cp1251"),
    (["Äpfel", "Birnen"], "cp850"), (["éléphant", "chèvre"], "cp437"), (["Ünï", "wren"], "utf-8"),
    (["łąka", "wren"], "cp1250"), (["źdźbło", "wren"], "cp852"), (["σκύλος", "γάτα"], "cp1253"),
]  # fmt: skip


@pytest.mark.parametrize(("folders", "encoding"), WRITTEN, ids=[f"{e}-{len(f)}" for f, e in WRITTEN])
def test_names_are_read_as_they_were_written(tmp_path, monkeypatch, folders, encoding):
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    path = zip_of(tmp_path / "images.zip", [name.encode(encoding) for name in folders])
    info = data.describe(f"folder:{path}")
    assert info.class_names == tuple(sorted(name.rpartition("/")[2] for name in folders))
    assert any("does not say how its names are encoded" in note for note in info.notes) == (encoding != "utf-8")


@pytest.mark.parametrize(
    ("folders", "encoding", "read_as", "also"),
    [
        (["кот", "пес"], "koi8-r", "KOI8-R, as in 'кот', 'пес'", "CP1251 ('ЛПФ')"),
        (["Äpfel", "Birnen"], "cp850", "CP850, as in 'Äpfel'", "CP1252 ('Žpfel')"),
        (["一", "cat"], "gbk", "UTF-8, as in 'һ'", "GB18030 ('一')"),  # valid UTF-8 by chance
    ],
)
def test_a_guess_from_few_bytes_says_what_else_is_possible(tmp_path, monkeypatch, folders, encoding, read_as, also):
    """In the notes of the dataset, which the page, the log and the report show."""
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    path = zip_of(tmp_path / "images.zip", [name.encode(encoding) for name in folders])
    info = data.describe(f"folder:{path}")
    (said,) = [note for note in info.notes if "how its names are encoded" in note]
    assert read_as in said
    assert also in said
    assert said in data.load(info.name, resolution=8).notes


@pytest.mark.parametrize(
    ("folders", "encoding"),
    [(["café", "thé"], "utf-8"), (["猫", "狗狗狗"], "utf-8"), (["水果苹果", "葡萄香蕉"], "gbk")],
)
def test_names_that_tell_are_not_doubted(tmp_path, monkeypatch, folders, encoding):
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    path = zip_of(tmp_path / "images.zip", [name.encode(encoding) for name in folders])
    assert "may also be" not in " ".join(data.describe(f"folder:{path}").notes)


def test_a_name_in_utf8_beside_the_other_is_the_one_that_counts(tmp_path):
    names = ["čaj", "kůň"]
    path = zip_of(tmp_path / "images.zip", [name.encode("cp1250") for name in names], utf8=names)
    with zipfile.ZipFile(path) as archive:
        names, notes = names_of(archive.infolist())
    assert {name.partition("/")[0] for name in names} == {"čaj", "kůň"}
    assert notes == []


def test_two_names_never_become_one(tmp_path, monkeypatch):
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "cache"))
    rng = np.random.default_rng(1)
    names = sorted({bytes(rng.integers(0x80, 0x100, 3, np.uint8)) for _ in range(12)})
    path = zip_of(tmp_path / "images.zip", names)
    refusal, found = "", 0
    try:
        found = data.describe(f"folder:{path}").classes
    except DataError as error:
        refusal = str(error)
    assert found == len(names) or "is no name" in refusal
