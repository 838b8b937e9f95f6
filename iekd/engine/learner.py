"""A learner: one student, one method, one optimiser and its schedule. It gives the same result alone or beside others.

The training step is `Learner.compute`: forward, loss (`distill.method.Method`), backward, optimiser.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from iekd.config.run import RunConfig
from iekd.distill.distillers import Shares
from iekd.distill.method import Method, StepOutput
from iekd.distill.targets import TeacherOutput
from iekd.engine.accelerate import autocast, channels_last, compile_or_not, warn_not_compiled, whole_float32
from iekd.engine.average import Average
from iekd.engine.draws import StepDraws
from iekd.engine.metrics import Watched
from iekd.engine.optimizer import clip, rate_of, set_value, student_optimizer, values_on_device
from iekd.engine.scoring import batch_accuracy, energy, is_right, percent, predicted
from iekd.engine.stream import HeldOutImages, split_into_batches
from iekd.engine.training_unit import Row, TrainingUnit
from iekd.engine.watched import Watch
from iekd.losses.tensors import larger_share
from iekd.models.normalise import Normalise

log = logging.getLogger(__name__)

ENERGY = "energy"  # key of the test images' energies in the predictions; see scoring.energy


def strength(schedule: str, progress: float) -> float:
    """The factor on a method's loss weights after `progress` (0..1) of the training; see RunConfig.weight_schedule."""
    if schedule == "warm-up":
        return min(1.0, 10 * progress)
    return 1 - progress if schedule == "decay" else 1.0


class Best(NamedTuple):
    """The best epoch so far: its number, the accuracy that chose it and its test accuracy (percent).

    Chosen by validation accuracy; without a validation split by test accuracy, which is then too optimistic.
    """

    epoch: int = 0
    chosen_by: float = -1.0
    accuracy: float = 0.0

    def after(self, epoch: int, accuracy: dict[str, float]) -> Best:
        chosen_by = accuracy.get("validation", accuracy["test"])
        return Best(epoch, chosen_by, accuracy["test"]) if chosen_by > self.chosen_by else self


