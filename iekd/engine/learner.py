"""A learner: one student, one method, one optimiser and its schedule. It trains alike alone or beside others."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from iekd.config.run import RunConfig
from iekd.distill.method import Method, StepOutput
from iekd.distill.targets import TeacherOutput
from iekd.engine.accelerate import autocast, channels_last, compile_or_not, warn_not_compiled, whole_float32
from iekd.engine.optimizer import SGD, rate_of
from iekd.engine.scoring import batch_accuracy, is_right, percent, predicted
from iekd.engine.stream import Images, parts
from iekd.engine.trainee import Row, Trainee, keeps_numbers, make_optimizer, set_value
from iekd.models.normalise import Normalise


def strength(schedule: str, progress: float) -> float:
    """What a method's weights are multiplied by after `progress` (0..1) of the training; see RunConfig."""
    if schedule == "warm-up":
        return min(1.0, 10 * progress)
    return 1 - progress if schedule == "decay" else 1.0


class Best(NamedTuple):
    """The best epoch so far: its number, the accuracy that chose it and its test accuracy (percent).

    Chosen by validation accuracy; by test accuracy, which flatters, only where there is no validation split.
    """

    epoch: int = 0
    chosen_by: float = -1.0
    accuracy: float = 0.0

    def after(self, epoch: int, accuracy: dict[str, float]) -> Best:
        judge = accuracy.get("validation", accuracy["test"])
        return Best(epoch, judge, accuracy["test"]) if judge > self.chosen_by else self


