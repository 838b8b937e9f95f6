"""The worker in this process, on tiny runs; its life as a process of its own is in tests/launchers."""

from __future__ import annotations

import csv
import gc
import json
import logging
import os
import shutil
import signal
import sys
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path

import numpy as np
import psutil
import pytest

from iekd.config.run import STAGES, make_config
from iekd.errors import TrainingError
from iekd.models.artifact import ModelCard, load_model
from iekd.results.report import summary, to_markdown
from iekd.results.significance import over_images
from iekd.runs import worker
from iekd.runs.status import FAILED, FINISHED, RUNNING, STOPPED
from iekd.runs.store import Store
from iekd.runs.worker import error_sentence, execute, stop_on_signals


def events(run) -> list[str]:
    return [json.loads(line)["event"] for line in (run.path / "events.jsonl").read_text().splitlines()]


def test_a_run_ends_finished_once(finished):
    run, watched = finished
    status = run.status
    assert status.state == FINISHED
    assert status.error is None
    assert status.progress == status.stage_progress == 1
    assert status.eta_seconds is None
    assert status.started <= status.ended
    assert status.device == "cpu"
    assert events(run).count(FINISHED) == 1
    assert events(run)[0] == "queued"
    assert events(run)[-1] == FINISHED
    assert watched[-1][0] == FINISHED


def test_stages_follow_each_other(finished, stages):
    assert stages(finished[0]) == ["teacher", "auto-encoder", "students", "evaluation"]


def test_progress_never_falls(finished):
    seen = [progress for _, _, progress, _ in finished[1]]
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert all(0 <= p <= 1 for p in seen)


def test_the_watcher_sees_every_row_that_is_on_disk(finished):
    run, watched = finished
    rows, _ = run.metrics()
    assert [row for _, _, _, row in watched if row] == [{k: v for k, v in row.items() if k != "seq"} for row in rows]
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    assert {row["learner"] for row in rows} == {
        "teacher", "auto-encoder", "baseline-seed0", "ie-ft-seed0", "baseline-seed1", "ie-ft-seed1"
    }  # fmt: skip


def test_the_report_says_what_the_last_rows_say(finished):
    run, _ = finished
    report = run.report
    rows, _ = run.metrics()
    assert [(r["method"], r["seed"]) for r in report["learners"]] == [
        ("baseline", 0), ("ie-ft", 0), ("baseline", 1), ("ie-ft", 1)
    ]  # fmt: skip
    for learner in report["learners"]:
        name = f"{learner['method']}-seed{learner['seed']}"
        tests = [row["values"]["accuracy"] for row in rows if row["learner"] == name and row["kind"] == "test"]
        assert learner["accuracy_last"] == pytest.approx(tests[-1], abs=1e-3)
        assert learner["accuracy_best"] == pytest.approx(max(tests), abs=1e-3)
        assert set(learner["class_accuracy"]) == {"blue", "green", "red"}
        assert 0 <= learner["agreement_with_teacher"] <= 100
    assert report["train_images"] == 96
    assert report["test_images"] == 60
    assert report["command"] == run.config.command_line()
    assert report["speed"] > 0


