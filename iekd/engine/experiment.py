"""The stages of a run: teacher -> auto-encoder -> students -> evaluation, as one generator.

Yields a StageStart at each stage, Metrics in between and one Result at the end. Knows data and networks, but no files.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Union

import torch
from torch import Tensor, nn

from iekd.config import RunConfig, learner_name
from iekd.data.dataset import Dataset
from iekd.engine.accelerate import (
    autocast,
    channels_last,
    choose_device,
    choose_precision,
    cores,
    freeze,
    side_by_side,
)
from iekd.engine.batches import Batches, to_device
from iekd.engine.learner import Learner, Normalise, predict
from iekd.engine.loop import train
from iekd.engine.metrics import Metrics, TrainingError
from iekd.losses import ReconstructionLoss
from iekd.methods import Baseline, Method, MethodOptions, TeacherOutput, build_method
from iekd.models.catalog import models
from iekd.models.factors import AutoEncoder
from iekd.models.registry import build

TEACHER, AUTO_ENCODER, STUDENTS, EVALUATION = "teacher", "auto-encoder", "students", "evaluation"


@dataclass(frozen=True)
class StageStart:
    """A stage begins; `steps` optimisation steps (of each learner) are ahead, 0 where there is nothing to train."""

    stage: str
    steps: int


@dataclass(frozen=True)
class Network:
    """A classifier and the normalisation that it expects."""

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class LearnerResult:
    """Accuracies in percent on the test split; `class_accuracy` per class in order, None for one without images."""

    name: str
    network: Network
    accuracy_last: float
    accuracy_best: float
    class_accuracy: list[float | None]
    agreement: float | None = None
    method: str = ""
    seed: int = 0


@dataclass
class Result:
    """What a finished run has: the teacher (None without one) and the students."""

    teacher: LearnerResult | None
    learners: list[LearnerResult] = field(default_factory=list)


@dataclass
class Judged:
    """So much of the evaluation is done: `step` of the stage's steps. It has nothing to write down yet."""

    step: int
    kind: str = "judged"


Event = Union[StageStart, Metrics, Judged, Result]


class FrozenTeacher:
    """images (B,C,H,W) uint8 -> TeacherOutput, without gradients; the factor only once an auto-encoder is set."""

    def __init__(self, network: Network, device: torch.device, precision: torch.dtype) -> None:
        self.device, self.precision = device, precision
        self.model = freeze(network.model).to(device)
        self.normalise = Normalise(network.mean, network.std).to(device)
        self.encoder: nn.Module | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> TeacherOutput:
        with autocast(self.device, self.precision):
            features = self.model(self.normalise(images))
            return TeacherOutput(features, self.encoder(features.stages[-1]) if self.encoder else None)


