"""`iekd doctor` on machines with and without trouble."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.config.run import RunConfig
from iekd.data import decoded_cache
from iekd.data.folder import UPLOADED
from iekd.runs import doctor
from iekd.runs.doctor import FINE, NOTE, TROUBLE, examine
from iekd.runs.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def states(store):
    return {finding.name: finding.state for finding in examine(store.root)}


def old(path):
    os.utime(path, (1, 1))
    return path


def test_a_machine_that_can_train_is_fine(store):
    found = states(store)
    assert TROUBLE not in found.values(), examine(store.root)
    assert {"Python", "iekd", "torch", "gradio", "device", "memory", "runs folder", "download folder"} <= found.keys()
    assert not store.root.exists(), "looking makes nothing"


def test_every_trouble_has_a_remedy(store, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "free_memory", lambda: 1e8)
    monkeypatch.setattr(doctor, "LEAST_DISK", 1e18)
    monkeypatch.setattr(doctor, "TORCH", (99, 0))
    monkeypatch.setattr(doctor, "PYTHON", ((2, 6), (2, 7)))
    monkeypatch.setattr(doctor, "device_name", lambda name: "cuda")
    bad = [f for f in examine(store.root) if f.state == TROUBLE]
    assert {f.name for f in bad} == {"Python", "torch", "memory", "runs folder", "download folder", "GPU driver"}
    assert all(f.remedy for f in bad)


def test_an_unwritable_folder_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    found = {f.name: f for f in examine(tmp_path / "file" / "runs")}
    assert found["runs folder"].state == TROUBLE
    assert "--runs-dir" in found["runs folder"].remedy


def test_lost_and_damaged_runs_and_leftovers_are_named_with_what_to_do(store):
    run, handle = store.create(RunConfig())
    os.close(handle)
    (store.root / "broken").mkdir()
    (store.root / "broken" / "config.json").write_text("{")
    for name in (".a.part", ".b.deleted"):
        (store.root / name).mkdir()
        old(store.root / name)
    (store.root / ".c.part").mkdir()  # just being written
    uploads = store.root / UPLOADED
    for name in ("birds-0123456789ab", ".birds-0123456789ab-x.part"):
        (uploads / name).mkdir(parents=True)
        os.utime(uploads / name, (1, 1))
    (uploads / "new-0123456789ab").mkdir()
    (decoded_cache.folder() / ".decoded.part").mkdir(parents=True)
    os.utime(decoded_cache.folder() / ".decoded.part", (1, 1))
    found = {f.name: f for f in examine(store.root)}
    assert found["lost runs"].remedy == f"Resume with: iekd runs resume {run.id}"
    assert found["damaged runs"].found == "broken"
    assert found["leftovers"].found == (
        ".decoded.part, .a.part, .b.deleted, .birds-0123456789ab-x.part, birds-0123456789ab"
    )
    assert {found[name].state for name in ("lost runs", "damaged runs", "leftovers")} == {NOTE}


def test_the_command_says_it_and_cleans(store):
    run, handle = store.create(RunConfig())
    os.close(handle)
    (store.root / ".a.part").mkdir()
    old(store.root / ".a.part")
    (store.root / ".b.part").mkdir()
    command = ["doctor", "--runs-dir", str(store.root)]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0
    assert "iekd doctor --clean" in said.stdout
    assert (store.root / ".a.part").exists()
    answer = json.loads(CliRunner().invoke(app, [*command, "--clean", "--json"]).stdout.splitlines()[-1])
    assert answer["removed"] == [str(store.root / ".a.part")]
    assert answer["trouble"] is False
    assert {"name": "iekd", "state": FINE, "found": answer["findings"][1]["found"], "remedy": ""} in answer["findings"]
    assert not (store.root / ".a.part").exists()
    assert (store.root / ".b.part").exists()
    assert run.path.is_dir()


def test_trouble_is_an_exit_status(store, monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: 1e8)
    said = CliRunner().invoke(app, ["doctor", "--runs-dir", str(store.root)])
    assert said.exit_code == 1
    assert "End other programs" in said.stdout
