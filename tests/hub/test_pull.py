"""Pulling: safetensors only, one commit, whole or not at all, and clear words without the Hub."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path

import pytest

from iekd.errors import UserError
from iekd.hub.pull import TAKEN, pull, pulled
from iekd.hub_errors import HubError
from iekd.paths import cache_dir

FILES = ["model.json", "model.safetensors", "source.json"]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_pull_brings_the_model_and_says_which_commit_it_is(hub, pushed_with, finished):
    commit = pushed_with().commit
    found = pull("ann/pets")
    assert (found.commit, found.fetched, found.repo) == (commit, True, "ann/pets")
    assert names(found.folder) == FILES
    own = finished[0].model_folders["ie-ft-seed0"] / "model.safetensors"
    assert (found.folder / "model.safetensors").read_bytes() == own.read_bytes()
    assert json.loads((found.folder / "source.json").read_text()) == {
        "repo": "ann/pets", "revision": None, "commit": commit, "from": hub.address,
    }  # fmt: skip
    assert found.folder.is_relative_to(cache_dir())


def test_what_is_here_is_not_fetched_again(hub, pushed_with):
    pushed_with()
    first = pull("ann/pets")
    hub.requests.clear()
    again = pull("hf:ann/pets")
    assert (again.folder, again.fetched) == (first.folder, False)
    assert hub.asked("/resolve/") == 0


def test_a_newer_version_is_fetched_and_the_old_one_stays(hub, pushed_with):
    pushed_with()
    old = pull("ann/pets")
    pushed_with(learner="baseline-seed0")
    new = pull("ann/pets")
    assert new.commit != old.commit
    assert names(old.folder) == FILES
    assert pull(f"ann/pets@{old.commit}").folder == old.folder


def test_a_revision_is_what_was_asked_for(hub, pushed_with, refuses):
    first = pushed_with()
    pushed_with(learner="baseline-seed0")
    assert pull(f"ann/pets@{first.commit}").commit == first.commit
    refuses(lambda: pull("ann/pets@v9"), "no such revision", kind=HubError)


def test_nothing_but_the_two_files_is_fetched(hub, pushed_with):
    pushed_with()
    files = hub.repo("ann/pets").files
    hub.repo("ann/pets").add("more", {**files, "pytorch_model.bin": pickle.dumps(1), "evil.py": b"1", "big": b"0" * 99})
    pull("ann/pets")
    fetched = {path.rpartition("/")[2] for method, path, _ in hub.requests if "/resolve/" in path}
    assert fetched == set(TAKEN)


def test_pickles_are_refused_by_name(hub, pushed_with, refuses):
    pushed_with()
    repo = hub.repo("ann/pets")
    repo.add("pickled", {"model.json": repo.files["model.json"], "pytorch_model.bin": pickle.dumps(1)})
    refuses(lambda: pull("ann/pets"), "model.safetensors", "pytorch_model.bin", "can run code", kind=HubError)
    assert not list(cache_dir().rglob("*.bin"))


def test_a_file_that_is_too_large_is_not_fetched(hub, pushed_with, refuses, monkeypatch):
    pushed_with()
    monkeypatch.setitem(TAKEN, "model.safetensors", 1000)
    refuses(lambda: pull("ann/pets"), "'model.safetensors'", "1,000", kind=HubError)
    assert hub.asked("/resolve/") == 0


def test_what_is_no_model_card_is_refused_and_not_kept(hub, pushed_with):
    pushed_with()
    repo = hub.repo("ann/pets")
    repo.add("broken", {**repo.files, "model.json": b"[]"})
    with pytest.raises(UserError, match="not a model card"):
        pull("ann/pets")
    assert not list(cache_dir().rglob("model.safetensors"))


@pytest.mark.parametrize("how", [{"status": 500}, {"how": "cut"}])
def test_a_download_that_ends_in_the_middle_leaves_nothing(hub, pushed_with, refuses, how):
    pushed_with()
    hub.fail("model.safetensors", method="GET", **how)
    refuses(lambda: pull("ann/pets"), "'model.safetensors' was not fetched", kind=HubError)
    assert not list(cache_dir().rglob("*.safetensors"))
    hub.failures.clear()
    assert names(pull("ann/pets").folder) == FILES


def test_bytes_that_are_not_those_of_the_sum_are_refused(hub, pushed_with, refuses):
    pushed_with()
    weights = bytearray(hub.repo("ann/pets").files["model.safetensors"])
    weights[-1] ^= 1
    hub.swapped["model.safetensors"] = bytes(weights)
    refuses(lambda: pull("ann/pets"), "arrived damaged", kind=HubError)
    assert not list(cache_dir().rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ann/nothing", ["There is no 'ann/nothing'", "private"]),
        ("pets", ["'pets'", "ORG/NAME"]),
        ("ann/pets/more", ["ORG/NAME"]),
        ("../etc", ["ORG/NAME"]),
        ("ann/..", ["ORG/NAME"]),
        ("ann/pets@", ["no revision"]),
    ],
)
def test_names_that_are_nothing(hub, refuses, name, words):
    refuses(lambda: pull(name), *words)


def test_private_repositories_need_a_token(hub, pushed_with, refuses, monkeypatch):
    pushed_with(private=True)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: None)
    refuses(lambda: pull("ann/pets"), "may be read from here", "private", "hf auth login", kind=HubError)
    assert pull("ann/pets", token="hf_writer").fetched


def test_gated_repositories(hub, pushed_with, refuses):
    pushed_with()
    hub.repo("ann/pets").gated = True
    refuses(lambda: pull("ann/pets"), "has to be requested", kind=HubError)


def test_without_the_hub_the_copy_is_used_and_said(hub, pushed_with, refuses):
    pushed_with()
    folder = pull("ann/pets").folder
    hub.close()
    found = pull("ann/pets")
    assert (found.folder, found.fetched) == (folder, False)
    assert "cannot be reached" in found.note
    assert "Using the copy" in found.note
    assert pulled("hf:ann/pets") == folder
    refuses(lambda: pull("ann/other"), "cannot be reached", "no copy", kind=HubError)


def test_a_deleted_repository_is_not_replaced_by_the_copy(hub, pushed_with, refuses):
    pushed_with()
    pull("ann/pets")
    hub.repos.clear()
    refuses(lambda: pull("ann/pets"), "There is no 'ann/pets'", kind=HubError)


def test_too_many_requests_without_a_copy(hub, pushed_with, refuses):
    pushed_with()
    hub.fail("/api/models/ann/pets", status=429, headers={"retry_after": "11"})
    refuses(lambda: pull("ann/pets"), "in 11 seconds", kind=HubError)


def test_a_full_disk_and_a_cache_that_cannot_be_written(hub, pushed_with, refuses, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    pushed_with()
    with monkeypatch.context() as patch:
        patch.setattr("iekd.hub.pull.write_json", full)
        refuses(lambda: pull("ann/pets"), "No space left", "Nothing was fetched", kind=HubError)
    folder = pull("ann/pets").folder
    monkeypatch.setattr("iekd.hub.pull.write_json", full)
    assert pull("ann/pets").folder == folder, "it is here already; that the name cannot be noted is no harm"


def test_this_folder(hub, pushed_with, tmp_path, monkeypatch):
    pushed_with()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    pull("ann/pets", Path("."))
    assert names(tmp_path / "here") == FILES


def test_a_folder_of_ones_own(hub, pushed_with, tmp_path, refuses):
    pushed_with()
    out = tmp_path / "pets"
    assert pull("ann/pets", out).folder == out
    assert names(out) == FILES
    pushed_with(learner="baseline-seed0")
    pull("ann/pets", out)
    assert json.loads((out / "model.json").read_text())["method"] == "baseline"
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.tex").write_text("years of work")
    refuses(lambda: pull("ann/pets", other), str(other), "--out", kind=HubError)
    assert names(other) == ["chapter1.tex"]
