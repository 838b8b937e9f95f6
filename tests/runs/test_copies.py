"""Copies of runs elsewhere: while they are trained, when they are over, and back."""

from __future__ import annotations

import os
import zipfile
from html import escape
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.cli.messages import say_how_it_ended
from iekd.cli.runs import runs_show
from iekd.errors import RunError
from iekd.launchers.local import LocalLauncher
from iekd.runs import copies
from iekd.runs.copies import Copies, check_place, copy_run, fetched
from iekd.runs.status import FINISHED, LOST, RUNNING, STOPPED, STOPPING
from iekd.runs.store import Store
from iekd.runs.transfer import import_run
from iekd.runs.variables import COPY_TO
from iekd.runs.worker import execute
from iekd.ui.render.run import head_html


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def elsewhere(tmp_path):
    made = Store(tmp_path / "elsewhere")
    made.root.mkdir()
    return made


@pytest.fixture
def bucket():
    """An object store in this process's memory, empty."""
    fsspec.filesystem("memory").store.clear()
    yield "memory://bucket/runs"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def options(tiny_options):
    return [text for name, value in tiny_options.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def train(store, config, stop=lambda: False):
    run, handle = store.create(config)
    status = execute(run, stop)
    os.close(handle)
    return run, status


def test_a_run_that_is_over_is_in_the_bucket_and_comes_back(store, elsewhere, tiny_config, bucket, monkeypatch):
    monkeypatch.setenv(COPY_TO, bucket)
    run, status = train(store, tiny_config(methods=("baseline",), teacher="none"))
    assert status.state == FINISHED
    assert status.copy_error == ""
    with fetched(f"{bucket}/{run.id}.zip") as file:
        again = import_run(elsewhere, file)
    assert again.status.state == FINISHED
    assert again.report == run.report
    assert not file.exists()


def test_a_copy_made_during_training_can_be_resumed(
    store, elsewhere, tiny_config, bucket, monkeypatch, checkpoints_everywhere
):
    """As if the shared disk were gone: only what was in the bucket in the middle of training is left."""
    monkeypatch.setattr(copies, "EVERY", 0.0)
    monkeypatch.setattr(copies, "POLL", 0.01)
    monkeypatch.setenv(COPY_TO, bucket)
    kept = {}

    def stop():
        files = fsspec.filesystem("memory")
        for path in files.glob("/bucket/runs/*.zip"):
            kept.setdefault("zip", files.cat_file(path))
        return "zip" in kept

    config = tiny_config(methods=("baseline",), teacher="none", epochs=200)
    _, status = train(store, config, stop)
    assert status.state == STOPPED, status.error
    (elsewhere.root / "copy.zip").write_bytes(kept["zip"])
    again = import_run(elsewhere, elsewhere.root / "copy.zip")
    assert again.status.state == LOST
    names = zipfile.ZipFile(elsewhere.root / "copy.zip").namelist()
    assert any("/checkpoints/" in name for name in names)
    handle = again.reopen()
    assert execute(again, lambda: len(again.metrics()[0]) > 20).state == STOPPED
    os.close(handle)
    assert again.status.attempt == 2
    assert "Continuing" in (again.path / "log.txt").read_text()


def test_a_place_that_is_gone_does_not_spoil_the_run(store, tiny_config, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(COPY_TO, str(tmp_path / "file" / "copies"))
    run, status = train(store, tiny_config(methods=("baseline",), teacher="none"))
    assert status.state == FINISHED
    assert f"Cannot write '{tmp_path / 'file'}" in run.status.copy_error
    assert escape(run.status.copy_error) in head_html(run, run.config, run.status, store)
    assert not any("Cannot" in said for said in status.cautions)  # those are published with the student
    say_how_it_ended(run, False)
    assert "Cannot write" in "".join(capsys.readouterr().err.splitlines())
    runs_show(run.id, store.root)
    assert "Cannot write" in "".join(capsys.readouterr().out.splitlines())


def test_a_broken_copy_leaves_the_one_before(store, tiny_config, tmp_path, monkeypatch):
    run, _ = train(store, tiny_config(methods=("baseline",), teacher="none"))
    place = str(tmp_path / "copies")
    first = copy_run(run, place)
    before = Path(first).read_bytes()

    def breaks(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copies.shutil, "copyfile", breaks)
    with pytest.raises(RunError, match="is full"):
        copy_run(run, place)
    assert Path(first).read_bytes() == before


def test_a_checkpoint_that_goes_away_meanwhile_is_no_trouble(store, tiny_config, bucket, monkeypatch):
    run, _ = train(store, tiny_config(methods=("baseline",), teacher="none"))
    write, tried = copies.write_archive, []

    def first_one_fails(*arguments):
        tried.append(1)
        if len(tried) == 1:
            raise FileNotFoundError(2, "No such file", "state.safetensors")
        write(*arguments)

    monkeypatch.setattr(copies, "write_archive", first_one_fails)
    assert copy_run(run, bucket) == f"{bucket}/{run.id}.zip"
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nothing://bucket", "nothing"),
        ("memory-of-elephants://", "Check the address"),
        ("/proc/version/copies", "/proc/version/copies"),
    ],
)
def test_a_place_that_takes_nothing_is_refused_before_anything_starts(place, said, tmp_path, options, monkeypatch):
    monkeypatch.setenv(COPY_TO, "")  # and so forgotten after the test
    result = CliRunner().invoke(app, ["train", *options, "--copy-to", place, "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert said in result.output.replace("\n", "")
    assert not list((tmp_path / "runs").glob("2*"))


def test_a_password_is_in_no_log(store, tiny_config, monkeypatch):
    place = "sftp://ann:secret@host/runs"
    with pytest.raises(RunError, match="password") as refused:
        check_place(place)
    assert "secret" not in str(refused.value)
    monkeypatch.setenv(COPY_TO, place)  # without the command line
    run, status = train(store, tiny_config(methods=("baseline",), teacher="none"))
    assert status.state == FINISHED
    assert "password" in status.copy_error
    assert not [path for path in run.path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_a_worker_that_copies_its_run_is_not_killed(store, tiny_config):
    """It was asked to stop, has stopped, and is still copying when others lose patience."""
    launcher = LocalLauncher(store)
    run, handle = store.create(tiny_config())
    status = run.status
    status.state = RUNNING
    run.write_status(status)
    launcher.request_stop(run.id)
    status.state = STOPPED
    run.write_status(status)
    killed = []
    launcher.kill = lambda run: killed.append(run.id)
    launcher.end_stuck(grace=0.0, saving=0.0)
    assert killed == []
    status.state = STOPPING
    run.write_status(status)
    launcher.end_stuck(grace=0.0, saving=0.0)
    assert killed == [run.id]
    os.close(handle)


def test_what_is_being_written_is_not_copied(store, tiny_config, bucket):
    run, handle = store.create(tiny_config())
    part = run.path / "checkpoints" / ".students-00000001.part"
    part.mkdir(parents=True)
    (part / "state.safetensors").write_bytes(b"half")
    address = copy_run(run, bucket)
    os.close(handle)
    with fetched(address) as file:
        assert not [name for name in zipfile.ZipFile(file).namelist() if "part" in name]
    assert not list(store.root.glob(".copy-*"))


def test_a_full_disk_is_said_as_such(store, tiny_config, bucket, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    run, handle = store.create(tiny_config())
    os.close(handle)
    monkeypatch.setattr(copies.tempfile, "TemporaryDirectory", full)
    with pytest.raises(RunError, match="Free some space"):
        copy_run(run, bucket)


def test_the_command_copies_and_imports(tmp_path, options, monkeypatch):
    monkeypatch.setenv(COPY_TO, "")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", *options, "--runs-dir", "runs", "--copy-to", "copies"])
    assert result.exit_code == 0, result.output
    (copied,) = (tmp_path / "copies").iterdir()
    result = CliRunner().invoke(app, ["runs", "import", copied.as_uri(), "--runs-dir", "others"])
    assert result.exit_code == 0, result.output
    assert Store(tmp_path / "others").get(copied.stem).status.state == FINISHED


def test_nothing_is_left_at_a_place_that_was_tried(bucket):
    assert check_place(bucket) == bucket
    assert fsspec.filesystem("memory").find("/") == []


def test_without_a_place_nothing_happens(store, tiny_config):
    run, _ = store.create(tiny_config())
    with Copies(run, "") as none:
        none.copy_at_last(run.status)
    assert run.status.copy_error == ""