class Experiment:
    """One run's training. Iterate `events()`; `students` can be read at any time, to save what has been learned."""

    def __init__(self, config: RunConfig, dataset: Dataset, teacher: Network | None = None) -> None:
        """teacher: a trained network for config.teacher, or None to train one if the run needs it."""
        self.config, self.dataset, self.teacher = config, dataset, teacher
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.statistics = dataset.statistics
        self.students: dict[str, Learner] = {}
        self.teacher_accuracy: float | None = None  # of a teacher that this run trained

    def events(self) -> Generator[Event, None, None]:
        config = self.config
        train_images, train_labels = to_device(self.dataset.train, self.device)
        test = to_device(self.dataset.test, self.device)
        batches = Batches(train_images, train_labels, config.batch_size, config.data_seed)
        frozen = None
        if config.needs_teacher:
            if self.teacher is None:
                self.teacher = yield from self._train_teacher(batches, test)
            frozen = FrozenTeacher(self.teacher, self.device, self.precision)
        if config.needs_auto_encoder:
            assert frozen is not None
            frozen.encoder = yield from self._train_auto_encoder(batches, frozen)
        yield StageStart(STUDENTS, config.epochs * len(batches))
        self.students = {learner.name: learner for learner in self._make_students(len(batches))}
        taught = any(learner.method.needs_teacher for learner in self.students.values())
        yield from train(list(self.students.values()), batches, frozen if taught else None, test, config.epochs)
        yield from self._evaluate(test)

    def network(self, learner: Learner) -> Network:
        """The learner's student, ready to be saved."""
        return Network(learner.model, *self.statistics)

    def _train_teacher(self, batches: Batches, test: tuple[Tensor, Tensor]) -> Generator[Event, None, Network]:
        epochs = self.config.teacher_epochs
        yield StageStart(TEACHER, epochs * len(batches))
        torch.manual_seed(0)
        learner = self._learner(TEACHER, TEACHER, self.config.teacher, Baseline(), epochs, len(batches))
        yield from train([learner], batches, None, test, epochs)
        self.teacher_accuracy = learner.last_accuracy
        return self.network(learner)

    def _train_auto_encoder(self, batches: Batches, teacher: FrozenTeacher) -> Generator[Event, None, nn.Module]:
        """Reconstruct the teacher's last-stage feature; return the encoder, frozen (Huang et al. 2021, section 3)."""
        epochs = self.config.auto_encoder_epochs
        steps = epochs * len(batches)
        yield StageStart(AUTO_ENCODER, steps)
        torch.manual_seed(0)
        channels = models()[self.config.teacher].feature_channels
        auto_encoder = channels_last(AutoEncoder(channels, channels // 2), self.device)
        criterion = ReconstructionLoss()
        optimizer = torch.optim.SGD(
            auto_encoder.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=max(2, steps), cycle_momentum=False)
        done, losses = 0, []

        def learn(feature: Tensor) -> Iterator[Metrics]:
            nonlocal done, losses
            with autocast(self.device, self.precision):
                _, reconstruction = auto_encoder(feature)
            loss = criterion(reconstruction, feature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            done += 1
            if done % self._report_every == 0 or done % len(batches) == 0:
                mean = torch.stack(losses).mean().item()
                losses = []
                if not math.isfinite(mean):
                    raise TrainingError("The auto-encoder's loss became NaN. Check the teacher's checkpoint.")
                values = {"loss": mean, "reconstruction": mean}
                yield Metrics(AUTO_ENCODER, AUTO_ENCODER, "train", done / len(batches), done, values)

        features = (teacher(images).features.stages[-1] for e in range(epochs) for images, _ in batches.epoch(e))
        if self.device.type == "cpu" and cores() > 1:  # the teacher answers the next batch meanwhile
            yield from side_by_side(features, [learn])
        else:
            for feature in features:  # (B,c,h,w)
                yield from learn(feature)
        return freeze(auto_encoder.encoder)

    def _make_students(self, steps_per_epoch: int) -> list[Learner]:
        config = self.config
        options = MethodOptions(
            config.inheritance_weight, config.exploration_weight, config.factor_weight,
            config.temperature, config.kd_weight,
        )  # fmt: skip
        channels = models()[config.student].feature_channels
        factor_channels = models()[config.teacher].feature_channels // 2 if config.needs_teacher else 0
        learners = []
        for seed in config.seeds:
            torch.manual_seed(seed)
            student = build(config.student, len(self.dataset.class_names), self.dataset.channels)
            for name in config.methods:
                torch.manual_seed(seed)  # a method's own weights do not depend on which others are trained
                method = build_method(name, options, channels, factor_channels)
                learner = self._learner(
                    learner_name(name, seed), STUDENTS, copy.deepcopy(student), method, config.epochs, steps_per_epoch
                )
                learners.append(learner)
        return learners

    def _learner(
        self, name: str, stage: str, model: nn.Module | str, method: Method, epochs: int, steps_per_epoch: int
    ) -> Learner:
        if isinstance(model, str):
            model = build(model, len(self.dataset.class_names), self.dataset.channels)
        return Learner(
            name, stage, model, method, Normalise(*self.statistics), self.config,
            epochs=epochs, steps_per_epoch=steps_per_epoch, device=self.device, precision=self.precision,
            report_every=self._report_every,
        )  # fmt: skip

    @property
    def _report_every(self) -> int:
        """Steps between rows: five rows an epoch for the sample, two thousand images apart."""
        return max(1, 2000 // self.config.batch_size)

    def _evaluate(self, test: tuple[Tensor, Tensor]) -> Generator[Event, None, None]:
        """Everything once more in float32 on the test split, a thousand images at a time; the result comes last."""
        images, labels = test
        classes, parts = len(self.dataset.class_names), torch.split(images, 1000)
        networks = {TEACHER: self.teacher} if self.teacher is not None else {}
        networks.update({learner.name: self.network(learner) for learner in self.students.values()})
        yield StageStart(EVALUATION, len(networks) * len(parts))
        answers: dict[str, Tensor] = {}
        for done, (name, network) in enumerate(networks.items()):
            normalise = Normalise(network.mean, network.std).to(self.device)
            model, said = network.model.to(self.device), []
            for i, part in enumerate(parts, 1):
                said.append(predict(model, normalise, part, self.device).argmax(1))
                yield Judged(done * len(parts) + i)
            answers[name] = torch.cat(said)

        def judged(name: str, best: float = 0.0, method: str = "", seed: int = 0) -> LearnerResult:
            right = (answers[name] == labels).double()
            accuracy = right.mean().item() * 100
            per_class = [
                right[labels == k].mean().item() * 100 if (labels == k).any() else None for k in range(classes)
            ]
            agreement = None
            if TEACHER in answers and name != TEACHER:
                agreement = (answers[name] == answers[TEACHER]).double().mean().item() * 100
            best = max(accuracy, best)
            return LearnerResult(name, networks[name], accuracy, best, per_class, agreement, method, seed)

        result = Result(judged(TEACHER) if self.teacher is not None else None)
        for (method, seed), learner in zip(self.config.learner_names, self.students.values(), strict=True):
            result.learners.append(judged(learner.name, learner.best_accuracy, method, seed))
        yield result
