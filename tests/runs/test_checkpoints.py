"""Checkpoints on disk: whole or not there, checked when they are read."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from iekd.engine.state import LearnerState, Snapshot
from iekd.runs import checkpoints
from iekd.runs.checkpoints import MANIFEST, MOST, STATE, Checkpoints


def snapshot(step: int, stage: str = "students") -> Snapshot:
    torch.manual_seed(step)
    weights = {"model.conv.weight": torch.randn(4, 3, 3, 3), "model.bn.num_batches_tracked": torch.tensor(step)}
    numbers = {"steps": step, "accuracy": {"test": 71.125}, "best": [1, -1.0, 0.1 + 0.2]}
    return Snapshot(stage, step, {
        "ie-ft+kd-seed0": LearnerState(
            weights, {"model.conv.weight": torch.randn(4, 3, 3, 3)},
            {"loss": torch.rand(1), "accuracy": torch.rand(1), "a": torch.rand(1)}, numbers,
            {"test": torch.arange(20)},
        ),
        "dml-seed0's peer": LearnerState({k: t.clone() for k, t in weights.items()}, {}, {}, {"steps": step}),
    })  # fmt: skip


def assert_same(one: Snapshot, other: Snapshot) -> None:
    assert (one.stage, one.step, one.states.keys()) == (other.stage, other.step, other.states.keys())
    for name, state in one.states.items():
        found = other.states[name]
        assert state.numbers == found.numbers
        assert list(state.sums) == list(found.sums), "in their order"
        for kind in ("weights", "momentum", "sums", "predictions"):
            a, b = getattr(state, kind), getattr(found, kind)
            assert a.keys() == b.keys()
            assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def made(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


def seen(made):
    """(newest step per stage, names of the damaged)."""
    names = []
    found = made.newest(lambda name, why: names.append(name))
    return {stage: checkpoint.snapshot.step for stage, checkpoint in found.items()}, names


def test_what_is_written_is_read(made):
    assert made.newest() == {}
    made.write(snapshot(12), {"rows": 7, "data": "96 images"})
    (found,) = made.newest().values()
    assert_same(found.snapshot, snapshot(12))
    assert found.notes == {"rows": 7, "data": "96 images"}


def test_names_of_tensors_stay_as_earlier_versions_wrote_them(made):
    made.write(snapshot(12), {})
    names = set(load_file(made.folder / "students-00000012" / STATE))
    assert {name.split("/")[1] for name in names} == {"weights", "momentum", "sums", "answers"}


def test_the_newest_of_each_stage_in_the_order_of_stages(made):
    for stage, step in (("students", 4), ("teacher", 9), ("auto-encoder", 30), ("students", 12)):
        made.write(snapshot(step, stage), {})
    assert list(seen(made)[0].items()) == [("teacher", 9), ("auto-encoder", 30), ("students", 12)]


def test_old_ones_go(made):
    for step in range(1, 6):
        made.write(snapshot(step), {})
    assert sorted(path.name for path in made.folder.iterdir()) == ["students-00000004", "students-00000005"]
    assert MOST == 2


def test_one_of_the_same_step_is_replaced(made):
    """An attempt that went on from an older one comes by again."""
    made.write(snapshot(3), {"rows": 1})
    made.write(snapshot(3), {"rows": 2})
    assert made.newest()["students"].notes == {"rows": 2}


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / STATE, -3),
        lambda folder: flip(folder / STATE, 12),
        lambda folder: (folder / STATE).write_bytes((folder / STATE).read_bytes()[:-1]),
        lambda folder: (folder / STATE).write_bytes(b""),
        lambda folder: (folder / STATE).unlink(),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text("{}"),
        lambda folder: (folder / MANIFEST).write_text("[1, 2]"),
        lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace("71.125", "71.126")),
        lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"),
    ],
    ids=["weights", "header", "truncated", "empty", "no state", "no manifest", "bare", "list", "number", "bytes"],
)
def test_a_damaged_one_is_skipped(made, damage):
    made.write(snapshot(1), {})
    made.write(snapshot(2), {})
    damage(made.folder / "students-00000002")
    assert seen(made) == ({"students": 1}, ["students-00000002"])
    damage(made.folder / "students-00000001")
    assert seen(made)[0] == {}


def test_a_flipped_byte_anywhere_is_found(made):
    made.write(snapshot(1), {})
    path = made.folder / "students-00000001" / STATE
    whole = path.read_bytes()
    for offset in range(0, len(whole), 97):
        flip(path, offset)
        assert seen(made) == ({}, ["students-00000001"]), offset
        path.write_bytes(whole)
    assert seen(made) == ({"students": 1}, [])


def test_one_of_a_later_version_names_it(made, refuses):
    made.write(snapshot(1), {})
    path = made.folder / "students-00000001" / MANIFEST
    content = {**json.loads(path.read_text())["content"], "format": 99, "iekd": "7.1"}
    path.write_text(json.dumps({"content": content, "sha256": checkpoints._sum(content)}))
    refuses(made.newest, "iekd 7.1")


@pytest.mark.parametrize("where", ["save_file", "write_json", "rename"])
def test_one_that_cannot_be_written_leaves_the_others_and_no_rest(made, monkeypatch, where):
    made.write(snapshot(1), {})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if where == "save_file":
        monkeypatch.setattr("safetensors.torch.save_file", full)
    elif where == "write_json":
        monkeypatch.setattr(checkpoints, "write_json", full)
    else:
        monkeypatch.setattr(type(made.folder), "rename", full)
    with pytest.raises(OSError, match="No space"):
        made.write(snapshot(2), {})
    assert [path.name for path in made.folder.iterdir()] == ["students-00000001"]
    assert seen(made) == ({"students": 1}, [])


def test_what_a_killed_attempt_left_half_written_goes(made):
    part = made.folder / ".students-00000009.part"
    part.mkdir(parents=True)
    (part / STATE).write_bytes(b"half")
    assert seen(made) == ({}, [])
    made.write(snapshot(1), {})
    assert not part.exists()


def test_other_files_are_ignored(made):
    made.write(snapshot(1), {})
    (made.folder / "students-old").mkdir()
    (made.folder / "notes.txt").write_text("")
    assert seen(made) == ({"students": 1}, [])


def test_the_teachers_sum_is_that_of_its_weights(made):
    assert made.teacher_sum() == ""
    made.teacher.mkdir(parents=True)
    (made.teacher / "model.safetensors").write_bytes(b"abc")
    assert made.teacher_sum() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