@pytest.mark.parametrize("image_memory", [None, 0])
def test_names_that_are_not_utf8_do_no_harm(tmp_path, tiny_config, picture_folder, complete, image_memory):
    """Neither class nor file names: all that a run writes can be read, and sent to a page."""
    root = tmp_path / "pictures"
    shutil.copytree(picture_folder, root)
    odd = os.fsdecode(b"caf\xe9")
    try:
        for part in ("train", "test"):
            (root / part / "red").rename(root / part / odd)
            next((root / part / odd).iterdir()).rename(root / part / odd / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    (root / "train" / odd / os.fsdecode(b"broken\xfe.png")).write_bytes(b"")
    chosen = tiny_config(dataset=f"folder:{root}", methods=("baseline",), image_memory=image_memory)
    run, _ = complete(Store(tmp_path / "runs"), chosen)
    assert run.status.state == FINISHED, run.status.error
    for name in ("report.json", "report.md", "answers.csv", "log.txt"):
        text = (run.path / name).read_text("utf-8")
        assert "caf" in text
        json.loads(json.dumps(text)).encode()
    assert "caf\\udce9" in run.report["learners"][0]["class_accuracy"]


def test_every_answer_can_be_had(finished, picture_folder):
    """From the file alone: each accuracy of the report, the agreement, and what the test images leave open."""
    run, _ = finished
    with open(run.path / "answers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [Path(row["image"]).parts[1] for row in rows]
    assert all((picture_folder / row["image"]).is_file() for row in rows)
    right = {}
    for learner in run.report["learners"]:
        name = f"{learner['method']}-seed{learner['seed']}"
        right[name] = np.array([row[name] == row["class"] for row in rows])
        assert 100 * right[name].mean() == pytest.approx(learner["accuracy_last"])
        same = [row[name] == row["teacher"] for row in rows]
        assert 100 * np.mean(same) == pytest.approx(learner["agreement_with_teacher"])
    (expected,) = [s["difference"]["over_images"] for s in run.report["summary"] if s["difference"]]
    pairs = [np.stack([right[f"{method}-seed{seed}"] for seed in (0, 1)]) for method in ("ie-ft", "baseline")]
    assert asdict(over_images(*pairs)) == pytest.approx(expected)
    text = (run.path / "report.md").read_text()
    assert f"{expected['low']:+.2f} to {expected['high']:+.2f} |" in text


def test_the_report_is_json_for_everyone(finished):
    for name in ("report.json", "status.json", "config.json"):
        json.loads((finished[0].path / name).read_text(), parse_constant=pytest.fail)


def test_a_class_without_test_images_leaves_a_report_for_everyone(
    tmp_path, tiny_options, picture_folder, tiny_config, complete
):
    shutil.copytree(picture_folder, tmp_path / "pictures")
    shutil.rmtree(tmp_path / "pictures" / "test" / "red")
    run, _ = complete(
        Store(tmp_path / "runs"), tiny_config(dataset=f"folder:{tmp_path / 'pictures'}", methods=("baseline",))
    )
    assert run.status.state == FINISHED
    json.loads((run.path / "report.json").read_text(), parse_constant=pytest.fail)


def test_the_page_of_results_names_every_learner(finished):
    text = (finished[0].path / "report.md").read_text()
    assert text == to_markdown(finished[0].report)
    table = text.split("## Per class")[0].split("| method |")[0]
    assert table.count("| baseline |") == 2
    assert table.count("| ie-ft |") == 2
    assert "| blue |" in text
    assert "teacher resnet8" in text


def test_models_are_saved_with_their_cards(finished):
    run, _ = finished
    assert list(run.model_folders) == ["teacher", "baseline-seed0", "ie-ft-seed0", "baseline-seed1", "ie-ft-seed1"]
    accuracies = {f"{r['method']}-seed{r['seed']}": r["accuracy_last"] for r in run.report["learners"]}
    for name, folder in run.model_folders.items():
        model, card = load_model(folder)
        assert card.class_names == ("blue", "green", "red")
        assert (card.channels, card.resolution) == (3, 16)
        assert card.params == sum(p.numel() for p in model.parameters())
        assert card.accuracy == accuracies.get(name, run.report["teacher"]["accuracy"])
        assert card.command == run.config.command_line()


def test_a_saved_model_answers_as_accurately_as_reported(finished, tiny):
    import torch

    from iekd.engine.batches import to_device
    from iekd.engine.learner import predict
    from iekd.models.normalise import Normalise

    images, labels = to_device(tiny.test, torch.device("cpu"))
    for folder in finished[0].model_folders.values():
        model, card = load_model(folder)
        answers = predict(model, Normalise(card.mean, card.std), images, torch.device("cpu")).argmax(1)
        assert 100 * (answers == labels).double().mean().item() == pytest.approx(card.accuracy, abs=1e-6)


def test_the_log_tells_the_story(finished):
    log = (finished[0].path / "log.txt").read_text()
    for words in (
        "Loading dataset",
        "96 training, 0 validation and 60 test images of 3 classes",
        "Stage: students",
        "The run is finished.",
    ):
        assert words in log


def test_equal_runs_give_equal_metrics(tmp_path, tiny_config, complete):
    def numbers(name):
        run, _ = complete(Store(tmp_path / name), tiny_config(methods=("baseline", "ie-ft"), epochs=2))
        by_learner = {}
        for row in run.metrics()[0]:
            by_learner.setdefault(row["learner"], []).append((row["kind"], row["step"], row["values"]))
        return by_learner

    assert numbers("one") == numbers("two")


def test_garbage_is_collected_while_it_trains(tmp_path, tiny_config):
    """The worker's process imports without that, which is quicker."""
    run, handle = Store(tmp_path).create(tiny_config(teacher="none", methods=("baseline",)))
    seen = []
    gc.disable()
    try:
        execute(run, lambda: False, lambda status, row: row and seen.append(gc.isenabled()))
    finally:
        gc.enable()
        os.close(handle)
    assert seen
    assert all(seen)


def test_broken_pictures_are_in_the_report_and_the_log(tmp_path, picture_folder, tiny_config, complete):
    root = tmp_path / "pictures"
    shutil.copytree(picture_folder, root)
    broken = sorted((root / "train" / "red").iterdir())[0]
    broken.write_bytes(b"no picture")
    run, _ = complete(
        Store(tmp_path / "runs"), tiny_config(dataset=f"folder:{root}", methods=("baseline",), teacher="none")
    )
    assert run.status.state == FINISHED
    assert run.report["skipped_files"] == [str(broken)]
    assert str(broken) in (run.path / "log.txt").read_text()
    written = (run.path / "report.md").read_text()
    assert f"1 file that cannot be read was left out:\n\n- `train/red/{broken.name}`\n" in written
    assert run.report["train_images"] == 95


def stop_after(count: int):
    asked = iter(range(10**9))
    return lambda: next(asked) >= count


@pytest.mark.parametrize("count", [0, 1])
def test_a_stop_before_the_first_step_leaves_no_student(tmp_path, tiny_config, count, complete):
    run, _ = complete(Store(tmp_path), tiny_config(methods=("baseline",), teacher="none"), stop_after(count))
    assert run.status.state == STOPPED
    assert run.model_folders == {}
    assert run.report is None


def test_while_pictures_are_read_the_page_says_how_far_and_a_stop_is_heard(
    tmp_path, tiny_config, complete, monkeypatch
):
    from iekd.ui.render.run import head_html

    monkeypatch.setattr("iekd.runs.status_writer.STATUS_EVERY", 0.0)
    store, said = Store(tmp_path), []

    def stop() -> bool:
        (run,) = store.list()
        said.append(head_html(run, run.config, run.status, store))
        return run.status.stage_progress > 0.5

    run, _ = complete(store, tiny_config(methods=("baseline",), teacher="none"), stop)
    assert run.status.state == STOPPED
    assert run.status.stage == "loading"
    assert 0.5 < run.status.stage_progress < 0.6
    assert "Reading the images: <b>10 %</b>" in said[3], said
    assert "Reading the images" not in said[0] + head_html(run, run.config, run.status, store)


def test_the_time_left_is_said_as_a_range_in_every_stage(tmp_path, tiny_config, complete, monkeypatch):
    from iekd.ui.render.run import head_html

    monkeypatch.setattr("iekd.runs.status_writer.STATUS_EVERY", 0.0)
    store, seen = Store(tmp_path), []

    def stop() -> bool:
        (run,) = store.list()
        seen.append((run.status, head_html(run, run.config, run.status, store)))
        return False

    run, _ = complete(store, tiny_config(methods=("baseline", "ie-ft"), epochs=2), stop)
    training = [(status, head) for status, head in seen if status.stage in STAGES]
    assert {status.stage for status, _ in training} == set(STAGES)
    for status, head in training:
        assert status.eta_range[0] <= status.eta_seconds <= status.eta_range[1]
        assert " left</span>" in head
    assert run.status.eta_range is None


def test_progress_moves_on_while_held_out_images_are_predicted(finished):
    """Between the last step of an epoch and its rows, in which the bar stood still."""
    students = [(progress, row) for _, stage, progress, row in finished[1] if stage == "students"]
    last = max(i for i, (_, row) in enumerate(students) if row and row["kind"] == "train")
    moved = {progress for progress, row in students[last + 1 :] if row is None}
    assert len(moved) > 2


def test_another_attempt_begins_to_read_at_nothing(tmp_path, tiny_config, complete):
    run, _ = complete(Store(tmp_path), tiny_config(methods=("baseline",), epochs=500), stop_after(60))
    assert run.status.stage_progress > 0
    handle, seen = run.reopen(), []
    worker.execute(run, stop_after(1), lambda status, _: seen.append((status.stage, status.stage_progress)))
    os.close(handle)
    assert ("loading", 0.0) in seen


def test_a_stop_in_between_keeps_what_was_learned(tmp_path, tiny_config, complete):
    run, _ = complete(Store(tmp_path), tiny_config(methods=("baseline", "kd"), epochs=500), stop_after(60))
    status = run.status
    assert status.state == STOPPED
    assert status.error is None
    assert status.ended is not None
    assert 0 < status.progress < 1
    assert set(run.model_folders) == {"teacher", "baseline-seed0", "kd-seed0"}
    for folder in run.model_folders.values():
        load_model(folder)
    assert events(run)[-1] == STOPPED


def test_a_stop_during_the_evaluation_keeps_what_was_learned(tmp_path, tiny_config, complete):
    store, seen = Store(tmp_path), []

    def stop() -> bool:
        (run,) = store.list()
        seen.append(run.status.stage)
        return seen.count("evaluation") > 1  # once at the start of the stage, and then between its parts

    run, _ = complete(store, tiny_config(), stop)
    assert run.status.state == "stopped"
    assert run.report is None
    assert {"teacher", "baseline-seed0"} <= set(run.model_folders)


def test_a_stop_after_the_result_changes_nothing(tmp_path, tiny_config, complete):
    store = Store(tmp_path)
    run, _ = complete(store, tiny_config(), lambda: store.list()[0].report is not None)
    assert run.status.state == "finished"
    assert run.report is not None


def test_data_that_are_gone_fail_with_their_sentence(tmp_path, tiny_config, complete):
    from PIL import Image

    for name in "ab":
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / name / "1.png")
    run, _ = complete(
        Store(tmp_path / "runs"), tiny_config(dataset=f"folder:{tmp_path / 'pictures'}", methods=("baseline",))
    )
    assert run.status.state == FAILED
    assert "only one image" in run.status.error
    assert run.status.error in (run.path / "log.txt").read_text()


def test_a_rate_that_is_too_high_fails_with_advice(tmp_path, tiny_config, complete):
    config = tiny_config(methods=("baseline",), teacher="none", lr=100, weight_decay=1, epochs=50, schedule="cosine")
    run, _ = complete(Store(tmp_path), config)
    assert run.status.state == FAILED
    assert "learning rate" in run.status.error
    assert not run.status.resumable, "it would come to the same end"
    from iekd.ui.render.result import why_html  # here: the other tests run where the page's packages are not installed

    assert "Resume" not in why_html(run, run.status), "there is no such button then"


def test_a_crash_fails_with_one_sentence_and_the_log_has_the_rest(tmp_path, tiny_config, monkeypatch, complete):
    def crash(*_):
        raise ZeroDivisionError("what a pity")

    monkeypatch.setattr("iekd.engine.learner.Learner.evaluate", crash)
    run, _ = complete(Store(tmp_path), tiny_config(methods=("baseline",), teacher="none"))
    assert run.status.state == FAILED
    assert run.status.error == "Unexpected error (ZeroDivisionError: what a pity). The log has the details."
    assert "Traceback" in (run.path / "log.txt").read_text()
    assert events(run).count(FAILED) == 1


def test_a_broken_neighbour_disturbs_no_run(tmp_path, tiny_config, complete):
    store = Store(tmp_path)
    neighbour, handle = store.create(tiny_config())
    (neighbour.path / "config.json").write_text("{")
    run, _ = complete(store, tiny_config(methods=("baseline",), teacher="none"))
    os.close(handle)
    assert run.status.state == FINISHED, run.status.error


def test_the_logger_is_left_as_it_was(finished):
    assert not [h for h in logging.getLogger("iekd").handlers if isinstance(h, logging.FileHandler)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TrainingError("The loss became nan. Lower it."), "The loss became nan. Lower it."),
        (MemoryError(), "Out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore lines"), "smaller batch size"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory"),
            "Out of memory",
        ),
        (OSError(28, "No space left on device"), "The disk is full"),
        (RuntimeError("PytorchStreamWriter failed: No space left on device"), "The disk is full"),
        (KeyError("x"), "Unexpected error (KeyError: 'x')"),
        (ValueError("first line\nsecond line"), "first line"),
        (ValueError(), "Unexpected error (ValueError"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else "",
)
def test_every_error_is_explained_in_one_line(error, words):
    text = error_sentence(error)
    assert words in text
    assert "\n" not in text
    assert text.endswith(".")
    assert "second line" not in text


