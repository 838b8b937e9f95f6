"""Inheritance and exploration: Huang et al., CVPR 2021 (arXiv 2107.00181)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from iekd.losses.tensors import unit

Distance = Literal["l1", "l2", "cosine"]


class InheritanceLoss(nn.Module):
    """L_inh = mean |u(F_inh) - u(F_T)|^p: the inheritance half becomes like the teacher (section 3; p = 1).

    forward: factor of the inheritance half and teacher factor, both (B,...) of one shape -> scalar.
    u flattens each sample to D numbers and divides it by its L2 norm, so the loss is blind to the factors' scale.
    distance: "l1" is at most 2/sqrt(D); "l2" (p = 2) at most 4/D; "cosine" is 1 - cos, at most 2.
    """

    def __init__(self, distance: Distance = "l1") -> None:
        super().__init__()
        self.distance = distance

    def forward(self, student_factor: Tensor, teacher_factor: Tensor) -> Tensor:
        s, t = unit(student_factor), unit(teacher_factor)  # (B,D)
        if self.distance == "cosine":
            return 1 - (s * t).sum(1).mean()
        return (s - t).abs().mean() if self.distance == "l1" else (s - t).square().mean()


class ExplorationLoss(nn.Module):
    """L_exp = - mean |u(F_exp) - u(F_T)|^p: the exploration half moves away from the teacher (section 3; p = 1).

    forward: factor of the exploration half and teacher factor, both (B,...) of one shape -> scalar.
    distance: "l1" and "l2" give the inheritance loss with its sign turned; "cosine" is |cos|, least where the two
    have nothing in common.
    """

    def __init__(self, distance: Distance = "l1") -> None:
        super().__init__()
        self.distance = distance
        self.likeness = InheritanceLoss(distance)

    def forward(self, student_factor: Tensor, teacher_factor: Tensor) -> Tensor:
        if self.distance == "cosine":
            return (unit(student_factor) * unit(teacher_factor)).sum(1).abs().mean()
        return -self.likeness(student_factor, teacher_factor)  # type: ignore[no-any-return]
