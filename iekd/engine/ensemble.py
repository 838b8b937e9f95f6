"""Several teachers as one: their logits averaged, the features of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iekd.models.features import Features


class Member(NamedTuple):
    """A trained network and how its images are normalised: mean and std per channel, of pixel values 0..1."""

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Ensemble(nn.Module):
    """Images (B,C,H,W), normalised for the first network -> Features: the mean of all logits (B,K), and the stages and
    pooled features of the first.

    The mean of the logits gives the geometric mean of the predicted distributions, at every temperature; Hinton et al.
    2015, section 1, name it beside the arithmetic one for soft targets of an ensemble.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.members = nn.ModuleList(member.model for member in members)
        own = members[0]
        for i, member in enumerate(members):  # x std + mean are the pixels again
            scale = [mine / theirs for mine, theirs in zip(own.std, member.std, strict=True)]
            differences = zip(own.mean, member.mean, member.std, strict=True)
            shift = [(mine - theirs) / std for mine, theirs, std in differences]
            self.register_buffer(f"scale_{i}", torch.tensor(scale).reshape(1, -1, 1, 1))
            self.register_buffer(f"shift_{i}", torch.tensor(shift).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Features:
        first: Features = self.members[0](images)
        logits = first.logits
        for i in range(1, len(self.members)):
            logits = logits + self.members[i](images * getattr(self, f"scale_{i}") + getattr(self, f"shift_{i}")).logits
        return Features(logits / len(self.members), first.stages, first.pre_activations, first.pooled)
