"""Deep mutual learning: Zhang, Xiang, Hospedales and Lu, CVPR 2018 (arXiv 1706.00384)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.losses.tensors import divergence, wide


class MutualLearningLoss(nn.Module):
    """KL(p_peer || p), mean over the batch, no temperature (equations 5 and 6); the peer is not taught by it.

    forward: logits of the network that learns (B,K), logits of its peer (B,K) -> scalar.
    """

    def forward(self, logits: Tensor, peer_logits: Tensor) -> Tensor:
        log_p = F.log_softmax(wide(logits), dim=1)
        log_peer = F.log_softmax(wide(peer_logits.detach()), dim=1)
        return divergence(log_p, log_peer)