class Learner(Trainee):
    """Trains `model` with `method` for `epochs` passes of `steps_per_epoch` steps.

    `step` is one optimisation step and now and then a row of metrics; `end_of_split` is a row on the held-out images
    that `evaluate` was given.
    """

    def __init__(
        self, name: str, stage: str, model: nn.Module, method: Method, normalise: Normalise, config: RunConfig,
        *, epochs: int, steps_per_epoch: int, device: torch.device, precision: torch.dtype, report_every: int,
        compiled: bool = False,
    ) -> None:  # fmt: skip
        """compiled: let torch.compile fuse the forward and backward pass, where it can."""
        self.name, self.config, self.precision = name, config, precision
        self.model = channels_last(model, device)
        self.method = channels_last(method, device)
        self.normalise = normalise.to(device)
        optimizer = student_optimizer([*self.model.parameters(), *self.method.parameters()], config, device)
        super().__init__(
            (name,), stage, device, optimizer, rate_of(config, epochs * steps_per_epoch),
            epochs=epochs, steps_per_epoch=steps_per_epoch, report_every=report_every,
        )  # fmt: skip
        if keeps_numbers(config, device):
            self.method.strength = torch.ones((), device=device)
        self.output = compile_or_not(self._output) if compiled else self._output
        self.tried = False  # whether a step has worked
        self.scores: list[Tensor] = []  # for each part of the held-out images, (2,): right predictions, summed loss
        self.images = 0  # how many these were
        self.said: list[Tensor] = []  # after the last step, its class for each of them
        self.accuracy: dict[str, float] = {}  # the newest, per kind
        self.best = Best()

    def prepare(self) -> None:
        super().prepare()
        schedule = self.config.weight_schedule
        if schedule != "constant":
            set_value(vars(self.method), "strength", strength(schedule, self.steps / self.total_steps))

    def compute(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> None:
        if self.name in self.diverged:  # a recorded step does not ask: it goes on in vain
            return
        output = self.update(images, labels, teacher)
        correct = batch_accuracy(output.logits.detach(), labels)
        self._add({"loss": output.loss.detach(), **output.terms, "accuracy": correct})

    def update(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> StepOutput:
        """The step itself: forward, loss, backward, optimiser."""
        output = self.forward(images, labels, teacher)
        try:
            self.backward(output.loss)
        except RuntimeError as error:  # the backward pass is compiled when it is first called
            if self.tried or self.output == self._output:
                raise
            warn_not_compiled(error)
            self.output = self._output
            output = self.forward(images, labels, teacher)
            self.backward(output.loss)
        self.tried = True
        self.optimise()
        return output

    def forward(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> StepOutput:
        """The student's logits and the method's loss."""
        with autocast(self.device, self.precision):
            return self.output(images, labels, teacher)

    def _output(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> StepOutput:
        output: StepOutput = self.method(self.model(self.normalise(images)), teacher, labels)
        return output

    def backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]

    def optimise(self) -> None:
        self.optimizer.step()

    def networks(self) -> dict[str, nn.Module]:
        return {"model": self.model, "method": self.method}

    def numbers(self) -> dict[str, Any]:
        return {**super().numbers(), "accuracy": self.accuracy, "best": list(self.best)}

    def restore_numbers(self, numbers: Mapping[str, Any]) -> None:
        super().restore_numbers(numbers)
        self.accuracy, self.best = dict(numbers["accuracy"]), Best(*numbers["best"])

    def evaluate(self, images: Tensor, labels: Tensor) -> None:
        if self.name in self.diverged:
            return
        # the last row is the result, which is in float32 whatever the training's precision is
        precision = torch.float32 if self.steps == self.total_steps else self.precision
        logits = predict(self.model, self.normalise, images, self.device, precision)
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        said = predicted(logits)
        self.scores.append(torch.stack([is_right(said, labels).sum().float(), loss]))
        if self.steps == self.total_steps:
            self.said.append(said)
        self.images += len(labels)

    def end_of_split(self, kind: str) -> list[Row]:
        """A row with accuracy (percent) and cross-entropy.

        kind: "validation" or "test"; where an epoch has both, validation comes first, and chooses the best epoch.
        Test answers after the last step are kept: they are the result.
        """
        if self.name in self.diverged:
            return []
        correct, loss_sum = torch.stack(self.scores).cpu().double().sum(0).tolist()
        accuracy, loss = percent(correct, self.images), loss_sum / self.images
        if self.said and kind == "test":
            self.answers[kind] = torch.cat(self.said)
        self.scores, self.images, self.said = [], 0, []
        if not math.isfinite(loss):
            trouble = f"The answers of '{self.name}' became infinite or NaN by step {self.steps}."
            return [self._give_up(self.name, trouble)]
        self.accuracy[kind] = accuracy
        if kind == "test":
            self.best = self.best.after(self.steps // self.steps_per_epoch, self.accuracy)
        return [self._row(self.name, kind, {"accuracy": accuracy, "loss": loss})]

    @property
    def healthy(self) -> bool:
        """False once it has diverged, or a weight is no number."""
        return self.name not in self.diverged and all(bool(torch.isfinite(p).all()) for p in self.model.parameters())


def student_optimizer(parameters: Sequence[Tensor], config: RunConfig, device: torch.device) -> SGD:
    return make_optimizer(
        parameters, config.lr, config, device, momentum=config.momentum, weight_decay=config.weight_decay,
        nesterov=config.nesterov and config.momentum > 0,
    )  # fmt: skip


def part_size(device: torch.device, side: int) -> int:
    """Images of side x side that a network answers at a time: fewer where they are larger than 32 x 32.

    125 of those stay in a CPU's cache, which is 1.5 times as fast.
    """
    usual, least = (125, 8) if device.type == "cpu" else (1000, 16)
    return max(least, min(usual, usual * 32 * 32 // side**2))


@torch.no_grad()
def predict(
    model: nn.Module, normalise: Normalise, images: Images, device: torch.device,
    precision: torch.dtype = torch.float32, batch_size: int | None = None,
) -> Tensor:  # fmt: skip
    """Logits (N,K) float32 of images (N,C,H,W) uint8, in evaluation mode."""
    model.eval()
    logits = []
    pieces = contextlib.closing(parts(images, batch_size or part_size(device, images.shape[-1])))
    with pieces as batches, whole_float32(device, precision):
        for batch in batches:
            with autocast(device, precision):
                logits.append(model(normalise(batch)).logits.float())
    return torch.cat(logits)
