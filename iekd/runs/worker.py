"""The process that trains one run: `python -m iekd.runs.worker RUN_DIR [--lock FD]`. The command line calls `execute`.

It waits for its turn on the device, turns the experiment's events into rows and states on disk, and leaves exactly one
final state. Not here: what training does (engine/), and who started it (launchers/, cli/).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Optional

import psutil

from iekd import data
from iekd.config.run import RunConfig, learner_name
from iekd.data.base import Dataset
from iekd.errors import TrainingError, UserError, as_text
from iekd.estimate.cautions import cautions
from iekd.estimate.cost import START_UP, Plan, make_plan, part_seconds
from iekd.estimate.progress import HELD_OUT, TRAINING, Progress
from iekd.models.artifact import ModelCard, check_fits, load_model, save_model
from iekd.models.source import TRAIN, per_channel
from iekd.runs.attempt import Attempt
from iekd.runs.checkpoints import Checkpoints
from iekd.runs.estimate import expected_seconds, wait_for_room
from iekd.runs.files import LineWriter
from iekd.runs.outcome import write_report
from iekd.runs.owner import LOCAL
from iekd.runs.queue import ahead_of, device_name, device_turn
from iekd.runs.store import FAILED, FINISHED, LOADING, QUEUED, RUNNING, STOPPED, STOPPING, Run, Status, Store
from iekd.runs.teachers import find_teacher, origin, teacher_folder, where_from

log = logging.getLogger("iekd")
Watcher = Callable[[Status, Optional[dict[str, Any]]], None]
STATUS_EVERY = 0.5  # seconds between writes of status.json
RESERVE = 64 * 1024  # bytes
# how systems and CUDA's libraries say that memory is short
NO_MEMORY = (
    "out of memory", "can't allocate memory", "status_alloc_failed", "unable to find an engine to execute",
)  # fmt: skip
PATIENCE = 10.0  # seconds that a stop waits for the next checkpoint


class Stopped(Exception):  # noqa: N818 - not an error
    """The run was asked to stop and has finished its step."""


def execute(run: Run, stop: Callable[[], bool], watch: Watcher | None = None) -> Status:
    """Train a run whose lock the caller holds; returns its final status.

    stop: asked between steps; True ends the run as `stopped`.
    watch: called with the status, and each new row of metrics, for whoever sits in front of it.
    """
    me = psutil.Process()
    status = replace(run.status, state=QUEUED, pid=me.pid, pid_started=me.create_time(), error=None)
    run.write_status(status)
    store = Store(run.path.parent)
    reserve = run.path / ".reserve"  # room for the final state on a disk that is full
    with _log_to(run.path / "log.txt"):
        try:
            reserve.write_bytes(bytes(RESERVE))
            if waiting := len(ahead_of(run, store)):
                log.info("Waiting for %d earlier run(s) on this device.", waiting)
            # another launcher starts the worker when it is the run's turn, on a machine that it has chosen
            queue = device_turn(run, store, stop, tell=partial(_wait, run, status, watch))
            turn = queue if run.owner == LOCAL else contextlib.nullcontext(not stop())
            with turn as mine:
                if not mine:
                    raise Stopped
                _Training(run, status, stop, watch).train()
            status.state = FINISHED
            status.progress = status.stage_progress = 1.0
        except (Stopped, KeyboardInterrupt):
            status.state = STOPPED
        except UserError as error:
            status.state, status.error, status.would_repeat = FAILED, str(error), error.would_repeat
        except BaseException as error:
            status.state, status.error = FAILED, explain(error)
            log.exception("Training failed")
        reserve.unlink(missing_ok=True)
        status.ended = time.time()
        status.eta_seconds = status.eta_range = None
        status.waiting = ""
        log.info("The run is %s.%s", status.state, f" {status.error}" if status.error else "")
        run.write_status(status)
        run.event(status.state, **({"error": status.error} if status.error else {}))
        if status.state == FINISHED:
            Checkpoints(run.path / "checkpoints").remove()
        if watch:
            watch(status, None)
    return status


def _wait(run: Run, status: Status, watch: Watcher | None, why: str) -> None:
    """Say what the run waits for, where a person would look."""
    log.info("%s", why)
    status.waiting = why
    run.write_status(status)
    if watch:
        watch(status, None)


def explain(error: BaseException) -> str:
    """One sentence for any error: its own if it is a UserError, else what happened and what to try."""
    text = as_text(str(error)).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, UserError):
        return text
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in NO_MEMORY):
        return "Out of memory. Use a smaller batch size, fewer seeds or methods at once, or a smaller model."
    if "no space left" in text.lower() or getattr(error, "errno", None) == 28:
        return "The disk is full. Free some space, then start the run again."
    return f"Unexpected error ({type(error).__name__}: {text}). The log has the details."


class _Training:
    """The part between getting the device and the final state."""

    def __init__(self, run: Run, status: Status, stop: Callable[[], bool], watch: Watcher | None) -> None:
        self.run, self.status, self.stop, self.watch = run, status, stop, watch
        self.config: RunConfig = run.config
        self.written = 0.0
        self.attempt = Attempt(run, stop)
        self.stop_seen: float | None = None
        self.teacher_model = self.config.teacher  # or its variant, if a file has other shortcuts
        self.teacher_from = ""
        self.trains_teacher = False

    def train(self) -> None:
        """Everything from loading the data to the report; raises Stopped when asked to."""
        self.status.state, self.status.started, self.status.waiting = RUNNING, time.time(), ""
        self.status.stage, self.status.stage_progress = LOADING, 0.0
        self._write(force=True)
        self.run.event(RUNNING)
        self._check_stop()
        self.attempt.begin()
        self.status.spent = self.attempt.spent
        self.status.progress = self.status.progress if self.attempt.notes else 0.0
        loaded = self._load_data()
        self.attempt.check_data(loaded)
        self._check_stop()
        from iekd.engine.experiment import Experiment, Result

        teacher = self._kept_teacher() if self.attempt.notes else self._find_teacher(loaded)
        self.plan, sizes = self._plan(self.config, loaded), (len(loaded.train), len(loaded.test))
        self._find_room(loaded)
        self.experiment = Experiment(
            self.config, loaded, teacher, self.attempt.take_snapshots(), self.attempt.should_snapshot,
            self._threads_changed, self.attempt.notes.get("threads"),
        )  # fmt: skip
        del loaded  # the images that it trains on may be a copy
        self.dataset = self.experiment.dataset
        self._log_data()
        self.status.device = str(self.experiment.device)
        precision = str(self.experiment.precision).removeprefix("torch.")
        log.info("Training on %s (%s).", self.experiment.device, precision)
        self.work_began = time.monotonic()
        taken, spread, _ = expected_seconds(
            self.plan, self.config, *sizes, Store(self.run.path.parent), self.experiment.device.type
        )  # fmt: skip
        self.progress = Progress(
            part_seconds(self.plan, max(0.0, taken - START_UP)), spread,
            self.status.progress, self.attempt.notes.get("pace"),
        )  # fmt: skip
        rows = self.run.metrics_writer()
        try:
            with contextlib.closing(self.experiment.events()) as events:
                for event in events:
                    self._handle(event, rows)
                    if not isinstance(event, Result):  # with the result everything is done
                        self._check_stop_after(event)
        except Stopped:
            log.info("Stopping: saving what the students have learned so far.")
            self.status.state = STOPPING
            self._write(force=True)
            self._save(Result(None))
            raise
        except TrainingError:  # one student's trouble; what the others have learned is kept
            self._save(Result(None))
            raise
        finally:
            rows.close()

    def _plan(self, config: RunConfig, loaded: Dataset) -> Plan:
        return make_plan(
            config, len(loaded.train), len(loaded.test), loaded.channels, len(loaded.class_names),
            loaded.resolution, not self.trains_teacher,
        )  # fmt: skip

    def _find_room(self, loaded: Dataset) -> None:
        """Before anything is trained: what cannot fit is not begun."""
        wait_for_room(
            self.config, lambda config: self._plan(config, loaded).networks, device_name(self.config.device),
            self.stop, partial(_wait, self.run, self.status, self.watch),
        )  # fmt: skip
        self.status.waiting = ""
        self._check_stop()

    def _handle(self, event: Any, rows: LineWriter) -> None:
        from iekd.engine.experiment import Result, StageStart
        from iekd.engine.metrics import Diverged, FellBack, Predicted, Stepped
        from iekd.engine.state import Snapshot

        if isinstance(event, StageStart):
            if event.stage != "teacher" and self.experiment.teacher is not None:
                self._keep_teacher()
            self._start_stage(event)
        elif isinstance(event, Snapshot):
            notes = {
                "seconds": self.status.seconds, "from": self.teacher_from, "trains": self.trains_teacher,
                "threads": self.experiment.threads.count, "pace": self.progress.pace,
            }  # fmt: skip
            self.attempt.keep(event, rows, notes)
        elif isinstance(event, Result):
            self._finish(event)
        elif isinstance(event, (Predicted, Stepped)):
            self._progress(event)
            self._write()
        elif isinstance(event, FellBack):
            self.run.event("fell back to the plain step", stage=event.stage, why=event.message)
        elif isinstance(event, Diverged):
            log.warning("%s Stopped training this student; the others continue.", event.message)
            self.status.diverged[event.learner] = event.message
            self.run.event("diverged", learner=event.learner, step=event.step)
            self._write(force=True)
        else:
            row = {"time": round(time.time(), 3), **asdict(event)}
            if not self.attempt.repeats(event.stage):
                rows.append(row)
            self._progress(event)
            self._write(row=row)

    def _threads_changed(self, threads: int, load: float) -> None:
        """Called from any thread."""
        self.run.event("threads", threads=threads, load=round(load, 2))

    def _kept_teacher(self) -> Any | None:
        """The teacher of the earlier attempt, as an engine TrainedModel; None if it needs none, or still trains it."""
        from iekd.engine.experiment import TrainedModel

        notes = self.attempt.notes
        self.trains_teacher, self.teacher_from = notes["trains"], notes["from"]
        found = self.attempt.teacher() if self.config.needs_teacher else None
        if found is None:
            return None
        model, card = found
        self.teacher_model = card.model
        return TrainedModel(model, card.mean, card.std)

    def _find_teacher(self, dataset: Dataset) -> Any | None:
        """The trained teacher as an engine TrainedModel; None if the run has to train it, or needs none."""
        from iekd.engine.experiment import TrainedModel

        config = self.config
        if not config.needs_teacher:
            return None
        found = find_teacher(config, self.run.path.parent)
        self.teacher_from, self.trains_teacher = where_from(config, found), found is None
        if found is None:
            return None
        log.info("Teacher: %s from '%s'.", config.teacher, found.name)
        if found.is_dir():
            model, card = load_model(found)
            check_fits(card, dataset, found)
            return TrainedModel(model, card.mean, card.std)
        from iekd.models.weight_files import read_weights
        from iekd.models.weights import fit_weights

        file = read_weights(found)
        if file.card:
            check_fits(file.card, dataset, found)
        fitted = fit_weights(file, config.teacher, len(dataset.class_names), dataset.channels)
        for note in fitted.notes:
            log.info("Teacher: %s", note)
        self.teacher_model = fitted.name
        mean, std = (fitted.mean, fitted.std) if fitted.mean and fitted.std else dataset.statistics
        if config.teacher_mean and config.teacher_std:
            mean = per_channel(config.teacher_mean, dataset.channels, "Teacher mean")
            std = per_channel(config.teacher_std, dataset.channels, "Teacher std")
        return TrainedModel(fitted.model, mean, std)

    def _load_data(self) -> Dataset:
        config = self.config
        log.info("Loading dataset %s.", config.dataset)
        return data.load(
            config.dataset, resolution=config.resolution, test_fraction=config.test_fraction, seed=config.data_seed,
            image_memory=config.image_memory, progress=self._reading,
        )  # fmt: skip

    def _reading(self, done: int, total: int) -> None:
        self.status.stage_progress = done / total
        self._write()
        self._check_stop()

    def _log_data(self) -> None:
        dataset = self.dataset
        log.info(
            "%d training, %d validation and %d test images of %d classes, %d x %d, %s.",
            len(dataset.train), len(dataset.validation or ()), len(dataset.test), len(dataset.class_names),
            dataset.resolution, dataset.resolution, "grey" if dataset.channels == 1 else "colour",
        )  # fmt: skip
        self.status.cautions = [
            str(caution) for caution in cautions(self.config, len(dataset.train), len(dataset.test))
        ]
        for caution in self.status.cautions:
            log.warning("%s", caution)

    def _start_stage(self, stage: Any) -> None:
        """stage: an engine StageStart."""
        self.stage, self.predicted = stage, stage.predicted
        self.status.stage, self.status.images_per_second = stage.stage, None
        trained = stage.done / stage.steps if stage.steps else 1.0
        predicted = self.predicted / stage.predictions if stage.predictions else 1.0
        self.status.stage_progress = trained if stage.steps else predicted
        self.progress.start(stage.stage, trained, predicted)
        self._note_progress()
        self.stage_began = time.monotonic()
        before = f", {stage.done} of which were done before" if stage.done else ""
        log.info("Stage: %s%s%s.", stage.stage, f", {stage.steps} steps" if stage.steps else "", before)
        self.run.event("stage", stage=stage.stage)
        self._write(force=True)

    def _progress(self, event: Any) -> None:
        """Learners in lock-step are equally far, so any of them tells; event: Metrics, Stepped or Predicted."""
        from iekd.engine.metrics import Metrics, Predicted

        stage = self.stage
        if isinstance(event, Predicted):
            self.predicted += event.images
            done = min(1.0, self.predicted / stage.predictions)
            self.progress.update(stage.stage, HELD_OUT, done)
        elif not isinstance(event, Metrics) or event.kind == "train":
            images = (event.step - stage.done) * min(self.config.batch_size, len(self.dataset.train))
            self.status.images_per_second = images / max(1e-3, time.monotonic() - self.stage_began)
            done = min(1.0, event.step / stage.steps)
            self.progress.update(stage.stage, TRAINING, done)
        else:
            return
        if isinstance(event, Predicted) != bool(stage.steps):
            self.status.stage_progress = max(self.status.stage_progress, done)
        self._note_progress()

    def _note_progress(self) -> None:
        left = self.progress.remaining()
        self.status.progress = self.progress.value
        self.status.eta_seconds, self.status.eta_range = left.seconds, (left.low, left.high)

    def _write(self, row: dict[str, Any] | None = None, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self.written > STATUS_EVERY:
            self.run.write_status(self.status)
            self.written = now
        if self.watch:
            self.watch(self.status, row)

    def _check_stop(self) -> None:
        if self.stop():
            raise Stopped

    def _check_stop_after(self, event: Any) -> None:
        """Stop at a checkpoint, so that nothing is lost; without one where none comes soon, or at all."""
        from iekd.engine.metrics import Metrics, Predicted, Stepped
        from iekd.engine.state import Snapshot

        if not self.stop():
            return
        self.stop_seen = self.stop_seen or time.monotonic()
        waited = time.monotonic() - self.stop_seen
        training = isinstance(event, (Metrics, Predicted, Stepped)) and self.status.stage != "evaluation"
        if isinstance(event, Snapshot) or not training or waited > PATIENCE:
            raise Stopped

    def _card(self, network: Any, model: str, **values: Any) -> ModelCard:
        dataset = self.dataset
        return ModelCard(
            model=model, datasets=(dataset.name,), class_names=dataset.class_names, channels=dataset.channels,
            resolution=dataset.resolution, mean=network.mean, std=network.std, background=dataset.background,
            params=sum(p.numel() for p in network.model.parameters()), command=self.config.command_line(), **values,
        )  # fmt: skip

    def _keep_teacher(self) -> None:
        """Put the teacher where another attempt finds it; one that this run trained also where later runs find it.

        There, one is replaced on request only.
        """
        if self.attempt.has_teacher:
            return
        network: Any = self.experiment.teacher
        fingerprint = self.dataset.fingerprint
        values = {"accuracy": self.experiment.teacher_accuracy, "origin": origin(self.config, fingerprint)}
        card = self._card(network, self.teacher_model, role="teacher", **values)
        self.attempt.keep_teacher(network.model, card)
        shared = teacher_folder(self.config, self.run.path.parent, fingerprint)
        if self.trains_teacher and (self.config.teacher_from == TRAIN or not shared.is_dir()):
            save_model(shared, network.model, card)

    def _save(self, result: Any) -> None:
        """Write teacher and students to `models/`; accuracies are those of the result, or the last epoch's."""
        results = {r.name: r for r in result.learners}
        experiment = self.experiment
        folder = self.run.path / "models"
        if experiment.teacher is not None:
            accuracy = result.teacher.accuracy_last if result.teacher else None
            card = self._card(
                experiment.teacher, self.teacher_model, role="teacher", accuracy=accuracy,
                energy_threshold=result.teacher.energy_threshold if result.teacher else None,
            )  # fmt: skip
            save_model(folder / "teacher", experiment.teacher.model, card)
        for method, seed in self.config.learner_names:
            learner = experiment.students.get(learner_name(method, seed))
            if learner is not None and learner.steps and learner.healthy:
                network = experiment.network(learner)
                accuracy = (
                    results[learner.name].accuracy_last if learner.name in results else learner.accuracy.get("test")
                )
                card = self._card(
                    network, self.config.student, accuracy=accuracy, method=method, seed=seed,
                    inheritance_channels=learner.method.inheritance_channels,
                    energy_threshold=results[learner.name].energy_threshold if learner.name in results else None,
                )  # fmt: skip
                save_model(folder / learner.name, network.model, card)

    def _finish(self, result: Any) -> None:
        self._save(result)
        # what a resumed run did of its work is too little to tell
        speed = None if self.attempt.notes else self.plan.total / (time.monotonic() - self.work_began)
        teacher = {"model": self.teacher_model, "from": self.teacher_from}
        write_report(self.run, self.status, result, self.dataset, teacher, speed=speed)


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("iekd")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()


def stop_on_signals(run: Run) -> Callable[[], bool]:
    """A stop() that turns true on SIGTERM, SIGINT, SIGHUP or a written request; a second SIGINT stops without waiting
    for the step."""
    asked: list[int] = []

    def on_signal(number: int, _: object) -> None:
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked.append(number)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # its terminal was closed; nohup says that this is no matter
        signal.signal(signal.SIGHUP, on_signal)
    return lambda: bool(asked) or run.stop_requested


def main() -> int:
    parser = argparse.ArgumentParser(description="Train one run (started by iekd itself).")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--lock", type=int, help="inherited descriptor of the run's lock")
    arguments = parser.parse_args()
    run = Run(arguments.run_dir)
    handle = arguments.lock
    if handle is None and run.owner == LOCAL:  # another launcher knows by itself whether its worker lives
        handle = run.lock()
    if handle is not None:
        os.set_inheritable(handle, False)
    status = execute(run, stop_on_signals(run))
    return 0 if status.state in (FINISHED, STOPPED) else 1


if __name__ == "__main__":
    sys.exit(main())
