"""A learner: one student, one method, one optimiser and its schedule. It trains alike alone or beside others."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from iekd.config import RunConfig
from iekd.engine.accelerate import autocast, channels_last
from iekd.engine.metrics import Metrics, TrainingError
from iekd.methods import Method, TeacherOutput


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


def make_schedule(name: str, optimizer: torch.optim.Optimizer, lr: float, steps: int) -> LRScheduler:
    """The learning rate of every step; see RunConfig.schedule."""
    if name == "one-cycle":
        if steps < 4:  # too short for a cycle
            return ConstantLR(optimizer, factor=1.0)
        warm_up = max(0.25, 2 / steps)  # two steps at least, which torch's formula needs
        return OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=warm_up, cycle_momentum=False)
    if name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return MultiStepLR(optimizer, milestones=[max(1, steps // 2), max(2, steps * 3 // 4)], gamma=0.1)


class Learner:
    """Trains `model` with `method` for `epochs` passes of `steps_per_epoch` steps.

    `step` is one optimisation step and now and then a row of metrics; `evaluate` is one row on the test images.
    """

    def __init__(
        self, name: str, stage: str, model: nn.Module, method: Method, normalise: Normalise, config: RunConfig,
        *, epochs: int, steps_per_epoch: int, device: torch.device, precision: torch.dtype, report_every: int,
    ) -> None:  # fmt: skip
        self.name, self.stage, self.device, self.precision = name, stage, device, precision
        self.steps_per_epoch, self.report_every = steps_per_epoch, report_every
        self.model = channels_last(model, device)
        self.method = channels_last(method, device)
        self.normalise = normalise.to(device)
        self.optimizer = torch.optim.SGD(
            [*self.model.parameters(), *self.method.parameters()],
            lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.momentum > 0,
        )  # fmt: skip
        self.schedule = make_schedule(config.schedule, self.optimizer, config.lr, epochs * steps_per_epoch)
        self.steps = 0
        self.last_accuracy: float | None = None
        self.best_accuracy = 0.0
        self._sums: dict[str, Tensor] = {}
        self._summed = 0

    def step(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> Iterator[Metrics]:
        """One step on images (B,C,H,W) uint8 and labels (B,); yields a row every `report_every` steps."""
        if self.steps % self.steps_per_epoch == 0:
            self.model.train()
            self.method.train()
        with autocast(self.device, self.precision):
            student = self.model(self.normalise(images))
            output = self.method(student, teacher, labels)
        self.optimizer.zero_grad()
        output.loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.steps += 1
        correct = (output.logits.detach().argmax(1) == labels).float().mean() * 100
        self._add({"loss": output.loss.detach(), **output.terms, "accuracy": correct})
        if self.steps % self.report_every == 0 or self.steps % self.steps_per_epoch == 0:
            yield self._row("train", {**self._means(), "lr": float(self.schedule.get_last_lr()[0])})

    def evaluate(self, images: Tensor, labels: Tensor) -> Metrics:
        """A row with the test accuracy (percent) and cross-entropy on images (N,C,H,W) uint8, labels (N,)."""
        logits = predict(self.model, self.normalise, images, self.device, self.precision)
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        if not math.isfinite(loss):
            raise TrainingError(
                f"The weights of '{self.name}' are no numbers any more after step {self.steps}. "
                "Lower the learning rate or the weights of the method, then start again."
            )
        accuracy = (logits.argmax(1) == labels).double().mean().item() * 100
        self.last_accuracy, self.best_accuracy = accuracy, max(self.best_accuracy, accuracy)
        return self._row("test", {"accuracy": accuracy, "loss": loss})

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
    model: nn.Module, normalise: Normalise, images: Tensor, device: torch.device,
    precision: torch.dtype = torch.float32, batch_size: int | None = None,
) -> Tensor:  # fmt: skip
    """Logits (N,K) float32 of images (N,C,H,W) uint8, in evaluation mode."""
    model.eval()
    batch_size = batch_size or (125 if device.type == "cpu" else 1000)  # 125 stay in a CPU's cache: 1.5 times as fast
    parts = []
    for batch in torch.split(images, batch_size):
        with autocast(device, precision):
            parts.append(model(normalise(batch)).logits.float())
    return torch.cat(parts)
