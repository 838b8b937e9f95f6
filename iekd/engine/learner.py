"""A learner: one student, one method, one optimiser and its schedule. It trains alike alone or beside others."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from iekd.comparisons import TeacherOutput
from iekd.config import RunConfig
from iekd.engine.accelerate import autocast, channels_last
from iekd.engine.metrics import Metrics, TrainingError
from iekd.engine.stream import Images, parts
from iekd.methods import Method, StepOutput


class Normalise(nn.Module):
    """images (B,C,H,W) uint8 -> float32 with the given per-channel mean and standard deviation (0..1 pixel values)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        scale = 1 / (255 * torch.tensor(std))
        self.register_buffer("scale", scale.view(-1, 1, 1))
        self.register_buffer("shift", (-torch.tensor(mean) / torch.tensor(std)).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return pixels * self.scale + self.shift


def make_schedule(config: RunConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The learning rate of every step; see RunConfig.schedule."""
    if config.schedule == "one-cycle":
        if steps < 4:  # too short for a cycle
            return ConstantLR(optimizer, factor=1.0)
        warm_up = max(0.25, 2 / steps)  # two steps at least, which torch's formula needs
        return OneCycleLR(optimizer, max_lr=config.lr, total_steps=steps, pct_start=warm_up, cycle_momentum=False)
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    milestones = [max(i, int(steps * share)) for i, share in enumerate(config.milestones, 1)]
    return MultiStepLR(optimizer, milestones=milestones, gamma=0.1)


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


class Learner:
    """Trains `model` with `method` for `epochs` passes of `steps_per_epoch` steps.

    `step` is one optimisation step and now and then a row of metrics; `evaluate` is one row on held-out images.
    """

    def __init__(
        self, name: str, stage: str, model: nn.Module, method: Method, normalise: Normalise, config: RunConfig,
        *, epochs: int, steps_per_epoch: int, device: torch.device, precision: torch.dtype, report_every: int,
    ) -> None:  # fmt: skip
        self.name, self.stage, self.device, self.precision = name, stage, device, precision
        self.steps_per_epoch, self.report_every, self.total_steps = (
            steps_per_epoch,
            report_every,
            epochs * steps_per_epoch,
        )
        self.weight_schedule = config.weight_schedule
        self.model = channels_last(model, device)
        self.method = channels_last(method, device)
        self.normalise = normalise.to(device)
        self.optimizer = torch.optim.SGD(
            [*self.model.parameters(), *self.method.parameters()],
            lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
            nesterov=config.nesterov and config.momentum > 0,
        )  # fmt: skip
        self.schedule = make_schedule(config, self.optimizer, self.total_steps)
        self.steps = 0
        self.accuracy: dict[str, float] = {}  # the newest, per kind
        self.best = Best()
        self._sums: dict[str, Tensor] = {}
        self._summed = 0

    def step(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> Iterator[Metrics]:
        """One step on images (B,C,H,W) uint8 and labels (B,); yields a row every `report_every` steps."""
        if self.steps % self.steps_per_epoch == 0:
            self.model.train()
            self.method.train()
        self.method.strength = strength(self.weight_schedule, self.steps / self.total_steps)
        output = self.update(images, labels, teacher)
        self.steps += 1
        correct = (output.logits.detach().argmax(1) == labels).float().mean() * 100
        self._add({"loss": output.loss.detach(), **output.terms, "accuracy": correct})
        if self.steps % self.report_every == 0 or self.steps % self.steps_per_epoch == 0:
            yield self._row("train", {**self._means(), "lr": float(self.schedule.get_last_lr()[0])})

    def update(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> StepOutput:
        """The step itself: forward, loss, backward, optimiser."""
        output = self.forward(images, labels, teacher)
        self.backward(output.loss)
        self.optimise()
        return output

    def forward(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> StepOutput:
        """The student's answer and the method's loss."""
        with autocast(self.device, self.precision):
            output: StepOutput = self.method(self.model(self.normalise(images)), teacher, labels)
        return output

    def backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]

    def optimise(self) -> None:
        self.optimizer.step()
        self.schedule.step()

    def evaluate(self, kind: str, images: Images, labels: Tensor) -> Metrics:
        """A row with accuracy (percent) and cross-entropy on images (N,C,H,W) uint8, labels (N,).

        kind: "validation" or "test"; where an epoch has both, validation comes first, and chooses the best epoch.
        """
        logits = predict(self.model, self.normalise, images, self.device, self.precision)
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        if not math.isfinite(loss):
            raise TrainingError(
                f"The weights of '{self.name}' are no numbers any more after step {self.steps}. "
                "Lower the learning rate or the weights of the method, then start again."
            )
        accuracy = (logits.argmax(1) == labels).double().mean().item() * 100
        self.accuracy[kind] = accuracy
        if kind == "test":
            self.best = self.best.after(self.steps // self.steps_per_epoch, self.accuracy)
        return self._row(kind, {"accuracy": accuracy, "loss": loss})

    @property
    def healthy(self) -> bool:
        """False once a weight is no number."""
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())

    def _add(self, values: dict[str, Tensor]) -> None:
        for key, value in values.items():
            self._sums[key] = self._sums[key] + value if key in self._sums else value
        self._summed += 1

    def _means(self) -> dict[str, float]:
        """Means since the last call: the one place in training that waits for the device."""
        values = torch.stack(list(self._sums.values())).double().cpu() / self._summed
        means = dict(zip(self._sums, values.tolist(), strict=True))
        self._sums, self._summed = {}, 0
        if not all(map(torch.isfinite, values)):
            raise TrainingError(
                f"The loss of '{self.name}' became {means['loss']} at step {self.steps}. "
                "Lower the learning rate or the weights of the method, then start again."
            )
        return means

    def _row(self, kind: str, values: dict[str, float]) -> Metrics:
        return Metrics(self.stage, self.name, kind, self.steps / self.steps_per_epoch, self.steps, values)


@torch.no_grad()
def predict(
    model: nn.Module, normalise: Normalise, images: Images, device: torch.device,
    precision: torch.dtype = torch.float32, batch_size: int | None = None,
) -> Tensor:  # fmt: skip
    """Logits (N,K) float32 of images (N,C,H,W) uint8, in evaluation mode."""
    model.eval()
    batch_size = batch_size or (125 if device.type == "cpu" else 1000)  # 125 stay in a CPU's cache: 1.5 times as fast
    logits = []
    with contextlib.closing(parts(images, batch_size)) as batches:
        for batch in batches:
            with autocast(device, precision):
                logits.append(model(normalise(batch)).logits.float())
    return torch.cat(logits)
