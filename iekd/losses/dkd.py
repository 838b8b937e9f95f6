"""Decoupled knowledge distillation: Zhao, Cui, Song, Qiu and Liang, CVPR 2022."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iekd.losses.tensors import as_float32, kl_divergence


class DecoupledKnowledgeDistillationLoss(nn.Module):
    """Knowledge distillation with separate weights for the target class and the others: T^2 (alpha TCKD + beta NCKD).

    TCKD is the divergence between the binary predictions "the target class or another"; NCKD is the one between the
    predictions among the other classes. Both are means over the batch. https://arxiv.org/abs/2203.08679,
    equation 7. alpha 1, beta 8, T 4 are the paper's values for CIFAR-100.

    Args:
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: softmax temperature T.

    Args of forward:
        student_logits: (B,K).
        teacher_logits: (B,K).
        labels: (B,), class indices.

    Returns:
        A scalar tensor.

    >>> logits, labels = torch.randn(8, 10), torch.arange(8)
    >>> DecoupledKnowledgeDistillationLoss()(torch.randn(8, 10), logits, labels).shape
    torch.Size([])
    >>> DecoupledKnowledgeDistillationLoss()(logits, logits, labels).item()
    0.0
    """

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        binary_s, others_s = self._decoupled(student_logits, labels)
        binary_t, others_t = self._decoupled(teacher_logits, labels)
        target = kl_divergence(binary_s, binary_t)
        others = kl_divergence(others_s, others_t)
        return self.temperature**2 * (self.alpha * target + self.beta * others)

    def _decoupled(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Log probabilities (B,2) of target and other, and (B,K-1) among the others."""
        scaled = as_float32(logits) / self.temperature
        right = scaled.gather(1, labels[:, None])  # (B,1)
        index = torch.arange(scaled.shape[1] - 1, device=labels.device).expand(len(scaled), -1)
        # a boolean mask would make the CPU wait for the device, which has to tell how many it selects
        others = scaled.gather(1, index + (index >= labels[:, None]))  # (B,K-1)
        binary = torch.cat([right, others.logsumexp(1, keepdim=True)], 1)
        return F.log_softmax(binary, dim=1), F.log_softmax(others, dim=1)
