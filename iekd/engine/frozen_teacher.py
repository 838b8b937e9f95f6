"""The teacher at work: one forward pass per batch, without gradients, whose output all students share."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, nn

from iekd.distill.targets import TeacherOutput
from iekd.engine.accelerate import autocast, freeze
from iekd.engine.events import TrainedModel
from iekd.engine.folding import fold
from iekd.errors import first_line
from iekd.models.normalise import Normalise

log = logging.getLogger(__name__)


def _frozen(network: nn.Module, precision: torch.dtype, shape: tuple[int, int, int]) -> nn.Module:
    """`accelerate.freeze`; where torch.fx cannot follow the network's code, `folding.fold`; else a plain copy."""
    try:
        return freeze(network, precision)
    except Exception:  # branches on a tensor's value, operations that it does not know, ...
        try:
            frozen = fold(network, torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)))
        except Exception as error:
            log.warning("The teacher runs as it is, its batch norms not folded (%s).", first_line(error))
            frozen = copy.deepcopy(network).eval().requires_grad_(False)
    return frozen.to(dtype=precision).to(memory_format=torch.channels_last)


class FrozenTeacher:
    """images (B,C,H,W) uint8 -> TeacherOutput, without gradients; factors only once auto-encoders are trained."""

    def __init__(
        self, network: TrainedModel, device: torch.device, precision: torch.dtype, shape: tuple[int, int, int]
    ) -> None:
        """shape: (C,H,W) of the images."""
        self.device, self.precision = device, precision
        self.model = _frozen(network.model, precision, shape).to(device)
        self.normalise = Normalise(network.mean, network.std).to(device)
        self.encoders: list[nn.Module] = []  # of the last stages

    @torch.no_grad()
    def __call__(self, images: Tensor) -> TeacherOutput:
        with autocast(self.device, self.precision):
            features = self.model(self.normalise(images))
            last = features.stages[len(features.stages) - len(self.encoders) :]
            return TeacherOutput(features, tuple(e(stage) for e, stage in zip(self.encoders, last, strict=True)))