@pytest.fixture
def signals():
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_to_stop(tmp_path, tiny_config, number):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    run, handle = Store(tmp_path).create(tiny_config())
    stop = stop_on_signals(run)
    assert not stop()
    os.kill(os.getpid(), number)
    assert stop()
    os.close(handle)


@pytest.mark.usefixtures("signals")
def test_a_second_interrupt_ends_at_once(tmp_path, tiny_config):
    run, handle = Store(tmp_path).create(tiny_config())
    stop_on_signals(run)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    os.close(handle)


def test_whoever_cannot_wait_for_the_step_has_stopped_the_run(tmp_path, tiny_config):
    """Two Ctrl-C are no bug of the program; the run can be resumed, and a table goes on with it."""
    asked = []

    def stop():
        asked.append(1)
        if len(asked) > 3:
            raise KeyboardInterrupt
        return False

    run, handle = Store(tmp_path).create(tiny_config(methods=("baseline",), teacher="none"))
    assert worker.execute(run, stop).state == STOPPED
    assert run.status.resumable
    os.close(handle)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to", "CUBLAS_STATUS_ALLOC_FAILED when calling",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "Unable to find an engine to execute this computation",
    ],
)  # fmt: skip
def test_short_memory_has_many_names(said):
    assert error_sentence(RuntimeError(said)).startswith("Out of memory. Use a smaller batch size")


