"""Runs that are interrupted, in this process and for real, and go on: as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

from iekd import data
from iekd.data.file_images import FileImages
from iekd.data.unlabelled import load_unlabelled
from iekd.errors import RunError
from iekd.launchers.local import LocalLauncher, worker_process
from iekd.runs import attempt as attempts
from iekd.runs import worker
from iekd.runs.queue import ahead_of, move_to_front
from iekd.runs.status import FAILED, FINISHED, LOST, QUEUED, RUNNING, STOPPED
from iekd.runs.store import Store
from iekd.runs.worker import execute

STEPS = 18  # of each learner, in `config`
# 60 steps
LONG = {"methods": ("baseline", "ie-ft"), "epochs": 20, "teacher_epochs": 2, "auto_encoder_epochs": 2, "threads": 2}


pytestmark = pytest.mark.usefixtures("checkpoints_everywhere")


def never() -> bool:
    return False


@pytest.fixture
def config(tiny_config):
    """Six epochs of three steps, after a teacher and an auto-encoder."""
    return lambda **values: tiny_config(
        **{
            "methods": ("baseline", "ie-ft"), "epochs": 6, "teacher_epochs": 2, "auto_encoder_epochs": 2, "threads": 1,
            **values,
        }
    )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_config):
    """The run of `config` without a break."""
    store = Store(tmp_path_factory.mktemp("whole"))
    run, handle = store.create(
        tiny_config(methods=("baseline", "ie-ft"), epochs=6, teacher_epochs=2, auto_encoder_epochs=2, threads=1)
    )
    execute(run, never)
    os.close(handle)
    assert run.status.state == FINISHED
    return run


class Interrupted(BaseException):
    """What nothing expects, and nothing handles."""


def attempt(run, handle, after=None, error=Interrupted):
    """Train until the row `after`: (stage, step), then break off as a killed process does, without a final state."""

    def watch(status, row):
        if row and after and (row["stage"], row["step"]) >= after and row["stage"] == after[0]:
            raise error

    saved = worker.Run.write_status
    try:
        if after and error is Interrupted:  # a dead process writes nothing
            worker.Run.write_status = lambda self, s: saved(self, s) if s.state not in (FAILED, STOPPED) else None
        execute(run, never, watch)
    except Interrupted:
        pass
    finally:
        worker.Run.write_status = saved
        os.close(handle)


def rows(run):
    return [{k: v for k, v in row.items() if k != "time"} for row in run.metrics()[0]]


def card(folder):
    return json.loads((folder / "model.json").read_text())


def assert_equal(run, whole):
    """Metrics, weights and results to the last bit."""
    assert run.status.state == FINISHED, run.log_tail(40)
    assert rows(run) == rows(whole)
    assert [row["seq"] for row in rows(run)] == list(range(len(rows(whole))))
    for name, folder in whole.model_folders.items():
        expected, found = (
            load_file(folder / "model.safetensors"),
            load_file(run.model_folders[name] / "model.safetensors"),
        )
        assert all((expected[key] == found[key]).all() for key in expected), name
        assert {**card(folder), "command": ""} == {**card(run.model_folders[name]), "command": ""}
    same = ("teacher", "learners", "summary", "best_chosen_by", "train_images")
    assert {key: run.report[key] for key in same} == {key: whole.report[key] for key in same}


@pytest.mark.parametrize(
    "after",
    [("teacher", 3), ("auto-encoder", 3), ("auto-encoder", 6), ("students", 3), ("students", 9), ("students", STEPS)],
)
def test_an_interrupted_run_is_resumed_bit_for_bit(store, config, whole, after):
    run, handle = store.create(config())
    attempt(run, handle, after)
    assert run.status.state == LOST
    execute_again(run)
    assert_equal(run, whole)
    assert run.status.attempt == 2


@pytest.mark.parametrize(("asked", "expected"), [(2, 2), ("auto", 1)])
def test_a_checkpoint_knows_how_many_threads_computed(store, config, asked, expected):
    """Every test has one thread for torch, which is the most that auto takes."""
    run, handle = store.create(config(threads=asked, methods=("baseline",), teacher="none"))
    attempt(run, handle, ("students", 9))
    handle = run.reopen()
    found = attempts.Attempt(run, never)
    found.begin()
    os.close(handle)
    assert found.notes["threads"] == expected


def execute_again(run):
    handle = run.reopen()
    assert run.status.state == QUEUED
    attempt(run, handle)


def test_a_run_may_be_broken_off_any_number_of_times(store, config, whole):
    run, handle = store.create(config())
    attempt(run, handle, ("teacher", 3))
    for after in (("teacher", 6), ("auto-encoder", 3), ("students", 3), ("students", 6), ("students", 15)):
        attempt(run, run.reopen(), after)
        assert run.status.state == LOST
    execute_again(run)
    assert_equal(run, whole)
    assert run.status.attempt == 7


def test_rows_after_the_checkpoint_are_not_there_twice_and_a_torn_line_is_cut_off(store, config, whole):
    run, handle = store.create(config())
    attempt(run, handle, ("students", 9))
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(json.dumps({**run.metrics()[0][-1], "step": 999}) + '\n{"seq": 70, "sta')
    with open(run.path / "events.jsonl", "a") as file:
        file.write('{"seq": 9, "ev')
    execute_again(run)
    assert_equal(run, whole)
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert [event["seq"] for event in events] == list(range(len(events)))


def test_a_stopped_run_is_resumed(store, config, whole):
    run, handle = store.create(config())
    seen = []
    execute(run, lambda: len(seen) >= 20, lambda status, row: seen.append(row))
    os.close(handle)
    assert run.status.state == STOPPED
    (run.path / "control.json").write_text('{"request": "stop"}')
    execute_again(run)
    assert not run.stop_requested
    assert_equal(run, whole)


def test_the_time_of_earlier_attempts_counts(store, config):
    run, handle = store.create(config())
    attempt(run, handle, ("students", 12))
    before = json.loads((newest(run) / "manifest.json").read_text())
    execute_again(run)
    status = run.status
    assert status.spent == before["content"]["notes"]["seconds"] > 0
    assert status.seconds == pytest.approx(status.spent + status.ended - status.started)
    assert run.report["seconds"] > status.spent


def test_progress_continues_where_it_was(store, config):
    run, handle = store.create(config())
    attempt(run, handle, ("students", 12))
    before, seen = run.status.progress, []
    assert 0 < before < 1
    handle = run.reopen()
    execute(run, never, lambda status, row: seen.append((status.stage, status.progress)))
    os.close(handle)
    values = [progress for _, progress in seen]
    assert values[0] == before  # while images are loaded
    assert values == sorted(values)
    assert values[-1] == 1


def newest(run, stage="students"):
    return sorted((run.path / "checkpoints").glob(f"{stage}-*"))[-1]


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


def test_a_damaged_checkpoint_falls_back_and_an_event_says_so(store, config, whole):
    run, handle = store.create(config())
    attempt(run, handle, ("students", 12))
    flip(newest(run) / "state.safetensors")
    execute_again(run)
    assert_equal(run, whole)
    told = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    (event,) = (e for e in told if e["event"] == "checkpoint damaged")
    assert event["checkpoint"].startswith("students-")
    assert "is damaged" in (run.path / "log.txt").read_text()


@pytest.mark.parametrize("lost", ["students", "auto-encoder", "teacher", "the saved teacher", "all"])
def test_whatever_is_damaged_the_end_is_the_same(store, config, whole, lost):
    run, handle = store.create(config())
    attempt(run, handle, ("students", 12))
    if lost == "the saved teacher":
        flip(run.path / "checkpoints" / "teacher" / "model.safetensors")
    for folder in (run.path / "checkpoints").glob("*-*"):
        if lost in ("all", folder.name.rpartition("-")[0]):
            flip(folder / "state.safetensors")
    execute_again(run)
    # begun again, the run finds the teacher that it trained before
    found = {**whole.report["teacher"], "from": run.report["teacher"]["from"]}
    assert run.report["teacher"] == found
    assert run.report["learners"] == whole.report["learners"]
    if lost != "all":
        assert_equal(run, whole)


def test_after_a_fall_back_the_next_checkpoints_stay(store, config, whole):
    """Those of later steps that were damaged, or of no use any more, must not make them look old."""
    run, handle = store.create(config())
    attempt(run, handle, ("students", 15))
    for folder in (run.path / "checkpoints").glob("students-*"):
        flip(folder / "state.safetensors")
    attempt(run, run.reopen(), ("students", 6))
    assert 0 < int(newest(run).name[-8:]) < 9
    attempt(run, run.reopen(), ("students", 12))
    flip(run.path / "checkpoints" / "teacher" / "model.safetensors")
    attempt(run, run.reopen(), ("auto-encoder", 3))
    assert not list((run.path / "checkpoints").glob("students-*"))
    execute_again(run)
    assert_equal(run, whole)


def test_a_teacher_that_was_only_just_trained_is_not_damaged(store, config, monkeypatch):
    run, handle = store.create(config())
    with monkeypatch.context() as patch:
        patch.setenv("IEKD_CHECKPOINT_SECONDS", "1e9")
        attempt(run, handle, ("auto-encoder", 3))
    execute_again(run)
    assert "damaged" not in (run.path / "log.txt").read_text()
    assert run.status.state == FINISHED


def test_a_finished_run_needs_no_checkpoints(whole):
    assert not (whole.path / "checkpoints").exists()
    assert not (whole.path / ".reserve").exists()


def test_what_cannot_be_resumed_is_refused(store, config, whole, refuses):
    refuses(whole.reopen, "finished", kind=RunError)
    run, handle = store.create(config())
    refuses(run.reopen, "still queued", kind=RunError)
    os.close(handle)
    refuses(lambda: LocalLauncher(store).resume("nothing"), "no run 'nothing'", kind=RunError)


def test_one_attempt_at_a_time(store, config, refuses):
    run, handle = store.create(config())
    os.close(handle)
    held = run.reopen()
    refuses(run.reopen, run.id, kind=RunError)
    assert run.status.attempt == 2
    os.close(held)


def test_a_run_of_a_version_without_checkpoints_begins_again(store, config, whole):
    run, handle = store.create(config())
    attempt(run, handle, ("students", 12))
    shutil.rmtree(run.path / "checkpoints")
    shutil.rmtree(store.root / "teachers")
    values = json.loads((run.path / "status.json").read_text())
    kept = {k: v for k, v in values.items() if k not in ("attempt", "queued", "spent")}
    (run.path / "status.json").write_text(json.dumps(kept))
    execute_again(run)
    assert_equal(run, whole)
    assert "training begins again" in (run.path / "log.txt").read_text()


@pytest.mark.parametrize("given", ["often", "-1", "nan", ""])
def test_an_invalid_interval_is_reported(store, config, monkeypatch, given):
    monkeypatch.setenv("IEKD_CHECKPOINT_SECONDS", given)
    run, handle = store.create(config(methods=("baseline",), teacher="none"))
    attempt(run, handle)
    assert run.status.state == FAILED
    assert "IEKD_CHECKPOINT_SECONDS" in run.status.error


def test_checkpoints_are_as_rare_as_writing_them_is_slow(store, config, monkeypatch):
    """And as often as asked for once it is fast again."""
    clock, run = [100.0], store.create(config())[0]
    monkeypatch.setattr(attempts.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(attempts, "SHARE", 0.02)
    monkeypatch.setenv("IEKD_CHECKPOINT_SECONDS", "20")
    tried = attempts.Attempt(run, never)
    took = [10.0]
    monkeypatch.setattr(tried.checkpoints, "write", lambda *_: clock.__setitem__(0, clock[0] + took[0]))
    rows = run.metrics_writer()

    def seconds_to_the_next():
        began = clock[0]
        while not tried.should_snapshot():
            clock[0] += 1
        return clock[0] - began

    snapshot = type("Snapshot", (), {"stage": "students"})
    assert seconds_to_the_next() == 20
    tried.write_checkpoint(snapshot, rows, {})
    assert seconds_to_the_next() == 490
    took[0] = 0.01
    tried.write_checkpoint(snapshot, rows, {})
    assert seconds_to_the_next() == pytest.approx(20, abs=1)
    rows.close()


def test_a_checkpoint_of_another_version_of_the_networks_is_refused_in_words(store, config):
    run, handle = store.create(config(methods=("baseline",), teacher="none"))
    attempt(run, handle, ("students", 12))
    values = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**values, "student": "resnet14"}))
    execute_again(run)
    assert run.status.state == FAILED
    assert "does not fit" in run.status.error


def fewer(folder):
    for path in sorted((folder / "red").iterdir())[:3]:
        path.unlink()


def another_order_of_classes(folder):
    for part in (folder, folder.parent / "test"):
        (part / "red").rename(part / "a-red")


def another_picture(folder):
    first, second = sorted((folder / "red").iterdir())[:2]
    first.write_bytes(second.read_bytes())


@pytest.mark.parametrize("change", [fewer, another_order_of_classes, another_picture])
def test_other_pictures_are_refused(store, config, picture_folder, tmp_path, change):
    mine = tmp_path / "pictures"
    shutil.copytree(picture_folder, mine)
    run, handle = store.create(config(dataset=f"folder:{mine}", methods=("baseline",), teacher="none"))
    attempt(run, handle, ("students", 12))
    change(mine / "train")
    execute_again(run)
    assert run.status.state == FAILED
    assert "have changed" in run.status.error


def earlier_fingerprint(dataset, unlabelled=None):
    """As versions before `attempt.DATA` made it: it depends on whether the images are in memory."""
    found = hashlib.sha256(repr((dataset.class_names, dataset.resolution, dataset.channels)).encode())
    for split in (dataset.train, dataset.test, *([] if unlabelled is None else [unlabelled])):
        found.update(split.labels.tobytes())
        images = split.images
        found.update(images.sums.tobytes() if isinstance(images, FileImages) else np.ascontiguousarray(images).data)
    return found.hexdigest()


@pytest.fixture(scope="module")
def pictures(picture_folder):
    """`pictures(labelled, unlabelled)` -> the dataset of the folder, and its training images as unlabelled ones; either
    are in memory, or else in their files."""

    def load(labelled, unlabelled):
        memory = {True: None, False: 0}
        dataset = data.load(f"folder:{picture_folder}", resolution=16, image_memory=memory[labelled])
        return dataset, load_unlabelled(str(picture_folder / "train"), dataset, memory[unlabelled])[0]

    return load


KINDS = [(labelled, unlabelled) for labelled in (True, False) for unlabelled in (True, False)]


@pytest.fixture
def check(store, config):
    """`check(notes, *images)`: what an attempt with these notes says of these images; returns their fingerprint."""
    run, handle = store.create(config())
    os.close(handle)

    def of(notes, *images):
        attempt = attempts.Attempt(run, never)
        attempt.notes = notes
        attempt.check_data(*images)
        return attempt.data

    return of


def test_images_have_one_fingerprint_wherever_they_are(pictures, check):
    assert len({check({}, *pictures(*kind)) for kind in KINDS}) == 1
    assert len({check({}, pictures(kind, True)[0]) for kind in (True, False)}) == 1
    dataset, unlabelled = pictures(True, True)
    for other in ((dataset,), (replace(dataset, train=dataset.train.take(np.arange(90))), unlabelled)):
        assert check({}, *other) != check({}, dataset, unlabelled)


@pytest.mark.parametrize("then", KINDS)
@pytest.mark.parametrize("now", KINDS)
def test_fingerprints_of_earlier_versions_are_known(pictures, check, refuses, then, now):
    known, images = earlier_fingerprint(*pictures(*then)), pictures(*now)
    check({"data": known}, *images)
    check({"data": earlier_fingerprint(pictures(then[0], True)[0])}, images[0])
    refuses(lambda: check({"data": known}, images[0]), "have changed")
    other = replace(images[0], test=images[0].test.take(np.arange(len(images[0].test))[::-1]))
    refuses(lambda: check({"data": known}, other, images[1]), "have changed")


def test_images_that_no_longer_fit_into_memory_are_the_same(store, config, monkeypatch):
    """As with more processes, which share what is free."""
    run, handle = store.create(config(methods=("baseline",), teacher="none"))
    attempt(run, handle, ("students", 12))
    monkeypatch.setattr("iekd.data.reading.image_budget", lambda image_memory: 0)
    execute_again(run)
    assert run.status.state == FINISHED, run.log_tail(20)
    assert "re-decoded every epoch" in run.log_tail(60)


# The queue


def test_a_resumed_run_waits_behind_those_that_were_there(store, config):
    first, handle = store.create(config())
    os.close(handle)
    second, other = store.create(config())
    held = first.reopen()
    assert [run.id for run in ahead_of(first, store)] == [second.id]
    assert ahead_of(second, store) == []
    for each in (held, other):
        os.close(each)


def test_a_queued_run_is_moved_to_the_front(store, config, refuses):
    runs, handles = zip(*(store.create(config()) for _ in range(4)), strict=True)
    move_to_front(runs[3], store)
    assert ahead_of(runs[3], store) == []
    assert [run.id for run in ahead_of(runs[2], store)] == [runs[3].id, runs[0].id, runs[1].id]
    move_to_front(runs[1], store)
    assert [run.id for run in ahead_of(runs[2], store)] == [runs[1].id, runs[3].id, runs[0].id]
    runs[0].write_status(replace(runs[0].status, state=RUNNING))
    refuses(lambda: move_to_front(runs[0], store), "running", kind=RunError)
    for handle in handles:
        os.close(handle)


# Real processes


@pytest.fixture(scope="module")
def of_a_worker(tmp_path_factory, tiny_config, wait_until):
    """A longer run by a process of its own, without a break; it need not write a checkpoint after each step."""
    store = Store(tmp_path_factory.mktemp("worker"))
    run = store.get(LocalLauncher(store).submit(tiny_config(**LONG)))
    try:
        wait_until(lambda: not run.alive())
        assert run.status.state == FINISHED, run.log_tail(40)
    finally:
        end(store)
    return run


def end(store):
    for run in store.list():
        process = worker_process(run.status)
        if run.alive() and process is not None:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_worker_that_is_ended_in_the_middle_of_an_epoch_is_resumed_bit_for_bit(
    store, tiny_config, of_a_worker, wait_until, number
):
    """With checkpoints as often as they come."""
    launcher = LocalLauncher(store)
    run = store.get(launcher.submit(tiny_config(**LONG)))
    try:
        wait_until(lambda: any(row["stage"] == "students" and row["step"] >= 9 for row in run.metrics()[0]))
        worker_process(run.status).send_signal(number)
        wait_until(lambda: not run.alive())
        assert run.status.state == {signal.SIGKILL: LOST, signal.SIGTERM: STOPPED}[number]
        reached = max(row["step"] for row in run.metrics()[0] if row["stage"] == "students")
        assert reached < 60
        launcher.resume(run.id)
        wait_until(lambda: not run.alive())
        assert run.status.state == FINISHED, run.log_tail(40)
        assert_equal(run, of_a_worker)
    finally:
        end(store)
