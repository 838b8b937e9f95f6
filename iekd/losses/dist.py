"""DIST: Huang, You, Wang, Qian and Xu, "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022."""

from __future__ import annotations

from torch import Tensor, nn

from iekd.losses.tensors import as_float32

TINY = 1e-8


class RelationLoss(nn.Module):
    """The student keeps the relations among the teacher's predictions, not the predictions themselves.

    T^2 (inter_weight L_inter + intra_weight L_intra), with L_inter = mean over images of 1 - r(s_i, t_i), where r is
    Pearson's correlation over the classes, and L_intra = mean over classes of 1 - r(s_k, t_k), the correlation over the
    batch; s and t are the softmax of logits / T. https://arxiv.org/abs/2205.10536, section 4.2; T^2 as released.

    Args:
        inter_weight: weight of L_inter, the paper's beta.
        intra_weight: weight of L_intra, the paper's gamma.
        temperature: softmax temperature T.

    Args of forward:
        student_logits: (B,K).
        teacher_logits: (B,K).

    Returns:
        A scalar tensor.

    >>> import torch
    >>> logits = torch.randn(8, 10)
    >>> RelationLoss()(logits, torch.randn(8, 10)).shape
    torch.Size([])
    >>> bool(RelationLoss()(logits, logits).abs() < 1e-3)
    True
    """

    def __init__(self, inter_weight: float = 1.0, intra_weight: float = 1.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.inter_weight, self.intra_weight, self.temperature = inter_weight, intra_weight, temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        t = self.temperature
        student = (as_float32(student_logits) / t).softmax(1)
        teacher = (as_float32(teacher_logits) / t).softmax(1)
        inter, intra = pearson_distance(student, teacher), pearson_distance(student.T, teacher.T)
        return t * t * (self.inter_weight * inter + self.intra_weight * intra)


def pearson_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean over rows of 1 - Pearson's correlation; a row that does not vary correlates with nothing.

    Args:
        a: (N,D).
        b: (N,D).

    Returns:
        A scalar tensor from 0 to 2.
    """
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    correlation: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + TINY)
    return 1 - correlation.mean()
