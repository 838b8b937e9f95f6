"""Feature overhaul: Heo, Kim, Yun, Park, Kwak and Choi, ICCV 2019."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iekd.losses.tensors import as_float32

RARE = 1e-3  # a channel that is negative less often has too few negative values for a mean


def margin(mean: Tensor, std: Tensor) -> Tensor:
    """The mean of a normally distributed channel where it is negative, E[x | x < 0].

    m = mu - sigma phi(mu/sigma) / Phi(-mu/sigma); -3 sigma where Phi(-mu/sigma) <= 0.001.
    https://arxiv.org/abs/1904.01866, section 3.1, as released.

    Args:
        mean: (c,), mu; of a stage that ends in batch norm, its bias.
        std: (c,), sigma; of a stage that ends in batch norm, the absolute value of its weight.

    Returns:
        (c,), float32.

    >>> margin(torch.zeros(1), torch.ones(1)).item()  # -sqrt(2 / pi)
    -0.797884...
    """
    mean, std = mean.double(), std.double().clamp_min(1e-12)
    z = mean / std
    density = torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
    below = torch.special.ndtr(-z)
    return torch.where(below > RARE, mean - std * density / below.clamp_min(RARE), -3 * std).float()


class OverhaulLoss(nn.Module):
    """The student imitates features before the activation: sum over stages of w_i sum d(s', t') / (1000 B).

    t' = max(t, m), m the margin of each channel. d is the partial L2 distance: (s' - t')^2, and 0 where s' <= t' <= 0,
    because the activation removes such values. The last stage has weight 1, each one before it half of the next.
    https://arxiv.org/abs/1904.01866, section 3; weights and 1000 as released.

    Args:
        margins: one (c_i,) per stage of the teacher; see `margin`.

    Args of forward:
        student: one (B,c_i,h,w) per stage, before the activation, already mapped to the teacher's channels.
        teacher: one (B,c_i,h,w) per stage, before the activation.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: not as many stages as margins.

    >>> feature, low = torch.randn(8, 16, 7, 7), -torch.ones(16)
    >>> OverhaulLoss([low])((torch.randn(8, 16, 7, 7),), (feature,)).shape
    torch.Size([])
    >>> OverhaulLoss([low])((feature.clamp_min(-1),), (feature,)).item()
    0.0
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
            given, target = as_float32(s), torch.maximum(as_float32(t), self.get_buffer(f"margin{i}"))
            counts = ~((given <= target) & (target <= 0))
            terms.append(((given - target).square() * counts).sum() / 2 ** (self.stages - 1 - i))
        return torch.stack(terms).sum() / (1000 * len(student[0]))
