"""Decoupled knowledge distillation: Zhao, Cui, Song, Qiu and Liang, CVPR 2022 (arXiv 2203.08679)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iekd.losses.tensors import divergence, wide


class DecoupledKnowledgeDistillationLoss(nn.Module):
    """T^2 (alpha TCKD + beta NCKD), mean over the batch (equation 7).

    TCKD is the divergence between the two-way answers "the right class or another"; NCKD that between the answers
    among the other classes alone. alpha 1, beta 8, T 4 are the paper's values for CIFAR-100.

    forward: student logits (B,K), teacher logits (B,K), labels (B,) -> scalar.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        binary_s, others_s = self._decoupled(student_logits, labels)
        binary_t, others_t = self._decoupled(teacher_logits, labels)
        target = divergence(binary_s, binary_t)
        others = divergence(others_s, others_t)
        return self.temperature**2 * (self.alpha * target + self.beta * others)

    def _decoupled(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Log probabilities (B,2) of right and other, and (B,K-1) among the others."""
        scaled = wide(logits) / self.temperature
        right = scaled.gather(1, labels[:, None])  # (B,1)
        index = torch.arange(scaled.shape[1] - 1, device=labels.device).expand(len(scaled), -1)
        # a mask would make the device tell its count
        others = scaled.gather(1, index + (index >= labels[:, None]))  # (B,K-1)
        binary = torch.cat([right, others.logsumexp(1, keepdim=True)], 1)
        return F.log_softmax(binary, dim=1), F.log_softmax(others, dim=1)
