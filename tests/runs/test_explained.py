"""Explanations for the page: computed once for all who ask, stored, ended when nobody waits, computed again for other
weights. The process that computes is a stand-in here; tests/ui/test_explain_page.py runs the real one."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iekd.errors import UserError
from iekd.models.artifact import WEIGHTS
from iekd.runs import explained
from iekd.runs.explained import CANCELLED, DONE, FAILED, MOST_LIVE, MOST_OWN, Explainer, choose, read
from iekd.runs.store import Store

# what `python -m iekd explain ...` is replaced by: it writes what it was asked for, and counts how often it ran
COMPUTES = """
import json, pathlib, sys, time
import numpy as np
words = sys.argv[1:]
here = pathlib.Path(MARKS)
with open(here / "started", "a") as log: log.write(json.dumps(words) + "\\n")
print("Computing CKA ...", file=sys.stderr, flush=True)
while (here / "hold").exists(): time.sleep(0.01)
if (here / "fails").exists(): sys.exit("Error: There is nothing to see.")
out = pathlib.Path(words[words.index("--out") + 1])
out.mkdir()
images = [words[i + 1] for i, word in enumerate(words) if word == "--images"] or ["/home/somebody/7.png"]
assert all(pathlib.Path(name).is_file() for name in images if not name.startswith("/home"))
found = {"images": [{"name": n} for n in images], "maps": [{}], "unreadable": [f"'{n}' is broken." for n in images]}
(out / "explain.json").write_text(json.dumps(found))
np.savez(out / "maps.npz", images=np.zeros((1, 2, 2, 1), np.uint8), map0=np.ones((1, 2, 2), np.float32))
"""


class Marks:
    """What the stand-in is to do, and how often it has run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __setattr__(self, name, value):
        if name == "folder" or isinstance(value, Path):
            super().__setattr__(name, value)
        elif value:
            (self.folder / name).touch()
        else:
            (self.folder / name).unlink()

    @property
    def started(self):
        log = self.folder / "started"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def marks(tmp_path, monkeypatch):
    folder = tmp_path / "marks"
    folder.mkdir()
    script = folder / "computes.py"
    script.write_text(COMPUTES.replace("MARKS", repr(str(folder))))
    started = explained.subprocess.Popen

    def popen(words, **options):
        assert words[:4] == [sys.executable, "-m", "iekd", "explain"]
        return started([sys.executable, str(script), *words[4:]], **options)

    monkeypatch.setattr(explained.subprocess, "Popen", popen)
    return Marks(folder)


@pytest.fixture
def explainer(tmp_path, tiny_config):
    """Of a run with a teacher, a plain student and two others, whose weights are no weights."""
    store = Store(tmp_path / "runs")
    run, handle = store.create(tiny_config(methods=("baseline", "kd", "ie-ft", "ie-at"), seeds=(0, 1)))
    os.close(handle)
    for name in ("teacher", *(f"{method}-seed{s}" for s in (0, 1) for method in ("baseline", "kd", "ie-ft", "ie-at"))):
        folder = run.path / "models" / name
        folder.mkdir(parents=True)
        (folder / "model.json").write_text("{}")
        (folder / WEIGHTS).write_bytes(name.encode())
    return Explainer(store)


@pytest.fixture
def run_id(explainer):
    return explainer.store.list()[0].id


def ended(job):
    deadline = time.monotonic() + 60
    while job.live and time.monotonic() < deadline:
        time.sleep(0.01)
    return job.state


def computing(job):
    deadline = time.monotonic() + 60
    while not job.step and time.monotonic() < deadline:
        time.sleep(0.01)
    return job


def test_an_ie_student_is_chosen_unless_another_is_asked_for(explainer, run_id):
    found = choose(explainer.store, run_id)
    assert (found.student, found.students) == ("ie-ft", ("kd", "ie-ft", "ie-at"))
    assert [path.name for path in found.models.values()] == ["teacher", "baseline-seed0", "ie-ft-seed0"]
    other = choose(explainer.store, f"{run_id}/1", "ie-at")
    assert [path.name for path in other.models.values()] == ["teacher", "baseline-seed1", "ie-at-seed1"]
    with pytest.raises(UserError, match=r"'fitnet'.*ie-at"):
        choose(explainer.store, run_id, "fitnet")
    for name in ("teacher", "kd-seed0", "ie-ft-seed0", "ie-at-seed0"):
        shutil.rmtree(explainer.store.get(run_id).path / "models" / name)
    alone = choose(explainer.store, f"{run_id}/0")
    assert (alone.student, list(alone.models)) == ("", ["baseline"])


def test_two_who_ask_at_once_compute_once_and_the_next_looks_it_up(explainer, run_id, marks):
    chosen = choose(explainer.store, run_id)
    assert explainer.find(chosen) is None
    marks.hold = True
    job = explainer.ask(chosen, "ann")
    assert explainer.ask(chosen, "bob") is job
    assert computing(job).doing == "Computing CKA ..."
    explainer.leave(job, "ann")
    assert job.live, "bob still waits"
    marks.hold = False
    assert ended(job) == DONE
    assert len(marks.started) == 1
    folder = explainer.find(chosen)
    assert folder == explainer.store.get(run_id).path / "explained" / "ie-ft-seed0"
    result = read(folder)
    assert result.found["images"] == [{"name": "7.png"}], "without the folders of this machine"
    assert result.maps[0].shape == (1, 2, 2)
    assert explainer.find(choose(explainer.store, run_id, "kd")) is None
    assert [path.name for path in folder.parent.iterdir()] == ["ie-ft-seed0"]


