"""The auto-encoder stage: what turns the teacher's features into factors, trained before any student.

One auto-encoder per stage of the teacher that is compared; they share batches and the teacher's forward pass, not
weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from iekd.comparisons import TeacherOutput
from iekd.config import RunConfig
from iekd.engine.accelerate import autocast, channels_last, cores, freeze, side_by_side
from iekd.engine.batches import Batches
from iekd.engine.metrics import Metrics, TrainingError
from iekd.losses import ReconstructionLoss
from iekd.models.factors import AutoEncoder, factor_channels

AUTO_ENCODER = "auto-encoder"


def train_auto_encoders(
    widths: tuple[int, ...], teacher: Callable[[Tensor], TeacherOutput], batches: Batches, config: RunConfig,
    device: torch.device, precision: torch.dtype, report_every: int,
) -> Generator[Metrics, None, list[nn.Module]]:  # fmt: skip
    """Reconstruct the teacher's last len(widths) stages; return their encoders, frozen (Huang et al. 2021, section 3).

    widths: channels of those stages. One row has the mean reconstruction loss of all of them.
    """
    coders = channels_last(nn.ModuleList(map(_fresh, widths)), device)
    criterion = ReconstructionLoss()
    optimizer = torch.optim.SGD(
        coders.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )
    steps = config.auto_encoder_epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=max(2, steps), cycle_momentum=False)
    done, losses = 0, []

    def learn(stages: tuple[Tensor, ...]) -> Iterator[Metrics]:
        nonlocal done, losses
        with autocast(device, precision):
            rebuilt = [coder(stage)[1] for coder, stage in zip(coders, stages, strict=True)]
        loss = torch.stack([criterion(r, stage) for r, stage in zip(rebuilt, stages, strict=True)]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(loss.detach() / len(coders))
        done += 1
        if done % report_every == 0 or done % len(batches) == 0:
            mean = torch.stack(losses).mean().item()
            losses = []
            if not math.isfinite(mean):
                raise TrainingError("The auto-encoder's loss became NaN. Check the teacher's checkpoint.")
            values = {"loss": mean, "reconstruction": mean}
            yield Metrics(AUTO_ENCODER, AUTO_ENCODER, "train", done / len(batches), done, values)

    features = (
        teacher(images).features.stages[-len(widths) :]
        for epoch in range(config.auto_encoder_epochs)
        for images, _ in batches.epoch(epoch)
    )
    if device.type == "cpu" and cores() > 1:  # the teacher answers the next batch meanwhile
        yield from side_by_side(features, [learn])
    else:
        for stages in features:  # (B,c,h,w) each
            yield from learn(stages)
    return [freeze(cast(AutoEncoder, coder).encoder) for coder in coders]


def _fresh(width: int) -> AutoEncoder:
    """Its first weights do not depend on which other stages are compared."""
    torch.manual_seed(0)
    return AutoEncoder(width, factor_channels(width))
