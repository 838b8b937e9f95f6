"""Inheritance and exploration: Huang et al., "Revisiting Knowledge Distillation", CVPR 2021."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from iekd.losses.tensors import unit_pair

Distance = Literal["l1", "l2", "cosine"]


class InheritanceLoss(nn.Module):
    """The inheritance half becomes like the teacher: L_inh = mean |u(F_inh) - u(F_T)|^p.

    u flattens each sample to D numbers and divides it by its L2 norm, so the scale of the factors has no effect.
    https://arxiv.org/abs/2107.00181, section 3; p = 1 there.

    Args:
        distance: "l1" (p = 1) is at most 2/sqrt(D); "l2" (p = 2) at most 4/D; "cosine" is 1 - cos, at most 2.

    Args of forward:
        student_factor: (B,...), of the inheritance half.
        teacher_factor: (B,...) of the same shape.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: there is no such distance, or the factors differ in size.

    >>> import torch
    >>> factor = torch.randn(8, 32, 7, 7)
    >>> InheritanceLoss()(torch.randn(8, 32, 7, 7), factor).shape
    torch.Size([])
    >>> InheritanceLoss()(factor, factor).item()
    0.0
    """

    def __init__(self, distance: Distance = "l1") -> None:
        super().__init__()
        if distance not in get_args(Distance):
            raise ValueError(f"Distance '{distance}' is unknown. Choose one of: {', '.join(get_args(Distance))}.")
        self.distance = distance

    def forward(self, student_factor: Tensor, teacher_factor: Tensor) -> Tensor:
        s, t = unit_pair(student_factor, teacher_factor)  # (B,D)
        if self.distance == "cosine":
            return 1 - (s * t).sum(1).mean()
        return (s - t).abs().mean() if self.distance == "l1" else (s - t).square().mean()


class ExplorationLoss(nn.Module):
    """The exploration half moves away from the teacher: L_exp = - mean |u(F_exp) - u(F_T)|^p.

    https://arxiv.org/abs/2107.00181, section 3; p = 1 there. u as in InheritanceLoss.

    Args:
        distance: "l1" and "l2" give the negated inheritance loss; "cosine" is |cos|, smallest where the two are
            orthogonal.

    Args of forward:
        student_factor: (B,...), of the exploration half.
        teacher_factor: (B,...) of the same shape.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: there is no such distance, or the factors differ in size.

    >>> import torch
    >>> student, teacher = torch.randn(2, 8, 32, 7, 7)
    >>> bool(ExplorationLoss()(student, teacher) == -InheritanceLoss()(student, teacher))
    True
    """

    def __init__(self, distance: Distance = "l1") -> None:
        super().__init__()
        self.distance = distance
        self.inheritance = InheritanceLoss(distance)

    def forward(self, student_factor: Tensor, teacher_factor: Tensor) -> Tensor:
        if self.distance == "cosine":
            s, t = unit_pair(student_factor, teacher_factor)  # (B,D)
            return (s * t).sum(1).abs().mean()
        return -self.inheritance(student_factor, teacher_factor)  # type: ignore[no-any-return]
