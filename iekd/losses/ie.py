"""Inheritance and exploration: Huang et al., CVPR 2021 (arXiv 2107.00181)."""

from __future__ import annotations

from torch import Tensor, nn

from iekd.losses.parts import unit


class InheritanceLoss(nn.Module):
    """L_inh = mean |u(F_inh) - u(F_T)|: the inheritance half becomes like the teacher (section 3, p = 1).

    forward: factor of the inheritance half and teacher factor, both (B,k,h,w) -> scalar in [0, 2/sqrt(k*h*w)].
    u flattens each sample and divides it by its L2 norm, so the loss is blind to the factors' scale.
    """

    def forward(self, student_factor: Tensor, teacher_factor: Tensor) -> Tensor:
        return (unit(student_factor) - unit(teacher_factor)).abs().mean()


class ExplorationLoss(nn.Module):
    """L_exp = - mean |u(F_exp) - u(F_T)|: the exploration half moves away from the teacher (section 3, p = 1).

    forward: factor of the exploration half and teacher factor, both (B,k,h,w) -> scalar in [-2/sqrt(k*h*w), 0].
    """

    def forward(self, student_factor: Tensor, teacher_factor: Tensor) -> Tensor:
        return -(unit(student_factor) - unit(teacher_factor)).abs().mean()
