"""Pushing: one commit, nothing half done that is called done, and words that help."""

from __future__ import annotations

import json
import shutil

import pytest

from iekd.hub_errors import HubError
from iekd.models.artifact import ModelCard, load_model

STUDENT = {"README.md", "config.json", "curves.png", "iekd.json", "model.json", "model.safetensors"}


def test_a_push_is_one_commit_beyond_the_creation(hub, pushed_with):
    done = pushed_with()
    repo = hub.repo("ann/pets")
    assert [title for _, title, _ in repo.commits] == ["initial commit", "Student pushed with iekd 0.2.0"]
    assert hub.asked("/commit/", "POST") == 1
    assert hub.asked("/api/repos/create") == 1
    assert set(repo.files) >= STUDENT
    assert (done.commit, done.created, done.changed) == (repo.head, True, True)
    assert done.url == f"{hub.address}/ann/pets"
    assert not repo.private


def test_what_arrives_is_the_model(hub, pushed_with, finished, tmp_path):
    import torch

    pushed_with()
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes(hub.repo("ann/pets").files[name])
    there, card = load_model(tmp_path)
    here, own = load_model(finished[0].model_folders["ie-ft-seed0"])
    assert (card.class_names, card.mean, card.accuracy) == (own.class_names, own.mean, own.accuracy)
    pixels = torch.rand(2, 3, 16, 16)
    assert torch.equal(there(pixels).logits, here(pixels).logits)
    config = json.loads(hub.repo("ann/pets").files["config.json"])
    assert config["id2label"] == {str(i): name for i, name in enumerate(own.class_names)}


def test_pushing_the_same_again_makes_no_commit(hub, pushed_with):
    first, second = pushed_with(), pushed_with()
    assert len(hub.repo("ann/pets").commits) == 2
    assert (second.created, second.changed, second.commit) == (False, False, first.commit)


def test_another_student_replaces_the_first_in_one_commit_and_old_files_go(hub, pushed_with):
    pushed_with()
    repo = hub.repo("ann/pets")
    files = dict(repo.files)
    mark = json.loads(files["iekd.json"])
    mark["files"].append("model.onnx")
    files |= {
        "iekd.json": json.dumps(mark).encode(),
        "model.onnx": b"of the first student",
        "photo.txt": b"the owner's",
    }
    repo.add("as if it had been pushed with an ONNX", files)
    done = pushed_with(learner="baseline-seed0")
    assert done.changed
    assert not done.created
    assert len(repo.commits) == 4
    assert json.loads(repo.files["model.json"])["method"] == "baseline"
    assert "model.onnx" not in repo.files, "it is of another student than the weights beside it"
    assert repo.files["photo.txt"] == b"the owner's"


@pytest.mark.parametrize("what", ["run", "student"])
def test_repositories_that_hold_something_else_are_left_alone(hub, pushed_with, refuses, what):
    from stand_in import Repo

    kind = {"run": "dataset", "student": "model"}[what]
    other = hub.repos[kind, "ann/pets"] = Repo(kind, False)
    other.add("initial commit", {".gitattributes": b"", "pytorch_model.bin": b"somebody's work"})
    text = refuses(lambda: pushed_with(what), "ann/pets", "--force", "Nothing was sent", kind=HubError)
    assert "files that iekd has not pushed" in text
    assert len(other.commits) == 1
    pushed_with(what, force=True)
    assert len(other.commits) == 2
    assert other.files["pytorch_model.bin"] == b"somebody's work"


def test_an_empty_repository_made_on_the_page_of_the_hub_is_filled(hub, pushed_with):
    from stand_in import Repo

    made = hub.repos["model", "ann/pets"] = Repo("model", True)
    made.add("initial commit", {".gitattributes": b"", "README.md": b"---\nlicense: mit\n---\n"})
    assert pushed_with(private=True).created is False
    assert made.private


def test_private_is_private_from_the_start_and_never_a_public_repository(hub, pushed_with, refuses):
    pushed_with(private=True)
    assert hub.repo("ann/pets").private
    pushed_with(repo="ann/open")
    refuses(
        lambda: pushed_with(repo="ann/open", learner="baseline-seed0", private=True), "public already", kind=HubError
    )
    assert len(hub.repo("ann/open").commits) == 2


