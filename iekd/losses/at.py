"""Attention transfer: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iekd.losses.tensors import as_float32, match_stages, unit_vectors


def attention(feature: Tensor) -> Tensor:
    """Where a stage looks: the mean over channels of the squares, as a unit vector.

    Args:
        feature: (B,c,h,w), after the activation.

    Returns:
        (B,h*w), each row of length 1.
    """
    return unit_vectors(as_float32(feature).square().mean(1))


class AttentionTransferLoss(nn.Module):
    """The student looks where the teacher looks, at every stage: sum over stages of mean (q_s - q_t)^2.

    q = u(mean over channels of f^2), u = unit length per sample. https://arxiv.org/abs/1612.03928, section
    3.1, equation 2 with p = 2. As in the reference release the mean takes the place of the paper's sum, which is why
    the usual weight is 1000.

    Args of forward:
        student_stages: stage ends after the activation, each (B,c,h,w).
        teacher_stages: as many; channels may differ, and the larger map is pooled to the smaller one's size.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: student and teacher differ in the number of stages.

    >>> student, teacher = torch.rand(8, 16, 7, 7), torch.rand(8, 64, 7, 7)
    >>> AttentionTransferLoss()((student,), (teacher,)).shape
    torch.Size([])
    >>> AttentionTransferLoss()((teacher,), (teacher,)).item()
    0.0
    """

    def forward(self, student_stages: tuple[Tensor, ...], teacher_stages: tuple[Tensor, ...]) -> Tensor:
        pairs = match_stages(student_stages, teacher_stages)
        return torch.stack([(attention(s) - attention(t)).square().mean() for s, t in pairs]).sum()
