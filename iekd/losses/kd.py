"""Knowledge distillation: Hinton, Vinyals and Dean, 2015 (arXiv 1503.02531)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.losses.tensors import divergence, wide


class KnowledgeDistillationLoss(nn.Module):
    """T^2 KL(softmax(t/T) || softmax(s/T)), mean over the batch (section 2).

    forward: student logits (B,K), teacher logits (B,K) -> scalar. T^2 keeps the gradient's size when T changes.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        t = self.temperature
        student = F.log_softmax(wide(student_logits) / t, dim=1)
        teacher = F.log_softmax(wide(teacher_logits) / t, dim=1)
        return t * t * divergence(student, teacher)