@pytest.mark.parametrize(
    ("part", "how", "words"),
    [
        ("/api/repos/create", {"status": 500}, ["status 500", "The repository was not made"]),
        ("/api/repos/create", {"how": "cut"}, ["cannot be reached, or the connection was cut"]),
        ("/api/repos/create", {"status": 409}, ["may not see it", "another name", "The repository was not made"]),
        ("/preupload/", {"status": 429, "headers": {"retry_after": "7"}}, ["in 7 seconds", "still empty"]),
        ("/objects/batch", {"status": 500}, ["status 500", "still empty", "nothing was committed"]),
        ("/lfs/", {"status": 500}, ["status 500", "still empty"]),
        ("/lfs/", {"how": "cut"}, ["connection was cut", "still empty"]),
        ("/commit/", {"status": 500}, ["status 500", "still empty"]),
        ("/commit/", {"status": 429, "headers": {"retry_after": "30"}}, ["in 30 seconds", "still empty"]),
        ("/commit/", {"status": 413, "text": "too much"}, ["too large (too much)", "still empty"]),
        ("/commit/", {"how": "cut"}, ["connection was cut", "still empty"]),
        ("/commit/", {"how": "change"}, ["changed by somebody else", "still empty"]),
    ],
)  # fmt: skip
def test_a_push_that_fails_says_what_is_on_the_hub(hub, pushed_with, refuses, part, how, words):
    hub.fail(part, **how)
    refuses(pushed_with, *words, kind=HubError)
    repo = hub.repos.get(("model", "ann/pets"))
    assert repo is None or not STUDENT & set(repo.files)
    hub.failures.clear()
    if how.get("how") != "change":
        assert pushed_with().changed, "the same command again ends what was begun"
        assert set(hub.repo("ann/pets").files) >= STUDENT


def test_a_second_push_that_fails_leaves_the_first(hub, pushed_with, refuses):
    pushed_with()
    hub.fail("/commit/", status=500)
    refuses(lambda: pushed_with(learner="baseline-seed0"), "as it was", kind=HubError)
    assert json.loads(hub.repo("ann/pets").files["model.json"])["method"] == "ie-ft"


def test_a_commit_whose_answer_is_lost_is_found(hub, pushed_with):
    hub.fail("/commit/", how="after")
    done = pushed_with()
    assert len(hub.repo("ann/pets").commits) == 2
    assert done.commit == hub.repo("ann/pets").head


def test_nobody_calls_it_done_when_the_hub_is_gone_after_the_commit(hub, pushed_with, refuses):
    pushed_with()
    hub.fail("/commit/", how="gone")
    refuses(
        lambda: pushed_with(learner="baseline-seed0"), "cannot be seen now", f"{hub.address}/ann/pets", kind=HubError
    )


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        ("hf_nonsense", "ann/pets", ["does not accept the token", "hf auth login", "write", "Nothing was sent"]),
        ("hf_reader", "ann/pets", ["may not do this with 'ann/pets'", "rights", "nothing was sent"]),
        ("hf_writer", "bob/pets", ["may not do this with 'bob/pets'", "another name", "nothing was sent"]),
    ],
)
def test_tokens_that_may_not(hub, pushed_with, refuses, token, repo, words):
    refuses(lambda: pushed_with(repo=repo, token=token), *words, kind=HubError)
    assert not hub.repos


def test_a_repository_of_others_is_refused_before_anything_is_uploaded(hub, pushed_with, refuses):
    pushed_with()
    hub.requests.clear()
    refuses(lambda: pushed_with(learner="baseline-seed0", token="hf_reader"), "may not", "as it was", kind=HubError)
    assert hub.asked("/lfs/") == 0


def test_a_licence_that_the_hub_does_not_know(hub, pushed_with, refuses):
    refuses(lambda: pushed_with(license="mine"), "license", "must be one of", "still empty", kind=HubError)
    assert hub.asked("/lfs/") == 0


@pytest.mark.parametrize("license", ["MIT", "my licence", "cc by"])
def test_a_licence_that_cannot_be_one_is_refused_before_anything_is_made(hub, pushed_with, refuses, license):
    refuses(lambda: pushed_with(license=license), license, "lower case")
    assert not hub.requests


