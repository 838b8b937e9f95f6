"""The training of a run by its worker: the engine's events become rows, checkpoints, models and a report on disk."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from iekd import data
from iekd.config.methods import method_spec
from iekd.config.run import RunConfig
from iekd.config.unused import unused_settings
from iekd.data.base import Dataset, Split
from iekd.data.memory import image_budget
from iekd.data.unlabelled import load_unlabelled
from iekd.errors import TrainingError
from iekd.estimate.cautions import cautions
from iekd.estimate.cost import START_UP, Plan, make_plan, part_seconds
from iekd.estimate.progress import Progress
from iekd.models.artifact import save_model
from iekd.models.source import TRAIN
from iekd.runs.attempt import Attempt
from iekd.runs.estimate import expected_seconds, wait_for_room
from iekd.runs.files import LineWriter
from iekd.runs.machine import Machine
from iekd.runs.more_teachers import load_more
from iekd.runs.outcome import model_card, save_models, write_report
from iekd.runs.processes import Team
from iekd.runs.slots import device_name
from iekd.runs.starts import FirstWeights, Role, load_start, student_source
from iekd.runs.status import LOADING, RUNNING, STOPPING
from iekd.runs.status_writer import StatusWriter
from iekd.runs.store import Run, Store
from iekd.runs.teacher_model import load_teacher
from iekd.runs.teachers import (
    Found,
    as_told,
    check_epochs,
    find_teacher,
    origin,
    sentence_on_epochs,
    teacher_folder,
    title_of_found,
    to_fine_tune,
    where_from,
)
from iekd.runs.watched import WatchedWriter

if TYPE_CHECKING:
    from iekd.models.start import Start, Starts

log = logging.getLogger("iekd")
LISTED = 100  # classes that the log names
PATIENCE = 10.0  # seconds that a stop waits for the next checkpoint


class Stopped(Exception):  # noqa: N818 - not an error
    """The run was asked to stop and has finished its step."""


class Training:
    """What happens between getting the device and the final state."""

    def __init__(self, run: Run, writer: StatusWriter, stop: Callable[[], bool], team: Team | None = None) -> None:
        """team: the processes that train the run, if there are several."""
        self.run, self.writer, self.stop, self.team = run, writer, stop, team
        self.status = writer.status
        self.config: RunConfig = run.config
        self.attempt = Attempt(run, stop)
        self.stop_seen: float | None = None
        self.teacher_model = self.config.teacher  # or its variant, if a file has other shortcuts
        self.teacher_found: Found | None = None
        self.teacher_from = ""
        self.start_fingerprint = ""  # of the weights that are fine-tuned into the teacher
        self.trains_teacher = False

    def train(self) -> None:
        """Everything from loading the data to the report; raises Stopped when asked to."""
        self.status.state, self.status.started, self.status.waiting = RUNNING, time.time(), ""
        self.status.stage, self.status.stage_progress = LOADING, 0.0
        self.writer.write(force=True)
        self.run.event(RUNNING)
        self._check_stop()
        self.attempt.begin()
        self.status.spent = self.attempt.spent
        self.status.progress = self.status.progress if self.attempt.notes else 0.0
        self._make_experiment()
        if self.team is not None:
            self.run.event("processes", count=self.team.place.world, sync_bn=self.config.sync_bn)
        self._log_data()
        self.status.device = str(self.experiment.device)
        precision = str(self.experiment.precision).removeprefix("torch.")
        machine = Machine(self.experiment.device, lambda: self.experiment.threads.count)
        log.info("Training on %s (%s).", machine, precision)
        batch = min(self.config.batch_size, len(self.dataset.train))
        store, device = Store(self.run.path.parent), self.experiment.device.type
        seconds, spread, _ = expected_seconds(self.plan, self.config, *self.sizes, store, device)
        parts = part_seconds(self.plan, max(0.0, seconds - START_UP))
        progress = Progress(parts, spread, self.status.progress, self.attempt.notes.get("pace"))
        self.writer.begin(progress, batch, machine)
        from iekd.engine.events import Result

        rows = self.run.metrics_writer()
        self.watched = WatchedWriter(self.run, self.dataset, self.experiment.watched_split, self.experiment.watched)
        try:
            with contextlib.closing(self.experiment.events()) as events:
                for event in events:
                    self._handle(event, rows)
                    if not isinstance(event, Result):  # with the result everything is done
                        self._check_stop_after(event)
        except Stopped:
            log.info("Stopping: saving what the students have learned so far.")
            self.status.state = STOPPING
            self.writer.write(force=True)
            self._save_what_there_is()
            raise
        except TrainingError:  # the other students may have learned something
            self._save_what_there_is()
            raise
        finally:
            rows.close()
            self.watched.close()

    def _make_experiment(self) -> None:
        """Load the images and the networks; raises Stopped when asked to."""
        loaded = self._load_data()
        unlabelled = self._load_unlabelled(loaded)
        self.attempt.check_data(loaded, unlabelled)
        self._check_stop()
        from iekd.engine.experiment import Experiment

        gc.enable()  # see worker.main
        teacher = self._earlier_teacher() if self.attempt.notes else self._find_teacher(loaded)
        starts = self._starts(loaded, teacher)
        more_teachers = self._more_teachers(loaded)
        self.plan, self.sizes = self._plan(self.config, loaded), (len(loaded.train), len(loaded.test))
        self._find_room(loaded)
        # "cuda:1" is the only GPU that CUDA sees now, and so its first (slots.py)
        device, processes = self.config.device.partition(":")[0], None
        if self.team is not None:
            device = self.team.device(self.config)
            found = as_told(self.teacher_found)
            processes = self.team.join(device, self.config.sync_bn, self.attempt.data, found, self._check_stop)
        here = self.config.model_copy(update={"device": device})
        self.experiment = Experiment(
            here, loaded, teacher, self.attempt.take_snapshots(), self.attempt.should_snapshot,
            self._threads_changed, self.attempt.notes.get("threads"), starts=starts, unlabelled=unlabelled,
            more_teachers=more_teachers, processes=processes,
        )  # fmt: skip
        self.dataset = self.experiment.dataset  # `loaded` goes: the images that it trains on may be a copy

    @property
    def _image_memory(self) -> float | None:
        """GB that decoded images may take: of what all processes of this machine may take, this one's share."""
        if self.team is None or self.config.image_memory is not None:
            return self.config.image_memory
        return image_budget(None) / 1e9 / self.team.place.local_world

    def _load_data(self) -> Dataset:
        config = self.config
        log.info("Loading dataset %s.", config.dataset)
        return data.load(
            config.dataset, resolution=config.resolution, test_fraction=config.test_fraction, seed=config.data_seed,
            image_memory=self._image_memory, progress=self._reading, fit=config.fit, class_order=config.class_order,
        )  # fmt: skip

    def _load_unlabelled(self, loaded: Dataset) -> Split | None:
        config = self.config
        if not config.unlabelled:
            return None
        if "unlabelled" in unused_settings(config):  # which is said where settings without effect are
            return None
        log.info("Loading unlabelled images.")
        split, notes = load_unlabelled(config.unlabelled, loaded, self._image_memory, progress=self._reading)
        for note in notes:
            log.warning("%s", note)
        ignoring = [method for method in config.methods if not method_spec(method).learns_unlabelled]
        log.info(
            "%d unlabelled images%s.", len(split),
            f", which {', '.join(ignoring)} cannot learn from and leaves out" if ignoring else "",
        )  # fmt: skip
        return split

    def _reading(self, done: int, total: int) -> None:
        self.status.stage_progress = done / total
        self.writer.write()
        self._check_stop()

    def _log_data(self) -> None:
        dataset = self.dataset
        log.info(
            "%d training, %d validation and %d test images of %d classes, %d x %d, %s.",
            len(dataset.train), len(dataset.validation or ()), len(dataset.test), len(dataset.class_names),
            dataset.resolution, dataset.resolution, "grey" if dataset.channels == 1 else "colour",
        )  # fmt: skip
        counts = np.bincount(dataset.train.labels, minlength=len(dataset.class_names))
        listed = [f"{k} {name} ({counts[k]:,})" for k, name in enumerate(dataset.class_names[:LISTED])]
        log.info("Classes: %s%s.", ", ".join(listed), ", ..." if len(dataset.class_names) > LISTED else "")
        self.status.cautions = list(
            map(str, cautions(self.config, len(dataset.train), len(dataset.test), fine_tunes=self.status.fine_tunes))
        )
        for caution in self.status.cautions:
            log.warning("%s", caution)

    def _plan(self, config: RunConfig, loaded: Dataset) -> Plan:
        return make_plan(
            config, len(loaded.train), len(loaded.test), loaded.channels, len(loaded.class_names),
            loaded.resolution, not self.trains_teacher,
        )  # fmt: skip

    def _find_room(self, loaded: Dataset) -> None:
        """Before anything is trained: what cannot fit is not begun."""
        wait_for_room(
            self.config, lambda config: self._plan(config, loaded).networks, device_name(self.config.device),
            self.stop, self.writer.wait,
        )  # fmt: skip
        self.status.waiting = ""
        self._check_stop()

    def _earlier_teacher(self) -> Any | None:
        """The teacher of the earlier attempt, as an engine TrainedModel; None if it needs none, or still trains it."""
        from iekd.engine.events import TrainedModel

        notes = self.attempt.notes
        self.trains_teacher, self.teacher_from = notes["trains"], notes["from"]
        self.start_fingerprint = notes.get("start", "")
        found = self.attempt.teacher() if self.config.needs_teacher else None
        if found is None:
            return None
        model, card = found
        self.teacher_model = card.model
        return TrainedModel(model, card.mean, card.std)

    def _choose_teacher(self) -> Found | None:
        """Where the teacher is; None if the run has to train it."""
        return find_teacher(self.config, self.run.path.parent)

    def _find_teacher(self, dataset: Dataset) -> Any | None:
        """The trained teacher as an engine TrainedModel; None if the run has to train it, or needs none."""
        from iekd.engine.events import TrainedModel

        config = self.config
        if not config.needs_teacher:
            return None
        found = self.teacher_found = self._choose_teacher()
        start = to_fine_tune(config, self.run.path.parent)
        check_epochs(config, found, start, data.describe(config.dataset))
        self.teacher_from, self.trains_teacher = where_from(config, found, start), found is None
        self.start_fingerprint = start.fingerprint if start else ""
        if found is None:
            return None
        log.info("Teacher: %s from '%s'.", config.teacher, title_of_found(found))
        if said := sentence_on_epochs(config, found, self.run.path.parent):
            log.info(said)
        teacher = load_teacher(found, config, dataset, fine_tuned=start is not None)
        for note in teacher.notes:
            log.info("Teacher: %s", note)
        self.teacher_model = teacher.name
        return TrainedModel(teacher.model, teacher.mean, teacher.std)

    def _starts(self, dataset: Dataset, teacher: Any | None) -> Starts:
        """What the networks that are trained begin with instead of random weights."""
        from iekd.models.start import Starts

        config, runs_dir = self.config, self.run.path.parent

        def of(role: Role, source: FirstWeights | None) -> Start | None:
            if source is None:
                return None
            log.info("%s: its first weights are from %s.", role.capitalize(), source.title)
            start = load_start(source, role, config, dataset)
            for note in start.notes:
                log.info("%s: %s", role.capitalize(), note)
            return start

        found = None
        if teacher is None and self.start_fingerprint:
            found = self.attempt.first_weights("teacher", lambda: of("teacher", to_fine_tune(config, runs_dir)))
            self.teacher_model = found.name if found else self.teacher_model
        self.status.fine_tunes = self.trains_teacher and bool(self.start_fingerprint)  # also once it is trained
        student = None
        if config.student_from:
            student = self.attempt.first_weights("student", lambda: of("student", student_source(config, runs_dir)))
        return Starts(found, student)

    def _more_teachers(self, dataset: Dataset) -> list[Any]:
        """The teachers beside the first, as engine TrainedModels."""
        from iekd.engine.events import TrainedModel

        found: list[Any] = []
        for teacher in load_more(self.config, self.run.path.parent, dataset):
            log.info("Further teacher: %s, from '%s'.", teacher.name, self.config.sources_of_more[len(found)])
            for note in teacher.notes:
                log.info("Further teacher: %s", note)
            found.append(TrainedModel(teacher.model, teacher.mean, teacher.std))
        return found

    def _handle(self, event: Any, rows: LineWriter) -> None:
        from iekd.engine.events import Result, StageStart
        from iekd.engine.metrics import Diverged, FellBack, Predicted, Stepped, Watched
        from iekd.engine.state import Snapshot

        if isinstance(event, StageStart):
            if event.stage != "teacher" and self.experiment.teacher is not None:
                self._save_teacher()
            self.writer.start_stage(event)
        elif isinstance(event, Snapshot):
            notes = {
                "seconds": self.status.seconds, "from": self.teacher_from, "trains": self.trains_teacher,
                "start": self.start_fingerprint,
                "threads": self.experiment.threads.count, "pace": self.writer.progress.pace,
                "watched": self.watched.count,
            }  # fmt: skip
            self.attempt.write_checkpoint(event, rows, notes)
        elif isinstance(event, Result):
            self._finish(event)
        elif isinstance(event, (Predicted, Stepped)):
            self.writer.advance(event)
            self.writer.write()
        elif isinstance(event, Watched):
            if not self.attempt.repeats(event.stage):
                self.watched.append(event)
        elif isinstance(event, FellBack):
            self.run.event("fell back to the plain step", stage=event.stage, why=event.message)
        elif isinstance(event, Diverged):
            log.warning("%s Stopped training this student; the others continue.", event.message)
            self.status.diverged[event.learner] = event.message
            self.run.event("diverged", learner=event.learner, step=event.step)
            self.writer.write(force=True)
        else:
            row = {"time": round(time.time(), 3), **asdict(event)}
            if not self.attempt.repeats(event.stage):
                rows.append(row)
            self.writer.advance(event)
            self.writer.write(row=row)

    def _threads_changed(self, threads: int, load: float) -> None:
        """Called from any thread."""
        self.run.event("threads", threads=threads, load=round(load, 2))

    def _check_stop(self) -> None:
        if self.stop():
            raise Stopped

    def _check_stop_after(self, event: Any) -> None:
        """Stop at a checkpoint, so that nothing is lost; without one if none comes soon, or at all."""
        from iekd.engine.metrics import Metrics, Predicted, Stepped, Watched
        from iekd.engine.state import Snapshot

        if not self.stop():
            return
        self.stop_seen = self.stop_seen or time.monotonic()
        waited = time.monotonic() - self.stop_seen
        training = isinstance(event, (Metrics, Predicted, Stepped, Watched)) and self.status.stage != "evaluation"
        if isinstance(event, Snapshot) or not training or waited > PATIENCE:
            raise Stopped

    def _save_teacher(self) -> None:
        """Put the teacher where another attempt finds it; one that this run trained also where later runs find it.

        There, one is replaced on request only.
        """
        if self.attempt.has_teacher:
            return
        network: Any = self.experiment.teacher
        fingerprint = self.dataset.fingerprint
        card = model_card(
            network, self.teacher_model, self.config, self.dataset, role="teacher",
            accuracy=self.experiment.teacher_accuracy, origin=origin(self.config, fingerprint, self.start_fingerprint),
        )  # fmt: skip
        self.attempt.save_teacher(network.model, card)
        shared = teacher_folder(self.config, self.run.path.parent, fingerprint, self.start_fingerprint)
        if self.trains_teacher:
            save_model(shared, network.model, card, keep=self.config.teacher_from != TRAIN)

    def _save_what_there_is(self) -> None:
        from iekd.engine.events import Result

        if self.team is not None:  # saving needs no other process, and may take long
            self.team.left.set()
        self._save(Result(None))

    def _save(self, result: Any) -> None:
        save_models(self.run, self.experiment, result, self.teacher_model)

    def _finish(self, result: Any) -> None:
        self._save(result)
        # what a resumed run did of its work is too little to tell
        speed = None if self.attempt.notes else self.plan.total / self.writer.elapsed
        more, sources = self.config.more_teachers, self.config.sources_of_more if self.config.more_teachers else ()
        teacher = {
            "model": ", ".join((self.teacher_model, *more)), "from": ", ".join((self.teacher_from, *sources)),
        }  # fmt: skip
        write_report(self.run, self.status, result, self.dataset, teacher, speed=speed)