@pytest.mark.usefixtures("signals")
def test_hangups_are_ignored_where_nohup_says_so(tmp_path, tiny_config):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run, handle = Store(tmp_path).create(tiny_config())
    stop = stop_on_signals(run)
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop()
    os.close(handle)


@pytest.mark.usefixtures("signals")
def test_main_reports_by_its_exit_status(tmp_path, tiny_config, monkeypatch):
    def main(**values):
        run, handle = Store(tmp_path).create(tiny_config(methods=("baseline",), teacher="none", **values))
        monkeypatch.setattr(sys, "argv", ["worker", str(run.path), "--lock", str(handle)])
        try:
            return worker.main()
        finally:
            os.close(handle)

    assert main() == 0
    assert main(lr=100, weight_decay=1, epochs=50, schedule="cosine") == 1


def test_the_status_names_its_process(finished):
    assert finished[0].status.pid == os.getpid()
    assert finished[0].status.pid_started == psutil.Process().create_time()


def test_two_runs_of_one_configuration_write_the_same_rows(tmp_path, tiny_config, complete):
    """Bit for bit and in the same order, from the teacher's first row to the last, whichever thread was faster."""
    config = tiny_config(methods=("baseline", "ie-ft+kd", "ie-dml", "ie-od"), epochs=2, validation_fraction=0.25)
    rows = []
    for i in range(2):
        run, _ = complete(Store(tmp_path / str(i)), config)
        rows.append([{k: v for k, v in row.items() if k != "time"} for row in run.metrics(0)[0]])
    assert len(rows[0]) > 20
    assert rows[0] == rows[1]