def test_without_a_token_one_sentence_says_what_to_do(monkeypatch, refuses):
    from iekd.hub import push

    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    refuses(push.machine_token, "hf auth login", "HF_TOKEN", kind=HubError)


def test_the_hub_is_asked_with_the_given_token_only(hub, pushed_with):
    pushed_with()
    assert {token for _, path, token in hub.requests if path.startswith("/api/")} == {"hf_writer"}


def test_a_network_without_onnx_is_pushed_with_a_note(hub, finished, no_export):
    from iekd.hub.contents import gathered

    run = finished[0]
    with gathered("student", "ann/pets", run=run, model=run.model_folders["teacher"]) as contents:
        assert contents.notes == ["Without model.onnx: This network cannot be exported."]
        assert "model.onnx" not in contents.files
        assert b"onnxruntime" not in contents.files["README.md"]


def test_offline(hub, pushed_with, refuses):
    hub.close()
    refuses(pushed_with, "cannot be reached", "Nothing was sent", kind=HubError)


def test_a_run_becomes_a_dataset_repository_that_opens_again(hub, pushed_with, finished, tmp_path):
    from iekd.runs.store import Store

    pushed_with("run", "ann/run")
    repo, run = hub.repo("ann/run", "dataset"), finished[0]
    assert len(repo.commits) == 2
    for name, data in repo.files.items():
        target = tmp_path / "runs" / run.id / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    there = Store(tmp_path / "runs").get(run.id)
    assert there.status.state == "finished"
    assert there.report["learners"] == run.report["learners"]
    assert there.metrics()[0] == run.metrics()[0]
    assert set(there.model_folders) == set(run.model_folders)
    assert ModelCard.read(there.model_folders["teacher"]).params == ModelCard.read(run.model_folders["teacher"]).params


@pytest.mark.parametrize(("what", "damaged"), [("run", "report.json"), ("student", "metrics.jsonl")])
def test_a_damaged_run_is_a_sentence(finished, no_export, tmp_path, refuses, what, damaged):
    from iekd.hub.contents import gathered
    from iekd.runs.store import Store

    shutil.copytree(finished[0].path, tmp_path / finished[0].id)
    (tmp_path / finished[0].id / damaged).write_text("{\n")
    run = Store(tmp_path).get(finished[0].id)
    model = run.model_folders["teacher"] if what == "student" else None
    refuses(lambda: gathered(what, "ann/x", run=run, model=model).__enter__(), "cannot be read", "run's folder")


def test_a_run_that_is_going_is_not_pushed(hub, launcher, tiny_config, refuses):
    from iekd.errors import RunError
    from iekd.hub.contents import gathered
    from iekd.runs.store import released

    run, handle = launcher.store.create(tiny_config())
    with released(handle):
        refuses(lambda: gathered("run", "ann/run", run=run).__enter__(), "still queued", kind=RunError)


def test_a_demo_becomes_a_static_space(hub, finished, monkeypatch):
    """With a page made here: the real one is tested where it is made, and in test_privacy.py."""
    from iekd.hub.contents import gathered
    from iekd.hub.push import push

    def make(folders, out, *, license, examples, title):
        out.mkdir()
        (out / "index.html").write_text(f"{title}: {', '.join(folder.name for folder in folders)}")
        (out / "README.md").write_text(f"---\nsdk: static\nlicense: {license}\n---\n{examples} examples")

    monkeypatch.setattr("iekd.runs.export.export_saved_page", make)
    run = finished[0]
    with gathered("demo", "ann/demo", run=run, model=run.model_folders["ie-ft-seed0"], license="mit") as contents:
        done = push(contents, "ann/demo", "hf_writer")
        assert any("--examples" in note for note in contents.notes)
    repo = hub.repo("ann/demo", "space")
    assert repo.sdk == "static"
    assert len(repo.commits) == 2
    assert repo.files["index.html"] == b"demo: teacher, ie-ft-seed0"
    assert b"0 examples" in repo.files["README.md"], "the pictures are the user's own"
    assert done.url == f"{hub.address}/spaces/ann/demo"
