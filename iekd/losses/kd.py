"""Knowledge distillation: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.losses.tensors import as_float32, kl_divergence


class KnowledgeDistillationLoss(nn.Module):
    """The student predicts what the teacher predicts: T^2 KL(softmax(t/T) || softmax(s/T)), mean over the batch.

    https://arxiv.org/abs/1503.02531, section 2. T^2 keeps the gradient's size when T changes.

    Args:
        temperature: softmax temperature T.

    Args of forward:
        student_logits: (B,K).
        teacher_logits: (B,K).

    Returns:
        A scalar tensor.

    >>> import torch
    >>> logits = torch.randn(8, 10)
    >>> KnowledgeDistillationLoss(temperature=4)(torch.randn(8, 10), logits).shape
    torch.Size([])
    >>> KnowledgeDistillationLoss()(logits, logits).item()
    0.0
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        t = self.temperature
        student = F.log_softmax(as_float32(student_logits) / t, dim=1)
        teacher = F.log_softmax(as_float32(teacher_logits) / t, dim=1)
        return t * t * kl_divergence(student, teacher)
