"""The stages of a run: teacher -> auto-encoder -> students -> evaluation, as one generator.

Yields a StageStart at each stage, Metrics in between (Diverged where a student breaks) and one Result at the end. Knows
data and networks, but no files.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from iekd.config.methods import check_divisible, method_spec
from iekd.config.run import STAGES, RunConfig, check_maps, learner_name
from iekd.data.base import Dataset, Split
from iekd.data.control_groups import cores
from iekd.distill.method import Baseline, Method, build_method, check_built
from iekd.distill.targets import Pair
from iekd.engine.accelerate import (
    Shortcuts,
    channels_last,
    choose_device,
    choose_precision,
    keep_memory,
)
from iekd.engine.augment import Augment, make_augment
from iekd.engine.auto_encoder import AutoEncoders
from iekd.engine.batches import (
    Batches,
    TrainingBatches,
    WithUnlabelled,
    images_of_run,
    images_on_device,
    training_split,
)
from iekd.engine.distortions import Extras, make_extras
from iekd.engine.ensemble import Ensemble, Member
from iekd.engine.events import Event, LearnerResult, Result, StageStart, TrainedModel
from iekd.engine.frozen_teacher import FrozenTeacher
from iekd.engine.learner import ENERGY, Learner, evaluation_batch_size, predict
from iekd.engine.loop import HeldOut, ShouldSnapshot, train
from iekd.engine.metrics import Predicted
from iekd.engine.mutual import MutualLearner
from iekd.engine.parallel import Processes, least_images
from iekd.engine.part import shares_of
from iekd.engine.scoring import UNLIKE, accuracy, class_accuracy, energy, is_right, predicted
from iekd.engine.stacked import stack_seeds
from iekd.engine.state import Snapshot
from iekd.engine.stream import HeldOutImages, processes, split_into_batches
from iekd.engine.threads import Threads, Told
from iekd.engine.training_unit import TrainingUnit
from iekd.engine.watched import MOST_REPORTS, Watch, choose
from iekd.errors import TrainingError
from iekd.losses.od import margin
from iekd.models.catalog import model_info
from iekd.models.normalise import Normalise
from iekd.models.registry import build
from iekd.models.start import Start, Starts

log = logging.getLogger(__name__)

TEACHER, STUDENTS, EVALUATION = "teacher", "students", "evaluation"
Role = Literal["teacher", "student", "peer"]
PEER_SEED = 1_000_003  # added to a learner's seed for the initial weights of its peer


class Experiment:
    """One run's training. Iterate `events()`; `students` can be read at any time, for example to save them."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, teacher: TrainedModel | None = None,
        earlier: Mapping[str, Snapshot] | None = None, should_snapshot: ShouldSnapshot | None = None,
        threads_changed: Told | None = None, threads_before: int | None = None, starts: Starts | None = None,
        unlabelled: Split | None = None, more_teachers: Sequence[TrainedModel] = (),
        processes: Processes | None = None,
    ) -> None:  # fmt: skip
        """Args:
            config: what is trained, and how.
            dataset: images (N,H,W,C) uint8 and labels (N,) at the resolution that is trained with; part of its training
                split is held out for validation here.
            teacher: a trained network for config.teacher, or None to train one if the run needs it.
            earlier: stage -> the snapshot to resume it from.
            should_snapshot: see `loop.train`.
            threads_changed: `tell` of Threads.
            threads_before: `before` of Threads.
            starts: what the teacher, if it is trained, and the students begin with instead of random weights. Who calls
                this loads them (models/start.py), as runs do; the engine reads no files.
            unlabelled: more images for the students' stage, without labels.
            more_teachers: their predictions are averaged with the teacher's.
            processes: those that train together, of which this is one (parallel.py); all make the same Experiment, and
                the first one's `should_snapshot` counts.
        Raises:
            TrainingError: config.student_from is set, and `starts` has nothing for the students; or there is no
                teacher, and none is to be trained.
            UserError: a method cannot be used with these networks, has no builder, or cannot be trained by several
                processes.
        """
        self.processes = processes
        self.config, self.teacher, self.starts = config, teacher, starts or Starts()
        self.more_teachers = tuple(more_teachers)
        self.unlabelled, self.unlabelled_each = unlabelled, 0  # so many in each batch
        if config.student_from and self.starts.student is None:
            raise TrainingError(
                f"Student from '{config.student_from}' is set, but no weights are given. Pass them as starts, or train "
                "with iekd train."
            )
        if teacher is None and config.needs_teacher and not config.teacher_epochs:
            raise TrainingError(
                "Teacher epochs '0' trains no teacher, and none is given. Pass one as teacher, or give more epochs."
            )
        check_maps(config)  # these two before hours of training its teacher
        check_built(config.methods)
        self.earlier, self.should_snapshot = dict(earlier or {}), should_snapshot
        seed = config.data_seed
        self.dataset = dataset.limited(config.limit_train, seed).held_out(config.validation_fraction, seed)
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.shortcuts = Shortcuts.of(config, self.device)
        if processes is not None:
            check_divisible(config.methods)
            self.should_snapshot = processes.agree(should_snapshot) if should_snapshot else None
            self.shortcuts = Shortcuts()
            processes.log(config.batch_size)
        if self.device.type == "cuda":
            # shapes stay the same, so searching for the fastest kernels pays
            torch.backends.cudnn.benchmark = not config.eager
        elif not config.eager:
            keep_memory()
        follows = config.threads == "auto" and self.device.type == "cpu"
        asked = torch.get_num_threads() if config.threads == "auto" and not follows else config.threads
        if processes is not None:  # a fixed number: they would take each other for a load
            asked = processes.share_of(cores() if asked == "auto" else asked)
        self.threads = Threads(asked, tell=threads_changed, before=threads_before)
        self.statistics = self.dataset.statistics
        self.training = training_split(config, self.dataset)
        self.students: dict[str, Learner] = {}
        self.teacher_accuracy: float | None = None  # of a teacher that this run trained
        # the images that people can watch; of the test split only if there is no validation split
        self.watched_split = "test" if self.dataset.validation is None else "validation"
        self.watched = choose((self.dataset.validation or self.dataset.test).labels, len(self.dataset.class_names))

    def events(self) -> Generator[Event, None, None]:
        """Train, stage by stage: the teacher, the auto-encoder, the students, then the evaluation on the test split.

        Returns:
            What happens, as it happens: the start of each stage, rows of metrics, snapshots, and last the Result.
        Raises:
            TrainingError: it cannot go on; the message says why. A student that diverges is no error: the others go on.
        """
        config, dataset = self.config, self.dataset
        if config.patience and dataset.validation is None:
            raise TrainingError(
                f"Patience '{config.patience}' cannot be used: each class has too few images to hold any out for "
                "validation. Raise the validation fraction, or give a patience of 0."
            )
        held_out = {"test": dataset.test}
        if dataset.validation is not None:
            held_out = {"validation": dataset.validation, **held_out}
        splits = (self.training, list(held_out.values()))
        part = None if self.processes is None else self.processes.part
        with (
            self.threads.used(),
            images_of_run(*splits, self.device, config.image_memory, self._readers()) as (training, evaluation),
        ):
            batches = Batches(
                *training, config.batch_size, config.data_seed, self.augment(), config.drop_last, self.extras(), part
            )
            batches.check_parts(least_images(config.sync_bn))
            evaluated = shares_of(dict(zip(held_out, evaluation, strict=True)), part)
            with self._with_unlabelled(batches) as mixed:
                yield from self._stages(batches, evaluated, mixed)

    def _readers(self) -> int:
        """How many processes read images for this one."""
        return processes(self.device, 1 if self.processes is None else self.processes.local_count)

    @contextlib.contextmanager
    def _with_unlabelled(self, batches: Batches) -> Generator[TrainingBatches, None, None]:
        """The batches that students learn from."""
        if self.unlabelled is None:
            yield batches
            return
        workers = -(-self._readers() // 2)  # there are others for the labelled images
        with images_on_device([self.unlabelled], self.device, self.config.image_memory, workers) as [(images, _)]:
            mixed = WithUnlabelled(batches, images, self.augment(self.config.augmentation))
            mixed.check_parts()
            self.unlabelled_each = mixed.here
            size = batches.batch_size
            log.info("Each batch has %d unlabelled images beside its %d labelled ones.", mixed.batch_size, size)
            yield mixed

    def _stages(
        self, batches: TrainingBatches, held_out: HeldOut, mixed: TrainingBatches | None = None
    ) -> Generator[Event, None, None]:
        """mixed: what students learn from; None for the same batches as everybody."""
        config = self.config
        frozen = None
        if config.needs_teacher:
            if self.teacher is None:
                self.teacher = yield from self._train_teacher(batches, held_out)
            frozen = FrozenTeacher(self._all_teachers(self.teacher), self.device, self.precision, self.dataset.shape)
        if config.needs_auto_encoder:
            assert frozen is not None
            coders = AutoEncoders(
                self._factor_widths(), config, self.device, self.precision,
                steps_per_epoch=len(batches), report_every=self._report_every,
            )  # fmt: skip
            yield from self._train([coders], batches, frozen, {}, config.auto_encoder_epochs, overlap=True)
            frozen.encoders = coders.encoders()
            del coders  # with its gradients
        self.students = {learner.name: learner for learner in self._make_students(len(batches))}
        taught = any(learner.method.needs_teacher for learner in self.students.values())
        yield from self._train(self._units(), mixed or batches, frozen if taught else None, held_out, config.epochs)
        yield from self._evaluate(held_out["test"])

    def _train(
        self, units: Sequence[TrainingUnit], batches: TrainingBatches, teacher: FrozenTeacher | None, held_out: HeldOut,
        epochs: int, overlap: bool = False,
    ) -> Generator[Event, None, None]:  # fmt: skip
        """One stage, from where an earlier attempt was."""
        stage = units[0].stage
        for unit in units:
            if self.processes is not None:
                assert isinstance(batches, (Batches, WithUnlabelled))
                unit.work_among(self.processes, batches.whole)
            if stage in self.earlier:
                unit.restore(self.earlier[stage].states)
        self.earlier = {s: snapshot for s, snapshot in self.earlier.items() if STAGES.index(s) > STAGES.index(stage)}
        # each learner predicts all held-out images after each epoch
        each = sum(len(unit.names) for unit in units) * sum(len(labels) for _, labels in held_out.values())
        done = units[0].steps // len(batches)
        yield StageStart(stage, epochs * len(batches), units[0].steps, epochs * each, done * each)
        for unit in units:
            yield from unit.diverged.values()  # in an earlier attempt
        options = (self.shortcuts, overlap, self.should_snapshot, self.threads)
        events = train(units, batches, teacher, held_out, epochs, *options)
        if self.processes is None:
            yield from events
            return
        if teacher is not None:
            self.processes.check_equal(teacher.model.state_dict(), "the teacher's weights")
        yield from self.processes.checked(events, units)

    def augment(self, kind: str | None = None) -> Augment:
        """The augmentation of training images. kind: as in RunConfig.augmentation; None: what is left to do of it."""
        config = self.config
        if kind is None:  # what is read may be a view already
            kind = config.augmentation if self.training is self.dataset.train else "none"
        return make_augment(kind, config.cutout, self.dataset.resolution, self.statistics[0], self.device, config.flip)

    def extras(self) -> Extras | None:
        """What is done to a batch after the augmentation."""
        return make_extras(self.config, self.statistics[0], len(self.dataset.class_names), self.device)

    def class_weights(self) -> Tensor | None:
        """(K,) float32, n / (K n_c) over the K classes that have training images; None where all count the same."""
        if self.config.class_weights == "none":
            return None
        counts = torch.bincount(torch.from_numpy(self.dataset.train.labels), minlength=len(self.dataset.class_names))
        there = counts > 0
        weights = counts.sum() / (there.sum() * counts.clamp(min=1))
        return torch.where(there, weights, 0.0).float()

    def network(self, learner: Learner) -> TrainedModel:
        """The learner's student, ready to be saved."""
        return TrainedModel(learner.chosen, *self._statistics(self.starts.student))

    def _statistics(self, start: Start | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What a network's images are normalised with: what its first weights ask for, else the dataset's own."""
        return (start.mean, start.std) if start and start.mean and start.std else self.statistics

    def _train_teacher(self, batches: TrainingBatches, held_out: HeldOut) -> Generator[Event, None, TrainedModel]:
        epochs = self.config.teacher_epochs
        torch.manual_seed(0)
        model = self._build("teacher")
        learner = self._learner(TEACHER, TEACHER, model, Baseline(), epochs, len(batches))
        learner.watch = self._watch(epochs)
        yield from self._train([learner], batches, None, held_out, epochs)
        self.teacher_accuracy = learner.test_accuracy
        return TrainedModel(learner.chosen, *self._statistics(self.starts.teacher))

    def _all_teachers(self, first: TrainedModel) -> TrainedModel:
        """The teacher, or all teachers as one network, whose images are normalised for the first."""
        if not self.more_teachers:
            return first
        members = [Member(one.model, one.mean, one.std) for one in (first, *self.more_teachers)]
        return TrainedModel(Ensemble(members), first.mean, first.std)

    def _factor_widths(self) -> tuple[int, ...]:
        """Channels of the teacher's stages that get an auto-encoder: the last, or all that an IE form compares."""
        specs = [method_spec(method) for method in self.config.methods]
        every = self.config.ie_stages == "all" and any(spec.needs_factor and spec.explores for spec in specs)
        widths = self._widths("teacher")
        count = len(self._pair().stages("all" if every else "last"))
        return widths[-count:]

    def _pair(self) -> Pair:
        config = self.config
        taught_by = self._widths("teacher") if config.needs_teacher else ()
        norms = []
        if self.teacher is not None and any(method_spec(m).needs_margins for m in config.methods):
            norms = cast(list[nn.BatchNorm2d], self.teacher.model.stage_norms)
        margins = tuple(margin(norm.bias.detach().cpu(), norm.weight.detach().cpu().abs()) for norm in norms)
        return Pair(self._widths("student"), taught_by, self._widths("peer"), margins)

    def _make_students(self, steps_per_epoch: int) -> list[Learner]:
        config, pair = self.config, self._pair()
        swapped = Pair(pair.peer, pair.teacher, pair.student, pair.margins)  # for the peer's method
        learners = []
        for seed in config.seeds:
            torch.manual_seed(seed)
            student = self._build("student")
            for name in config.methods:
                torch.manual_seed(seed)  # a method's own weights do not depend on which others are trained
                method = build_method(name, config, pair)
                which = (learner_name(name, seed), STUDENTS, copy.deepcopy(student), method)
                if method.needs_peer:
                    torch.manual_seed(PEER_SEED + seed)
                    peer = self._build("peer")
                    taught = build_method(name, config, swapped)
                    second = self._learner(f"{which[0]}'s peer", STUDENTS, peer, taught, config.epochs, steps_per_epoch)
                    learners.append(self._learner(*which, config.epochs, steps_per_epoch, second))
                else:
                    learners.append(self._learner(*which, config.epochs, steps_per_epoch))
        for learner in learners:  # not their peers
            learner.watch = self._watch(config.epochs)
            for one in (learner, getattr(learner, "peer", None)):
                if one is not None:
                    one.method.learn_from(self.unlabelled_each)
        return learners

    def _watch(self, epochs: int) -> Watch:
        watch = Watch(self.watched, self.watched_split, -(-epochs // MOST_REPORTS))
        if self.processes is not None:
            watch.gather = self.processes.add_up
            watch.first = self.processes.part.of(len(self.dataset.validation or self.dataset.test)).start
        return watch

    def _units(self) -> list[TrainingUnit]:
        """The units that are trained in lock-step: the learners, those of one method stacked where that is allowed."""
        learners = list(self.students.values())
        if not self.shortcuts.stack:
            return list(learners)
        return stack_seeds(learners, self.shortcuts.compiled)

    def architecture(self, role: Role) -> str:
        """The name of that network: the configured one, or the variant of it that its first weights are of."""
        config = self.config
        if start := self._start(role):
            return start.name
        return {"teacher": config.teacher, "student": config.student, "peer": config.peer or config.student}[role]

    def _start(self, role: Role) -> Start | None:
        """None for a peer: one that begins with its student's weights would learn the same as that."""
        return {"teacher": self.starts.teacher, "student": self.starts.student, "peer": None}[role]

    def _build(self, role: Role) -> nn.Module:
        """A new network; its random initial weights come from torch's global generator."""
        network = build(self.architecture(role), len(self.dataset.class_names), self.dataset.channels)
        if start := self._start(role):
            start.put_into(network)
        return network

    def _widths(self, role: Role) -> tuple[int, ...]:
        """Channels of that network's stages."""
        return model_info(self.architecture(role)).stage_channels

    def _learner(
        self, name: str, stage: str, model: nn.Module, method: Method, epochs: int, steps_per_epoch: int,
        peer: Learner | None = None,
    ) -> Learner:  # fmt: skip
        """A teacher has its own learning rate, of which the layers that are only fine-tuned get a share. A peer sees
        its student's images, so they are normalised for the student."""
        method.class_weights, method.label_smoothing = self.class_weights(), self.config.label_smoothing
        config, start, slow = self.config, self.starts.student, frozenset[str]()
        if stage == TEACHER:
            start = self.starts.teacher
            slow = start.loaded(model) if start else slow
            config = config if config.teacher_lr is None else config.model_copy(update={"lr": config.teacher_lr})
        normalise = Normalise(*self._statistics(start))
        values: tuple[Any, ...] = (name, stage, model, method, normalise, config)
        options: dict[str, Any] = {
            "epochs": epochs, "steps_per_epoch": steps_per_epoch, "device": self.device, "precision": self.precision,
            "report_every": self._report_every, "compiled": self.shortcuts.compiled, "slow": slow,
        }  # fmt: skip
        return Learner(*values, **options) if peer is None else MutualLearner(peer, *values, **options)

    def _of_all_processes(self, own: Tensor) -> Tensor:
        """Of test images that are predicted here (n,), those of all (N,)."""
        return own if self.processes is None else self.processes.rows(own, len(self.dataset.test))

    @property
    def _report_every(self) -> int:
        """Steps between rows: five rows an epoch for the sample, two thousand images apart."""
        return max(1, 2000 // self.config.batch_size)

    def _evaluate(self, test: tuple[HeldOutImages, Tensor]) -> Generator[Event, None, None]:
        """The teacher's predictions on the test split, in float32, some batches at a time; then the result.

        The students made theirs after the last step, except those that an earlier version of iekd has trained.
        """
        images, labels = test
        classes = len(self.dataset.class_names)
        teacher = None if self.teacher is None else self._all_teachers(self.teacher)
        networks = {} if teacher is None else {TEACHER: teacher}
        finished = {name: learner for name, learner in self.students.items() if name not in learner.diverged}
        networks.update({name: self.network(learner) for name, learner in finished.items()})
        known = {name: learner.predictions for name, learner in finished.items() if ENERGY in learner.predictions}
        predictions = {name: found["test"].cpu() for name, found in known.items()}
        energies = {name: found[ENERGY].cpu() for name, found in known.items()}
        for network in networks.values():
            channels_last(network.model, self.device).eval()  # one that was resumed after its last step was not
        missing = {n: Normalise(m.mean, m.std).to(self.device) for n, m in networks.items() if n not in predictions}
        yield StageStart(EVALUATION, 0, predictions=len(missing) * len(labels))
        parts: dict[str, list[Tensor]] = {name: [] for name in missing}  # (B,) each
        scores: dict[str, list[Tensor]] = {name: [] for name in missing}
        # read together: a thousand small images, and fewer of large ones, which would take gigabytes
        together = min(1000, 8 * evaluation_batch_size(self.device, images.shape[-1]))
        with contextlib.closing(split_into_batches(images, together)) as batches:
            for batch in batches if missing else ():  # reading them may take long
                self.threads.look()
                self.threads.use()
                for name, normalise in missing.items():
                    logits = predict(networks[name].model, normalise, batch, self.device)  # (B,K)
                    parts[name].append(predicted(logits).cpu())
                    scores[name].append(energy(logits).cpu())
                    yield Predicted(EVALUATION, len(batch))
        whole = self._of_all_processes
        predictions.update({name: whole(torch.cat(found)) for name, found in parts.items()})
        energies.update({name: whole(torch.cat(found)) for name, found in scores.items()})
        labels = whole(labels.cpu())

        def scored(name: str, **values: Any) -> LearnerResult:
            right, agreement = is_right(predictions[name], labels), None
            if TEACHER in predictions and name != TEACHER:
                agreement = accuracy(is_right(predictions[name], predictions[TEACHER]))
            per_class = class_accuracy(right, labels, classes)
            return LearnerResult(
                name,
                networks[name],
                accuracy(right),
                per_class,
                predictions[name],
                agreement=agreement,
                energy_threshold=float(energies[name].double().quantile(UNLIKE)),
                **values,
            )

        result = Result(scored(TEACHER) if self.teacher is not None else None)
        for method, seed in self.config.learner_names:
            learner = self.students[learner_name(method, seed)]
            if learner.name not in finished:
                result.diverged.append(learner.diverged[learner.name])
                continue
            peer = learner.peer.accuracy["test"] if isinstance(learner, MutualLearner) else None
            result.learners.append(scored(
                learner.name, method=method, seed=seed, peer_accuracy=peer,
                best_epoch=learner.best.epoch, accuracy_best=learner.best.accuracy,
            ))  # fmt: skip
        yield result
