"""The auto-encoder stage: trains the networks that turn the teacher's features into factors, before any student.

One auto-encoder for each of the teacher's stages that a method compares. They share batches and the teacher's forward
pass, not weights.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from iekd.config.run import RunConfig
from iekd.distill.targets import TeacherOutput
from iekd.engine.accelerate import autocast, channels_last, freeze
from iekd.engine.optimizer import make_optimizer, one_cycle
from iekd.engine.training_unit import Row, TrainingUnit
from iekd.losses import ReconstructionLoss
from iekd.models.catalog import factor_channels
from iekd.models.factors import AutoEncoder

AUTO_ENCODER = "auto-encoder"
RATE = 0.1  # peak learning rate (Huang et al. 2021)
WARM_UP = 0.3  # share of the steps until then


class AutoEncoders(TrainingUnit):
    """Reconstructs the teacher's last stages (Huang et al. 2021, section 3).

    A row has the mean reconstruction loss of all of them.
    """

    advice = "Check the teacher's checkpoint."

    def __init__(
        self, widths: tuple[int, ...], config: RunConfig, device: torch.device, precision: torch.dtype,
        *, steps_per_epoch: int, report_every: int,
    ) -> None:  # fmt: skip
        """widths: channels of the teacher's last len(widths) stages."""
        self.precision = precision
        self.coders = channels_last(nn.ModuleList(map(_fresh, widths)), device)
        self.criterion = ReconstructionLoss()
        steps = config.auto_encoder_epochs * steps_per_epoch
        optimizer = make_optimizer(
            list(self.coders.parameters()), RATE, config, device,
            momentum=0.9, nesterov=True, weight_decay=config.weight_decay,
        )  # fmt: skip
        rate = partial(one_cycle, RATE, max(2, steps), WARM_UP)
        super().__init__(
            (AUTO_ENCODER,), AUTO_ENCODER, device, optimizer, rate,
            epochs=config.auto_encoder_epochs, steps_per_epoch=steps_per_epoch, report_every=report_every,
        )  # fmt: skip

    def compute(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> None:
        assert teacher is not None
        stages = teacher.features.stages[-len(self.coders) :]  # (B,c,h,w) each
        with self.norms():
            with autocast(self.device, self.precision):
                rebuilt = [coder(stage)[1] for coder, stage in zip(self.coders, stages, strict=True)]  # as stages
            loss = torch.stack([self.criterion(r, stage) for r, stage in zip(rebuilt, stages, strict=True)]).sum()  # ()
            if self.processes is not None:  # the share of the images that are here
                loss = loss * (len(labels) / self.whole(self.steps)[0])
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        if self.processes is not None:
            self.processes.add_up_gradients(self.coders.parameters())
        self.optimizer.step()
        mean = loss.detach() / len(self.coders)
        self._add({"loss": mean, "reconstruction": mean})

    def networks(self) -> dict[str, nn.Module]:
        return {"coders": self.coders}

    def evaluate(self, images: Tensor, labels: Tensor) -> None:
        """Nothing: the reconstruction loss is all that is reported."""

    def end_of_split(self, kind: str) -> list[Row]:
        return []

    def divergence_message(self, name: str, loss: float) -> str:
        return f"The auto-encoder's loss became {loss} at step {self.steps}."

    def encoders(self) -> list[nn.Module]:
        """The trained encoders, frozen."""
        return [freeze(cast(AutoEncoder, coder).encoder, self.precision) for coder in self.coders]


def _fresh(width: int) -> AutoEncoder:
    """Its initial weights do not depend on which other stages are compared."""
    torch.manual_seed(0)
    return AutoEncoder(width, factor_channels(width))