def test_other_weights_are_computed_again(explainer, run_id, marks, monkeypatch):
    chosen = choose(explainer.store, run_id)
    ended(explainer.ask(chosen, "ann"))
    assert explainer.find(chosen)
    (chosen.models["baseline"] / WEIGHTS).write_bytes(b"resumed")
    assert explainer.find(chosen) is None
    assert ended(explainer.ask(chosen, "ann")) == DONE
    assert explainer.find(chosen)
    monkeypatch.setattr(explained, "__version__", "next")
    assert explainer.find(chosen) is None


def test_what_nobody_waits_for_ends(explainer, run_id, marks):
    marks.hold = True
    first = computing(explainer.ask(choose(explainer.store, run_id), "ann"))
    second = explainer.ask(choose(explainer.store, run_id, "kd"), "bob")  # waits for its turn
    explainer.leave(second, "bob")
    explainer.leave(first, "ann")
    assert (first.state, second.state) == (CANCELLED, CANCELLED)
    assert first.process.wait(60) != 0
    marks.hold = False
    third = explainer.ask(choose(explainer.store, run_id, "kd"), "bob")
    assert ended(third) == DONE
    assert len(marks.started) == 2, "the second never began"


def test_why_it_failed_is_said_and_asking_again_tries_again(explainer, run_id, marks):
    chosen = choose(explainer.store, run_id)
    marks.fails = True
    job = explainer.ask(chosen, "ann")
    assert (ended(job), job.error) == (FAILED, "There is nothing to see.")
    assert explainer.find(chosen) is None
    marks.fails = False
    assert ended(explainer.ask(chosen, "ann")) == DONE


def test_a_run_that_is_deleted_meanwhile_does_not_come_back(explainer, run_id, marks):
    marks.hold = True
    job = computing(explainer.ask(choose(explainer.store, run_id), "ann"))
    path = explainer.store.get(run_id).path
    shutil.rmtree(path)
    marks.hold = False
    assert (ended(job), job.error) == (FAILED, "The run was deleted meanwhile.")
    assert not path.exists()


def test_somebodys_own_images_are_theirs_and_the_last_are_stored(explainer, run_id, marks, tmp_path):
    chosen, mine = choose(explainer.store, run_id), tmp_path / "7f.png"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(mine)
    files = [("/tmp/upload/mine.png", mine), ("mine.png", np.zeros((2, 2, 1), np.uint8))]
    job = explainer.ask(chosen, "ann", files)
    other = explainer.ask(chosen, "bob", files)
    assert (ended(job), ended(other)) == (DONE, DONE)
    assert job.key != other.key
    assert explainer.job(job.key) is job
    found = read(job.folder).found
    assert [image["name"] for image in found["images"]] == ["mine.png", "image 2.png"]
    assert found["unreadable"] == ["'mine.png' is broken.", "'image 2.png' is broken."]
    assert (job.given, job.behind, other.behind) == (2, False, True)
    assert explainer.find(chosen) is None
    assert not (explainer.store.get(run_id).path / "explained").exists()
    assert "/tmp/upload" not in json.dumps(marks.started)
    assert not list(Path(explainer._place.name).glob("*-given"))
    tests = explainer.ask(chosen, "ann")
    assert explainer.job(tests.key) is None, "its key can be guessed"
    ended(tests)
    explainer._jobs |= {f"old{i}": explained.ExplainJob(f"old{i}", tmp_path / "none", (), None, ("a",), state=DONE)
                        for i in range(MOST_OWN)}  # fmt: skip
    ended(explainer.ask(chosen, "ann", files))
    assert explainer.job(job.key) is None
    assert not job.folder.exists()


def test_strangers_cannot_fill_the_queue(explainer, run_id, marks, tmp_path):
    mine = tmp_path / "mine.png"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(mine)
    chosen = choose(explainer.store, run_id)
    marks.hold = True
    jobs = [explainer.ask(chosen, "stranger", [(mine.name, mine)], limited=True)]
    with pytest.raises(UserError, match="Your last images"):
        explainer.ask(chosen, "stranger", [(mine.name, mine)], limited=True)
    jobs += [explainer.ask(chosen, f"stranger {i}", [(mine.name, mine)], limited=True) for i in range(MOST_LIVE - 1)]
    with pytest.raises(UserError, match=f"{MOST_LIVE} explanations"):
        explainer.ask(chosen, "one more", [(mine.name, mine)], limited=True)
    jobs.append(explainer.ask(chosen, "the owner"))
    assert explainer.ask(chosen, "one more", limited=True) is jobs[-1], "what is computed anyway costs nothing"
    marks.hold = False
    assert [ended(job) for job in jobs] == [DONE] * (MOST_LIVE + 1)