def test_the_split_of_channels_and_of_images_is_written_down(tmp_path, tiny_config, complete):
    config = tiny_config(methods=("baseline", "ie-ft"), channel_split="random", validation_fraction=0.25)
    run, _ = complete(Store(tmp_path), config)
    cards = {name: ModelCard.read(folder) for name, folder in run.model_folders.items()}
    (channels,) = cards["ie-ft-seed0"].inheritance_channels
    assert len(set(channels)) == 32
    assert channels != tuple(range(32))
    assert cards["baseline-seed0"].inheritance_channels == ()
    assert run.report["validation_images"] == 24
    assert "72 training, 24 validation and 60 test images" in (run.path / "report.md").read_text()


def test_one_student_that_breaks_does_not_take_the_others_along(tmp_path, tiny_config, monkeypatch, complete):
    calls = []

    def breaks(self, student, teacher):
        calls.append(1)
        return student.mean() * (float("nan") if len(calls) > 4 else 1.0)

    monkeypatch.setattr("iekd.losses.ft.FactorTransferLoss.forward", breaks)
    run, _ = complete(Store(tmp_path), tiny_config(methods=("baseline", "ft"), epochs=3))
    assert run.status.state == FINISHED
    assert list(run.status.diverged) == ["ft-seed0"]
    assert run.report["diverged"] == run.status.diverged
    assert [learner["method"] for learner in run.report["learners"]] == ["baseline"]
    written = (run.path / "report.md").read_text()
    assert "ft-seed0 diverged and is left out of all numbers." in written
    assert f"- {run.status.diverged['ft-seed0']}" in written
    from iekd.runs.siblings import Family
    from iekd.ui.render.headline import headline_html
    from iekd.ui.render.result import result_html
    from iekd.ui.render.run import head_html
    from iekd.ui.tabs.runs import table_html

    page = result_html(run, run.config, run.status)
    head = headline_html(run, run.config, run.status, Family(run.report))
    assert "ft-seed0 diverged" in head
    assert "became nan at step" in head
    assert "finished partly" in page
    assert "1 diverged" in table_html(Store(tmp_path), lambda run, what: True)
    head = head_html(run, run.config, replace(run.status, state=RUNNING), Store(tmp_path))
    assert run.status.diverged["ft-seed0"] in unescape(head)
    log = (run.path / "log.txt").read_text()
    assert "the others continue" in log
    assert "Traceback" not in log
    assert list(run.model_folders) == ["teacher", "baseline-seed0"]
    load_model(run.model_folders["baseline-seed0"])


