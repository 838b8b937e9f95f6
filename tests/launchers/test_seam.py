"""A launcher is chosen by its name, and each run stays with the one that owns it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from iekd.cli import train, where
from iekd.cli.main import app
from iekd.errors import RunError
from iekd.hub_errors import HubError
from iekd.launchers import factory
from iekd.launchers.base import FolderLauncher, Launcher
from iekd.launchers.factory import make_launcher
from iekd.launchers.local import LocalLauncher
from iekd.launchers.ray import RayLauncher
from iekd.runs import grid
from iekd.runs.owner import LOCAL
from iekd.runs.side_by_side import train_all
from iekd.runs.status import FINISHED, LOST, QUEUED, STOPPED
from iekd.runs.store import Run

SHIPPED = list(factory.LAUNCHERS)  # before a test adds one


class FileLauncher(FolderLauncher):
    """Starts nothing: a run lives while it has a file, so that every launcher of this name knows it."""

    name = "files"

    def __init__(self, store, colour: str = "") -> None:
        super().__init__(store)
        self.colour = colour

    def start(self, run: Run, handle: int) -> None:
        (run.path / "lives").touch()

    def alive(self, run_id: str) -> bool:
        return (self.store.get(run_id).path / "lives").exists()

    def kill(self, run: Run) -> bool:
        (run.path / "lives").unlink()
        return True

    def doubt(self, run_id: str) -> str:
        return "The files do not answer." if (self.store.get(run_id).path / "silent").exists() else ""

    def width(self, config) -> int:
        return 3


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(factory.LAUNCHERS, "files", FileLauncher)


@pytest.fixture
def config(tiny_config):
    return tiny_config(methods=("baseline",), teacher="none", epochs=1)


def test_a_launcher_is_made_by_name_with_its_options(tmp_path):
    def takes(launcher: Launcher) -> str:
        return launcher.name

    assert takes(make_launcher(tmp_path)) == LOCAL
    made = make_launcher(tmp_path, "files", colour="red", address="", gpus=None)
    assert (takes(made), made.new.colour) == ("files", "red")
    ray = make_launcher(tmp_path, "ray", address="there:1", gpus=0.5).new
    assert (ray.address, ray.gpus, ray.cpus) == ("http://there:1", 0.5, None)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("rya", {}, ("'rya'", "local", "ray")),
        (LOCAL, {"address": "auto"}, ("--address", "'local'", "--launcher ray")),
        ("ray", {"colour": "red"}, ("--colour", "'ray'", "--launcher files")),
        (LOCAL, {"nobody_takes": 1}, ("--nobody-takes", "Leave it out")),
        ("ray", {"address": "there:port"}, ("'there:port'", "HOST:PORT", "8265")),
        ("ray", {"gpus": 2.0}, ("--gpus 2", "0 to 1")),
        ("ray", {"cpus": 0.0}, ("--cpus 0", "above 0")),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, refuses, name, options, said):
    refuses(lambda: make_launcher(tmp_path, name, **options), *said)


def test_a_launcher_asks_nothing_when_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("iekd.launchers.ray.find_cluster", lambda: pytest.fail("it was looked for"))
    make_launcher(tmp_path)
    make_launcher(tmp_path, "ray")


def test_a_plain_launcher_shows_stops_and_resumes_the_runs_of_others(tmp_path, config):
    run_id = make_launcher(tmp_path, "files").submit(config)
    plain = make_launcher(tmp_path)
    run = plain.store.get(run_id)
    assert (plain.name, run.owner, plain.status(run_id).state) == (LOCAL, "files", QUEUED)
    (run.path / "lives").unlink()
    assert plain.status(run_id).state == LOST
    plain.resume(run_id)
    assert (run.owner, run.status.state, run.attempt) == ("files", QUEUED, 2)
    assert plain.stop_and_wait(run_id, grace=-1).state == STOPPED
    plain.new.resume(run_id)  # by name it is this machine's; see --launcher of `iekd runs resume`
    assert run.owner == LOCAL
    plain.stop_and_wait(run_id)


def test_the_run_of_an_unknown_launcher_is_shown_and_not_touched(tmp_path, config, refuses, monkeypatch):
    run_id = make_launcher(tmp_path, "files").submit(config)
    monkeypatch.delitem(factory.LAUNCHERS, "files")
    plain = make_launcher(tmp_path)
    assert plain.status(run_id).state == QUEUED
    assert plain.logs(run_id) == ("", 0)
    refuses(lambda: plain.request_stop(run_id), "'files'", "not known here", kind=RunError)


def test_an_unknown_state_is_said_and_can_be_given_up(tmp_path, config, monkeypatch):
    run_id = make_launcher(tmp_path, "files").submit(config)
    monkeypatch.setattr("iekd.launchers.base.GRACE", 0.0)
    run = make_launcher(tmp_path).store.get(run_id)

    def iekd(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["runs", *words, "--runs-dir", str(tmp_path)])
        assert result.exit_code == status, result.output
        return " ".join(result.output.split())

    assert "answers" in iekd("stop", "--gone", run_id, status=2)
    (run.path / "silent").touch()
    assert run.status.doubt == "The files do not answer."
    assert "The files do not answer." in iekd("list")
    assert "The files do not answer." in iekd("show", run_id)
    assert "is lost" in iekd("stop", "--gone", run_id)
    assert (run.owner, run.status.doubt) == (LOCAL, "")
    assert "doubt" not in {k for k, v in json.loads((run.path / "status.json").read_text()).items() if v}


def test_later_jobs_start_before_those_that_are_not_ready(tmp_path, config):
    store = make_launcher(tmp_path, "files").store
    launcher, began = FileLauncher(store), []

    def job(number):
        began.append(number)
        return store.get(launcher.submit(config))

    def follow(runs):
        for run in list(runs.values()):
            run.write_status(replace(run.status, state=FINISHED))

    train_all(
        [lambda n=n: job(n) for n in range(3)], launcher, 3, lambda: False, follow,
        lambda number, training: number != 1 or len(began) > 1,
    )  # fmt: skip
    assert began == [0, 2, 1]


def test_the_first_cell_of_a_table_trains_the_teacher_for_all(tmp_path, config, monkeypatch):
    """In a cluster: the workers of this machine see to that themselves."""
    launcher, there, seen = make_launcher(tmp_path, "files"), [], []
    monkeypatch.setattr(grid, "missing_teacher", lambda config, root: "" if there else "resnet8")
    configs = [config.model_copy(update={"seeds": (seed,)}) for seed in range(3)]

    def follow(runs):
        seen.append(len(runs))
        if len(seen) == 2:
            there.append("resnet8")
        if len(seen) > 3:
            for run in runs.values():
                run.write_status(replace(run.status, state=FINISHED))

    grid.run_grid_at_once(configs, launcher, launcher.width(config), lambda: False, follow)
    assert seen[:3] == [1, 1, 3]


def test_a_table_continues_its_cells_where_new_ones_are_trained(tmp_path, config, monkeypatch):
    """Not where they were stopped, which may cost money."""
    launcher, used = make_launcher(tmp_path), []
    monkeypatch.setattr(type(launcher.new), "width", lambda self, config: 2)
    monkeypatch.setattr(grid, "run_grid_at_once", lambda configs, launcher, *_: used.append(launcher) or [])
    train._train_grid([config], launcher)
    assert used == [launcher.new]


def test_a_launcher_that_cannot_look_after_its_runs_leaves_the_others_theirs(tmp_path, monkeypatch, caplog):
    launcher, looked = make_launcher(tmp_path, "files"), []

    def unreachable(self, *_):
        raise HubError("The Hub cannot be reached.")

    monkeypatch.setattr(FileLauncher, "end_stuck", unreachable)
    monkeypatch.setattr(LocalLauncher, "end_stuck", lambda self, *_: looked.append(self.name))
    launcher.end_stuck()
    assert looked == ["local"]
    assert "cannot be reached" in caplog.text


def test_iekd_train_with_another_launcher_follows_or_detaches(tmp_path, tiny_options, monkeypatch):
    def start(self, run, handle):
        run.write_status(replace(run.status, state=FINISHED))

    monkeypatch.setattr(FileLauncher, "start", start)
    monkeypatch.setattr(FileLauncher, "alive", lambda self, run_id: False)
    options = {**tiny_options, "methods": "baseline", "teacher": "none"}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    common = ["train", *words, "--launcher", "files", "--runs-dir", str(tmp_path), "--json"]
    for more in ([], ["--detach"]):
        result = CliRunner().invoke(app, [*common, *more])
        assert result.exit_code == 0, result.output
        run = make_launcher(tmp_path).store.get(json.loads(result.stdout.splitlines()[-1])["run"])
        assert run.owner == "files"
    result = CliRunner().invoke(app, [*common, "--devices", "auto"])
    assert (result.exit_code, "--devices" in result.output) == (2, True)


def test_it_is_a_launcher_like_the_others(tmp_path):
    store = make_launcher(tmp_path).store
    assert [launcher(store).width for launcher in (LocalLauncher, RayLauncher, FileLauncher)]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_help_names_every_launcher(name):
    option = where.OPTIONS[where.NAME].__metadata__[0]
    assert re.search(rf"[ ,]{re.escape(name)}[ ,;]", option.help)
