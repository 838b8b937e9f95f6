"""Feature overhaul: Heo, Kim, Yun, Park, Kwak and Choi, ICCV 2019 (arXiv 1904.01866)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iekd.losses.tensors import wide

RARE = 1e-3  # of a channel that is hardly ever negative, the mean below zero cannot be told


def margin(mean: Tensor, std: Tensor) -> Tensor:
    """What a channel is worth on average where it is negative, if it is normal: E[x | x < 0]. (c,), (c,) -> (c,).

    m = mu - sigma phi(mu/sigma) / Phi(-mu/sigma); -3 sigma where Phi(-mu/sigma) <= 0.001 (section 3.1, as released).
    For a stage that ends in batch norm, mu is its bias and sigma the absolute value of its weight.
    """
    mean, std = mean.double(), std.double().clamp_min(1e-12)
    z = mean / std
    density = torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
    below = torch.special.ndtr(-z)
    return torch.where(below > RARE, mean - std * density / below.clamp_min(RARE), -3 * std).float()


class OverhaulLoss(nn.Module):
    """sum over stages of w_i sum d(s', t') / (1000 B), t' = max(t, m) (section 3; weights and 1000 as released).

    d is the partial L2 distance: (s' - t')^2, and 0 where s' <= t' <= 0, because what the activation takes away needs
    no imitation. The last stage weighs 1, each one before it half of the next.

    margins: one (c_i,) per stage of the teacher; see `margin`.
    forward: the student's stage ends before the activation, already mapped to the teacher's channels, and the
    teacher's, both one (B,c_i,h,w) per stage -> scalar.
    """

    def __init__(self, margins: list[Tensor]) -> None:
        super().__init__()
        self.stages = len(margins)
        for i, m in enumerate(margins):
            self.register_buffer(f"margin{i}", m.reshape(1, -1, 1, 1))

    def forward(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        if not len(student) == len(teacher) == self.stages:
            raise ValueError(f"Expected {self.stages} stages, got {len(student)} and {len(teacher)}.")
        terms = []
        for i, (s, t) in enumerate(zip(student, teacher, strict=True)):
            answer, target = wide(s), torch.maximum(wide(t), self.get_buffer(f"margin{i}"))
            counts = ~((answer <= target) & (target <= 0))
            terms.append(((answer - target).square() * counts).sum() / 2 ** (self.stages - 1 - i))
        return torch.stack(terms).sum() / (1000 * len(student[0]))