class Learner(TrainingUnit):
    """Trains `model` with `method` for `epochs` passes of `steps_per_epoch` steps.

    `step` is one optimisation step, and every `report_every` steps a row of metrics. `evaluate` takes one batch of
    held-out images, and `end_of_split` gives the row for all of them.
    """

    def __init__(
        self, name: str, stage: str, model: nn.Module, method: Method, normalise: Normalise, config: RunConfig,
        *, epochs: int, steps_per_epoch: int, device: torch.device, precision: torch.dtype, report_every: int,
        compiled: bool = False, slow: Collection[str] = (),
    ) -> None:  # fmt: skip
        """compiled: let torch.compile fuse the forward and backward pass, if it can. slow: the names of the model's
        parameters that get a share of the learning rate, see `optimizer.student_optimizer`."""
        self.name, self.config, self.precision = name, config, precision
        self.model = channels_last(model, device)
        self.method = channels_last(method, device)
        self.normalise = normalise.to(device)
        held_back = [parameter for key, parameter in self.model.named_parameters() if key in slow]
        parameters = [*self.model.parameters(), *self.method.parameters()]
        optimizer = student_optimizer(parameters, config, device, slow=held_back)
        super().__init__(
            (name,), stage, device, optimizer, rate_of(config, epochs * steps_per_epoch),
            epochs=epochs, steps_per_epoch=steps_per_epoch, report_every=report_every,
        )  # fmt: skip
        on_device = values_on_device(config, device)
        if on_device:
            self.method.strength = torch.ones((), device=device)
        self.average = Average(self.model, config.ema, device, on_device) if config.ema else None
        # the weights of the best epoch so far, for what may stop early
        self.best_network = copy.deepcopy(self.evaluated) if config.patience else None
        repeats = config.eager or config.threads != "auto"
        self.draws = StepDraws(f"{stage} {name}", repeats and device.type == "cpu")
        self.output = compile_or_not(self._output) if compiled else self._output
        self.tried = False  # whether a step has succeeded
        # of the split that is being evaluated:
        self.scores: list[Tensor] = []  # per batch (2,): number of correct predictions, summed cross-entropy
        self.images_seen = 0
        self.batch_predictions: list[Tensor] = []  # per batch (B,) int64; after the last step only
        self.energies: list[Tensor] = []  # per batch (B,) float32; with the predictions
        self.accuracy: dict[str, float] = {}  # the newest, per kind
        self.best = Best()
        self.watch = Watch()

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated after each epoch: the network, or the average of its weights where the run asks for it."""
        return self.model if self.average is None else self.average.network

    @property
    def chosen(self) -> nn.Module:
        """What is saved, and whose predictions are the result: `evaluated`, or as it was in the best epoch where
        networks may stop early."""
        return self.best_network if self.best_network is not None and self.best.epoch else self.evaluated

    @property
    def test_accuracy(self) -> float | None:
        """Of `chosen`, in percent; None before the first epoch is over."""
        return self.best.accuracy if self.chosen is self.best_network else self.accuracy.get("test")

    def prepare(self) -> None:
        super().prepare()
        self.prepare_average()
        schedule = self.config.weight_schedule
        if schedule != "constant":
            set_value(vars(self.method), "strength", strength(schedule, self.steps / self.total_steps))

    def prepare_average(self) -> None:
        if self.average is not None:
            self.average.prepare(self.steps)

    def compute(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> None:
        """The step. images (B,C,H,W) uint8, labels (B,); teacher: its output for the same images."""
        if self.idle:  # a recorded step is still replayed, without effect on the others
            return
        images, labels, teacher = self.method.seen(images, labels, teacher)
        if self.processes is not None:
            self.take_shares(self.processes.shares(self.method, labels, self.whole(self.steps)))
        with self.norms():
            output = self.update(images, labels, teacher)
        logits = output.logits.detach()  # (B,K)
        correct = batch_accuracy(logits, larger_share(labels[: len(logits)]))  # () in percent
        if self.method.shares is not None:
            correct = correct * self.method.shares.labelled
        self._add({"loss": output.loss.detach(), **output.terms, "accuracy": correct})

    def take_shares(self, shares: Shares) -> None:
        """Before a step in which only a part of the batch is here."""
        self.method.share(shares)

    def update(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> StepOutput:
        """Forward, loss, backward, optimiser."""
        output = self.forward(images, labels, teacher)  # loss (), logits (B,K)
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
        with self.drawn(), autocast(self.device, self.precision):
            return self.output(images, labels, teacher)

    def drawn(self, which: int = 0) -> contextlib.AbstractContextManager[None]:
        """Around one of the forward passes of a step."""
        rank = self.processes.rank if self.processes else 0
        return self.draws.of_step(self.steps, 2 * rank + which)

    def _output(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> StepOutput:
        pixels = self.normalise(images)  # (B,C,H,W) float32
        student = self.model(pixels)  # Features: logits (B,K), stages (B,c,h,w), pooled (B,c)
        output: StepOutput = self.method(student, teacher, labels)
        return output

    def backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.processes is not None:
            self.processes.add_up_gradients(self.trained())

    def trained(self) -> list[Tensor]:
        """The parameters that the optimiser changes."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def optimise(self) -> None:
        if self.config.clip_norm:
            clip(self.trained(), self.config.clip_norm)
        self.optimizer.step()
        self.follow()

    def follow(self) -> None:
        """After the optimiser's step."""
        if self.average is not None:
            self.average.follow(self.model)

    def networks(self) -> dict[str, nn.Module]:
        found = {"model": self.model, "method": self.method}
        if self.average is not None:
            found["average"] = self.average.network
        return found if self.best_network is None else {**found, "kept": self.best_network}

    def numbers(self) -> dict[str, Any]:
        return {**super().numbers(), "accuracy": self.accuracy, "best": list(self.best)}

    def restore_numbers(self, numbers: Mapping[str, Any]) -> None:
        super().restore_numbers(numbers)
        self.accuracy, self.best = dict(numbers["accuracy"]), Best(*numbers["best"])

    def evaluate(self, images: Tensor, labels: Tensor) -> None:
        """Score one batch of held-out images (B,C,H,W) uint8, labels (B,)."""
        if self.idle:
            return
        # the last row is the result, which is in float32 whatever the training's precision is
        precision = torch.float32 if self.steps == self.total_steps else self.precision
        logits = predict(self.evaluated, self.normalise, images, self.device, precision)  # (B,K)
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")  # ()
        predictions = predicted(logits)  # (B,)
        self.scores.append(torch.stack([is_right(predictions, labels).sum().float(), loss]))
        if self.steps == self.total_steps and self.best_network is None:
            self.batch_predictions.append(predictions)
            self.energies.append(energy(logits))
        self.watch.see(self.images_seen, logits)
        self.images_seen += len(labels)

    def end_of_split(self, kind: str) -> list[Row]:
        """A row with accuracy (percent) and cross-entropy; after it what it predicts for watched images.

        The predictions on the test split after the last step are stored: they are the result.

        Args:
            kind: "validation" or "test"; where an epoch has both, validation comes first, and chooses the best epoch.
        """
        if self.idle:
            return []
        correct, loss_sum = torch.stack(self.scores).cpu().double().sum(0).tolist()
        if self.processes is not None:
            correct, loss_sum, seen = self.processes.totals(correct, loss_sum, self.images_seen)
            self.images_seen = round(seen)
        accuracy, loss = percent(correct, self.images_seen), loss_sum / self.images_seen
        if self.batch_predictions and kind == "test":
            found = {kind: torch.cat(self.batch_predictions), ENERGY: torch.cat(self.energies)}
            if self.processes is not None:
                found = {key: self.processes.rows(values, self.images_seen) for key, values in found.items()}
            self.predictions = found
        self.scores, self.images_seen, self.batch_predictions, self.energies = [], 0, [], []
        if not math.isfinite(loss):
            message = f"The predictions of '{self.name}' became infinite or NaN by step {self.steps}."
            return [self._mark_diverged(self.name, message)]
        self.accuracy[kind] = accuracy
        row = self._row(self.name, kind, {"accuracy": accuracy, "loss": loss})
        epoch = self.steps // self.steps_per_epoch
        if kind == "test":
            before, self.best = self.best, self.best.after(epoch, self.accuracy)
            self._stop_or_go_on(epoch, better=self.best is not before)
        watched = self.watch.take(kind, epoch, self.steps == self.total_steps)
        return [row] if watched is None else [row, Watched(self.stage, self.name, row.epoch, self.steps, *watched)]

    def _stop_or_go_on(self, epoch: int, better: bool) -> None:
        """After an epoch: keep the weights of one that was better, and stop where none was for too long."""
        if self.best_network is None:
            return
        if better:
            self.best_network.load_state_dict(self.evaluated.state_dict())
        elif epoch - self.best.epoch >= self.config.patience:
            self.stopped.add(self.name)
            log.info(
                "%s stops after epoch %d: its validation accuracy was best after epoch %d. Those weights are kept.",
                self.name, epoch, self.best.epoch,
            )  # fmt: skip

    @property
    def healthy(self) -> bool:
        """False once it has diverged, or a weight is NaN or infinite."""
        return self.name not in self.diverged and all(bool(torch.isfinite(p).all()) for p in self.chosen.parameters())


def evaluation_batch_size(device: torch.device, side: int) -> int:
    """Images of side x side per forward pass in evaluation: fewer where they are larger than 32 x 32.

    125 of those fit a CPU's cache, which is 1.5 times as fast.
    """
    usual, least = (125, 8) if device.type == "cpu" else (1000, 16)
    return max(least, min(usual, usual * 32 * 32 // side**2))


@torch.no_grad()
def predict(
    model: nn.Module, normalise: Normalise, images: HeldOutImages, device: torch.device,
    precision: torch.dtype = torch.float32, batch_size: int | None = None,
) -> Tensor:  # fmt: skip
    """Logits (N,K) float32 of images (N,C,H,W) uint8, in evaluation mode."""
    model.eval()
    logits = []
    split = split_into_batches(images, batch_size or evaluation_batch_size(device, images.shape[-1]))
    with contextlib.closing(split) as batches, whole_float32(device, precision):
        for batch in batches:  # (B,C,H,W)
            with autocast(device, precision):
                logits.append(model(normalise(batch)).logits.float())  # (B,K)
    return torch.cat(logits)