def test_the_report_can_be_done_again(finished):
    """What a result depends on: configuration, versions, machine, and the commit of a checkout."""
    report = finished[0].report
    assert make_config(**report["config"]) == finished[0].config
    assert {"iekd", "commit", "python", "torch", "torchvision", "numpy", "platform"} <= set(report["versions"])
    assert report["summary"][1]["difference"]["n"] == 2


def test_the_summary_has_the_keys_of_the_command_line(finished):
    short = summary(finished[0].report)
    expected = {"run", "path", "state", "seconds", "teacher", "learners", "diverged", "dataset", "device"}
    assert set(short) == expected
    assert set(short["teacher"]) == {"model", "accuracy", "params"}
    assert all(set(r) == {"method", "seed", "accuracy_last", "accuracy_best", "params"} for r in short["learners"])


def test_a_run_makes_room_for_other_processes_and_says_so(tmp_path, tiny_config, complete, monkeypatch):
    """Nothing at first, then others use a core and a half until the end."""
    import torch

    from iekd.data import control_groups
    from iekd.engine import threads

    loads = iter([0.0, 0.0])
    monkeypatch.setattr(threads, "Load", lambda: lambda: next(loads, 1.5))
    monkeypatch.setattr(threads, "cpus_here", lambda: {0, 1})
    monkeypatch.setattr(control_groups, "cpus_here", lambda: {0, 1})
    monkeypatch.setattr(control_groups, "cpu_quota", lambda: None)
    monkeypatch.setattr(threads, "EVERY", 0)
    torch.set_num_threads(2)
    run, _ = complete(Store(tmp_path / "runs"), tiny_config(methods=("baseline",), teacher="none"))
    assert run.status.state == FINISHED, run.log_tail(40)
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    (changed,) = [event for event in events if event["event"] == "threads"]
    assert (changed["threads"], changed["load"]) == (1, 1.5)
    assert "1 thread(s) compute from now on" in (run.path / "log.txt").read_text()
    assert torch.get_num_threads() == 2, "whoever has called it has theirs back"


def test_a_fixed_number_of_threads_does_not_follow_the_load(tmp_path, tiny_config, complete, monkeypatch):
    from iekd.engine import threads

    monkeypatch.setattr(threads, "Load", lambda: lambda: 2.0)
    monkeypatch.setattr(threads, "EVERY", 0)
    run, _ = complete(Store(tmp_path / "runs"), tiny_config(methods=("baseline",), teacher="none", threads=2))
    assert run.status.state == FINISHED, run.log_tail(40)
    assert '"threads"' not in (run.path / "events.jsonl").read_text()
