from __future__ import annotations

import os
from pathlib import Path

import pytest

from iekd import paths
from iekd.config.run import make_config
from iekd.data import archives
from iekd.errors import UserError
from iekd.models.source import check_path

UNWRITABLE = Path("/proc/nothing")  # where not even root can make a folder


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/a b", "/a b"), (" /a ", "/a"), ("'/a b'", "/a b"), ('"/a b"', "/a b"), (" '/a' ", "/a"), ("“/a”", "/a"),
        ("\"'/a'\"", "/a"), ("' /a '", "/a"), ("file:///a%20b", "/a b"), ("'file:///a'", "/a"),
        ("file://localhost/a", "/a"), ("/it's", "/it's"), ("'/a", "'/a"), ("'", "'"), ("''", ""), ("", ""),
        ("/a'b'", "/a'b'"), ("/100%20", "/100%20"),
    ],
)  # fmt: skip
def test_what_is_put_around_a_path_is_dropped(text, path):
    assert paths.typed(text) == path


@pytest.mark.parametrize("around", ["'{}'", '"{}"', " {} ", "file://{}"])
def test_pasted_paths_are_found_wherever_one_is_typed(around, picture_folder, tmp_path, refuses):
    file = tmp_path / "teacher.pth"
    file.write_bytes(b"")
    pasted = around.format(file)
    assert check_path(pasted) == str(file)
    config = make_config(dataset=f"folder:{around.format(picture_folder)}", teacher_from=pasted)
    assert config.dataset == f"folder:{picture_folder}"
    assert config.teacher_from == str(file)


def test_a_cache_that_cannot_be_written_names_itself_and_the_variable(monkeypatch, refuses, tmp_path):
    monkeypatch.setenv("IEKD_CACHE_DIR", str(UNWRITABLE / "cache"))
    said = (f"'{UNWRITABLE / 'cache'}'", "IEKD_CACHE_DIR")
    refuses(lambda: paths.make_cache_dir(paths.unpacked_dir()), *said)
    monkeypatch.delenv("IEKD_CACHE_DIR")
    monkeypatch.setenv("HOME", str(UNWRITABLE))
    refuses(lambda: paths.make_cache_dir(paths.cache_dir()), f"'{UNWRITABLE / '.cache' / 'iekd'}'", "IEKD_CACHE_DIR")
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path / "new"))
    assert paths.make_cache_dir(paths.unpacked_dir()).is_dir()
    assert list(paths.unpacked_dir().iterdir()) == []


def test_an_archive_and_a_download_say_so(monkeypatch, refuses, picture_folder, tmp_path):
    import shutil

    packed = shutil.make_archive(str(tmp_path / "mine"), "zip", picture_folder)
    from iekd import data

    monkeypatch.setenv("IEKD_CACHE_DIR", str(UNWRITABLE))
    refuses(lambda: data.prepare(f"folder:{packed}"), str(UNWRITABLE), "IEKD_CACHE_DIR")
    refuses(lambda: data.load("cifar10"), str(UNWRITABLE), "IEKD_CACHE_DIR")


def test_uploads_do_not_name_the_cache(monkeypatch, picture_folder, tmp_path):
    """They are beside the runs, whose folder strangers are not told."""
    import shutil

    packed = Path(shutil.make_archive(str(tmp_path / "mine"), "zip", picture_folder))
    with pytest.raises(UserError) as error:
        archives.unpack(packed, UNWRITABLE / ".pictures")
    assert "IEKD_CACHE_DIR" not in str(error.value)
    assert "/proc" not in str(error.value)


def test_a_user_without_a_home_still_has_a_cache(monkeypatch):
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("IEKD_CACHE_DIR")
    monkeypatch.setattr(Path, "home", none)
    assert os.access(paths.cache_dir().parents[1], os.W_OK)
