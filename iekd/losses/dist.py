"""DIST: Huang, You, Wang, Qian and Xu, "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022 (2205.10536)."""

from __future__ import annotations

from torch import Tensor, nn

from iekd.losses.tensors import wide

TINY = 1e-8


class RelationLoss(nn.Module):
    """T^2 (inter_weight L_inter + intra_weight L_intra): keeps relations among answers, not the answers themselves.

    L_inter = mean over images of 1 - r(s_i, t_i), r = Pearson's correlation over the classes; L_intra = mean over
    classes of 1 - r(s_k, t_k), the correlation over the batch (section 4.2; T^2 as released).
    s, t: softmax of logits / T.

    forward: student logits (B,K), teacher logits (B,K) -> scalar.
    """

    def __init__(self, inter_weight: float = 1.0, intra_weight: float = 1.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.inter_weight, self.intra_weight, self.temperature = inter_weight, intra_weight, temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        t = self.temperature
        student = (wide(student_logits) / t).softmax(1)
        teacher = (wide(teacher_logits) / t).softmax(1)
        inter, intra = _apart(student, teacher), _apart(student.T, teacher.T)
        return t * t * (self.inter_weight * inter + self.intra_weight * intra)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Mean over rows of 1 - Pearson's correlation; a row that does not vary correlates with nothing."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    correlation: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + TINY)
    return 1 - correlation.mean()
