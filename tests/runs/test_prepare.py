"""The step between a configuration and a run that can start. A configuration itself looks at no file."""

from __future__ import annotations

import json
import os
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from iekd.config.run import RunConfig, make_config
from iekd.data import archives
from iekd.models.artifact import save_model
from iekd.models.catalog import own_models
from iekd.paths import unpacked_dir
from iekd.runs.prepare import prepare, resolve


@pytest.fixture
def zipped(tmp_path, picture_folder) -> Path:
    path = tmp_path / "shapes.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(picture_folder.rglob("*.png")):
            archive.write(file, file.relative_to(picture_folder))
    return path


@pytest.fixture
def own_files_read():
    """The package's own files are read once in a process, which may be while the first configuration is checked."""
    own_models()


@contextmanager
def no_files():
    """Whoever looks at a file meanwhile is told so, however they do it."""

    def looked(path, *_, **__):
        raise AssertionError(f"looked at {path}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("stat", "lstat", "scandir", "listdir", "open", "mkdir", "readlink"):
            patch.setattr(os, name, looked)
        for name in ("is_file", "is_dir", "exists", "resolve", "stat", "open", "mkdir"):
            patch.setattr(Path, name, looked)
        yield


@pytest.mark.usefixtures("own_files_read")
@pytest.mark.parametrize(
    "values",
    [
        {"dataset": "folder:~/birds.zip"}, {"dataset": "folder:birds"}, {"dataset": "folder:/a/b", "cutout": 8},
        {"teacher_from": "nets/a.pth", "teacher_mean": (0.5,), "teacher_std": (0.5,)}, {"teacher_from": "~/net"},
        {"dataset": "cifar10"}, {"dataset": "fashion-mnist-sample"},
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_looks_at_no_file(values):
    with no_files():
        config = make_config(**values)
        assert RunConfig(**json.loads(config.model_dump_json())) == config
    if (config.dataset, config.teacher_from) == (RunConfig().dataset, "auto"):
        return
    names = (config.dataset.removeprefix("folder:"), config.teacher_from)
    assert all(os.path.isabs(name) or name in ("auto", "cifar10", RunConfig().dataset) for name in names), names


def test_an_archive_is_unpacked_when_the_run_is_prepared_and_no_earlier(zipped, tmp_path, tiny_config):
    config = tiny_config(dataset=f"folder:{zipped}")
    assert config.dataset == f"folder:{zipped}"
    assert not unpacked_dir().exists()
    prepared = prepare(config, tmp_path / "runs")
    (unpacked,) = unpacked_dir().iterdir()
    assert prepared.config == config.model_copy(update={"dataset": f"folder:{unpacked.resolve()}"})
    assert (prepared.info.name, prepared.info.classes) == (prepared.config.dataset, 3)
    assert prepared.teacher is None
    assert prepare(prepared.config, tmp_path / "runs") == prepared, "a run that is started again"


def test_links_are_followed(tmp_path, picture_folder, tiny_config):
    (tmp_path / "link").symlink_to(picture_folder)
    assert (
        resolve(tiny_config(dataset=f"folder:{tmp_path / 'link'}"), tmp_path).dataset
        == f"folder:{picture_folder.resolve()}"
    )


def test_a_folder_whose_real_name_is_not_utf8_is_refused(tmp_path, tiny_config, refuses):
    try:
        (tmp_path / "caf\udce9").mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    (tmp_path / "link").symlink_to("caf\udce9")
    refuses(lambda: resolve(tiny_config(dataset=f"folder:{tmp_path / 'link'}"), tmp_path), "caf\\udce9", "Rename it")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dataset": "folder:/no/such/place"}, ["/no/such/place"]),
        ({"teacher_from": "nowhere.pth"}, ["nowhere.pth", "no file"]),
        ({"teacher_from": "a\0b"}, ["no file"]),
        ({"teacher_from": "~no-such-user-of-this-machine/a.pth"}, ["no file"]),
        ({"dataset": "folder:~no-such-user-of-this-machine/pictures"}, ["no folder"]),
        ({"dataset": "folder:/" + "x" * 300}, ["no folder"]),
        ({"dataset": "folder:a\0b"}, ["no folder"]),
    ],
    ids=lambda v: str(v)[:60] if isinstance(v, dict) else "",
)
def test_missing_files_are_reported(values, words, tmp_path, tiny_config, refuses):
    refuses(lambda: prepare(tiny_config(**values), tmp_path), *words)


def test_names_in_this_folder_are_shown_as_they_were_typed(tmp_path, tiny_config, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    refuses(lambda: prepare(tiny_config(teacher_from="nowhere.pth"), tmp_path), "no file 'nowhere.pth'")
    refuses(lambda: prepare(tiny_config(dataset="folder:some/birds"), tmp_path), "no folder 'some/birds'")
    (tmp_path / "net").mkdir()
    refuses(lambda: prepare(tiny_config(teacher_from="net"), tmp_path), "'net' is a folder without a model")


def test_a_file_that_is_not_an_archive_is_reported(tmp_path, tiny_config, refuses):
    (tmp_path / "file").write_text("no archive")
    refuses(lambda: prepare(tiny_config(dataset=f"folder:{tmp_path}/file"), tmp_path), tmp_path / "file", *archives.TAR)


def test_an_unusable_folder_is_reported_before_anything_starts(tmp_path, tiny_config, refuses):
    (tmp_path / "empty").mkdir()
    config = tiny_config(dataset=f"folder:{tmp_path}/empty", teacher="none", methods=("baseline",))
    refuses(lambda: prepare(config, tmp_path), "No images found", tmp_path / "empty")


def test_a_teachers_folder_must_hold_a_model(tmp_path, tiny_config, finished, refuses):
    refuses(
        lambda: prepare(tiny_config(teacher_from=str(tmp_path)), tmp_path), tmp_path, "model.json", "file of weights"
    )
    saved = finished[0].path / "models" / "teacher"
    assert prepare(tiny_config(teacher_from=str(saved)), tmp_path).teacher == saved
    numbers = {"teacher_mean": (0.5,), "teacher_std": (0.5,)}
    refuses(lambda: prepare(tiny_config(teacher_from=str(saved), **numbers), tmp_path), "teacher's file only")


def test_a_missing_device_is_reported(tmp_path, tiny_config, monkeypatch, refuses):
    monkeypatch.setattr("iekd.runs.slots.DRIVERS", ())
    refuses(lambda: prepare(tiny_config(device="cuda"), tmp_path), "'cuda'", "none here")


def test_a_teacher_that_an_earlier_run_has_trained_is_found(tmp_path, tiny_config, finished):
    from iekd.models.artifact import load_model
    from iekd.runs.teachers import teacher_folder

    config = tiny_config()
    save_model(teacher_folder(config, tmp_path), *load_model(finished[0].path / "models" / "teacher"))
    assert prepare(config, tmp_path).teacher == teacher_folder(config, tmp_path)
