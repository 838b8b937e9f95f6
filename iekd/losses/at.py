"""Attention transfer: Zagoruyko and Komodakis, ICLR 2017 (arXiv 1612.03928)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iekd.losses.tensors import match_stages, unit, wide


def attention(feature: Tensor) -> Tensor:
    """Where a stage looks: the mean over channels of the squares, as a unit vector. (B,c,h,w) -> (B,h*w)."""
    return unit(wide(feature).square().mean(1))


class AttentionTransferLoss(nn.Module):
    """sum over stages of mean (q_s - q_t)^2, q = u(mean_c f^2) (section 3.1, p = 2).

    forward: the stage ends after the activation of student and teacher, as many, each (B,c,h,w) -> scalar. Channels
    may differ. As in the reference release the mean takes the place of the paper's sum, which is why the usual weight
    is 1000.
    """

    def forward(self, student_stages: tuple[Tensor, ...], teacher_stages: tuple[Tensor, ...]) -> Tensor:
        pairs = match_stages(student_stages, teacher_stages)
        return torch.stack([(attention(s) - attention(t)).square().mean() for s, t in pairs]).sum()
