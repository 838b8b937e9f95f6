"""Seeds that are added to a finished run: what is trained, what may be pooled, and what is said of it."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest

from iekd import __version__
from iekd.config.run import learner_name
from iekd.results.report import summaries
from iekd.runs.files import read_json, write_json
from iekd.runs.siblings import (
    extended_by,
    family_of,
    growing,
    key_of,
    more_seeds,
    note_extension,
    pooled_markdown,
    to_json,
)
from iekd.runs.status import STOPPED
from iekd.runs.store import Run, Store

IMAGES = 1000
VERSIONS = {"iekd": __version__, "torch": metadata.version("torch")}


def write_answers(run: Run, first: int = 0) -> None:
    """answers.csv with exactly the report's accuracies; the images are numbered from `first` on."""
    report, rng = run.report, np.random.default_rng(0)
    columns = {}
    for learner in report["learners"]:
        right = np.zeros(IMAGES, bool)
        right[rng.permutation(IMAGES)[: round(10 * learner["accuracy_last"])]] = True
        columns[learner_name(learner["method"], learner["seed"])] = right
        learner["accuracy_last"] = 100 * float(right.mean())
    write_json(run.path / "report.json", {**report, "versions": VERSIONS})
    with open(run.path / "answers.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "teacher", *columns])
        for i in range(IMAGES):
            writer.writerow([first + i, "a", "a", *("a" if right[i] else "b" for right in columns.values())])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def make(store, written_run):
    """`make(seeds, of=None, first=0, **settings)`: a finished run, which may say that it extends another."""

    def made(seeds=(0,), of=None, first=0, **settings):
        run = written_run(store, seeds=seeds, device="cpu", **settings)
        write_answers(run, first)
        weights = run.path / "models" / "teacher" / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights")
        if of is not None:
            note_extension(run, of)
        return run

    return made


def test_seeds_of_all_runs_are_counted_together_on_the_page_of_each(make, store):
    first = make((0,), taught=88.0)
    second = make((1, 2), of=first, taught=89.0)
    third = make((3,), of=second, taught=88.5)
    assert extended_by(third) == first.id, "also what extends an extension belongs to the first"
    for run in (first, second, third):
        family = family_of(store, run)
        found = {s.method: s for s in summaries(family.report)}
        assert found["ie-ft"].n == 4
        assert found["ie-ft"].difference.n == 4
        assert found["ie-ft"].difference.p is not None
        assert found["ie-ft"].difference.over_images.n == IMAGES
        assert len(family.pooled) == 2
        assert family.note.startswith("Seeds 1, 2 and 3 were added after a look at the result of seed 0.")
    assert "| ie-ft | 4 |" in pooled_markdown(store, first)
    assert [row["pooled"] for row in to_json(first, family_of(store, first))["runs"]] == [True, True]


def test_the_command_that_adds_seeds_ends_with_the_result_of_all(make, store, monkeypatch):
    """Its own seed alone is not what was asked for."""
    from typer.testing import CliRunner

    import iekd.cli.runs as commands
    from iekd.cli.main import app

    first, second = make((0,), taught=88.0), make((1,), taught=88.0)
    monkeypatch.setattr(Store, "create", lambda *_: (second, None))
    monkeypatch.setattr(commands, "train_here", lambda *_: None)
    monkeypatch.setattr("iekd.runs.siblings.more_seeds", lambda *_: second.config)
    monkeypatch.setattr("iekd.runs.prepare.prepare", lambda config, *_: SimpleNamespace(config=config))
    answer = CliRunner().invoke(app, ["runs", "add-seeds", first.id, "--seeds", "1", "--runs-dir", str(store.root)])
    assert answer.exit_code == 0, answer.output
    last = answer.stdout.splitlines()[-2:]
    assert last[0].startswith("All seeds together: ")
    assert "2 seeds" in last[0]
    assert last[1].startswith("Seed 1 was added after a look at the result of seed 0.")


def test_a_run_without_relatives_is_as_it_was(make, store):
    run = make()
    make((1,))  # has the same settings, but does not say that it extends the other
    family = family_of(store, run)
    assert (family.siblings, family.note, family.report) == ((), "", run.report)
    assert pooled_markdown(store, run) == ""


def other_teacher(run):
    (run.path / "models" / "teacher" / "model.safetensors").write_bytes(b"other weights")


def no_teacher(run):
    (run.path / "models" / "teacher" / "model.safetensors").unlink()


def other_version(run):
    write_json(run.path / "report.json", {**run.report, "versions": {**VERSIONS, "iekd": "0.1.0"}})


def other_torch(run):
    write_json(run.path / "report.json", {**run.report, "versions": {**VERSIONS, "torch": "2.0.1"}})


def other_files(run):
    write_json(run.path / "report.json", {**run.report, "dataset_mark": "changed"})


def other_device(run):
    write_json(run.path / "report.json", {**run.report, "device": "cuda:0"})


def no_answers(run):
    (run.path / "answers.csv").unlink()


@pytest.mark.parametrize(
    ("spoil", "settings", "said"),
    [
        (other_teacher, {}, "its teacher has other weights"),
        (no_teacher, {}, "its teacher has other weights"),
        (other_version, {}, "another version of iekd (0.1.0"),
        (other_torch, {}, "another version of torch (2.0"),
        (other_device, {}, "another kind of device (cuda"),
        (other_files, {}, "files of the dataset had changed"),
        (no_answers, {}, "predictions of one of them are missing"),
        (None, {"lr": 0.05, "epochs": 9}, "other settings (Epochs, Learning rate)"),
        (None, {"first": 5}, "tested on other images"),
        (None, {"seeds": (0,)}, "seed 0 is in another of these runs"),
    ],
)
def test_what_may_not_be_pooled_is_refused_with_its_reason(make, store, spoil, settings, said):
    first = make()
    second = make(**{"seeds": (1, 2), "of": first, **settings})
    if spoil:
        spoil(second)
    family = family_of(store, first)
    (sibling,) = family.siblings
    assert said in sibling.why_not
    assert not sibling.pooled
    assert family.report == first.report
    assert family.note == ""
    assert any(said in sentence for sentence in family.sentences())


def test_a_pytorch_patch_release_and_other_threads_may_be_pooled(make, store):
    first = make(threads=1)
    second = make((1,), of=first, threads=2, name="mine")
    patched = f"{VERSIONS['torch'].rpartition('.')[0]}.99"
    write_json(second.path / "report.json", {**second.report, "versions": {**VERSIONS, "torch": patched}})
    assert len(family_of(store, first).pooled) == 1


def test_seeds_that_diverged_are_named_and_not_counted(make, store):
    first = make()
    second = make((1, 2), of=first)
    report = second.report
    lost = [r for r in report["learners"] if (r["method"], r["seed"]) == ("ie-ft", 2)]
    report["learners"] = [r for r in report["learners"] if r not in lost]
    write_json(second.path / "report.json", {**report, "diverged": {"ie-ft-seed2": "It became nan."}})
    found = family_of(store, first)
    assert found.report["diverged"] == {"ie-ft-seed2": "It became nan."}
    assert {s.method: s.n for s in summaries(found.report)} == {"baseline": 3, "ie-ft": 2}


def test_a_stopped_or_damaged_relative_is_shown_and_not_counted(make, store):
    first = make()
    stopped, damaged = make((1,), of=first), make((2,), of=first)
    stopped.write_status(replace(stopped.status, state=STOPPED))
    (damaged.path / "config.json").write_text("{")
    family = family_of(store, first)
    assert {s.run.id: s.pooled for s in family.siblings} == {stopped.id: False, damaged.id: False}
    assert any("stopped; its seeds are not counted yet" in said for said in family.sentences())
    assert family.report == first.report


def test_what_is_trained_has_the_same_settings_the_next_seeds_and_the_same_teacher(make, store, monkeypatch):
    monkeypatch.setattr("iekd.runs.siblings.ModelCard.read", lambda folder: replace_card("resnet20"))
    first = make((4,), lr=0.03, name="mine")
    config = more_seeds(store, first)
    assert config.seeds == (5, 6)
    assert config.teacher_from == f"run:{first.id}/teacher"
    assert config.lr == first.config.lr
    assert config.name == "mine, more seeds"
    make((5, 6), of=first)
    assert more_seeds(store, first, 3).seeds == (7, 8, 9)
    assert key_of(first, config) == key_of(first, config)


def replace_card(model):
    class Card:
        pass

    card = Card()
    card.model = model
    return card


def test_without_a_teacher_there_is_none_to_take(make, store):
    run = make(methods=("baseline",))
    write_json(run.path / "config.json", {**read_json(run.path / "config.json"), "teacher": "none"})
    assert more_seeds(store, run).teacher_from == "auto"


@pytest.mark.parametrize("spoil", [other_version, other_files, other_device])
def test_what_could_not_be_pooled_is_not_begun(make, store, spoil, refuses, monkeypatch):
    monkeypatch.setattr("iekd.runs.siblings.ModelCard.read", lambda folder: replace_card("resnet20"))
    run = make()
    spoil(run)
    refuses(lambda: more_seeds(store, run), "could not be pooled", run.id)


def test_a_run_without_result_or_teacher_gets_no_more_seeds(make, store, refuses):
    run = make()
    refuses(lambda: more_seeds(store, run), "no teacher in its folder")
    refuses(lambda: more_seeds(store, run, 0), "0 seeds")
    run.write_status(replace(run.status, state=STOPPED))
    refuses(lambda: more_seeds(store, run), "has not finished")


def test_a_run_that_is_adding_seeds_is_found(make, store, tiny_config):
    first = make()
    assert growing(store, first) is None
    run, handle = store.create(tiny_config(seeds=(1,)))
    note_extension(run, first)
    try:
        assert growing(store, first).id == run.id
        assert family_of(store, first).growing
    finally:
        os.close(handle)


def test_a_claim_that_is_no_text_is_ignored(make, store):
    run = make()
    write_json(run.path / "extends.json", {"run": ["x"]})
    assert extended_by(run) == ""
    assert read_json(run.path / "extends.json")
    assert family_of(store, run).siblings == ()
