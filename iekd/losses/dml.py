"""Deep mutual learning: Zhang, Xiang, Hospedales and Lu, CVPR 2018."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.losses.tensors import as_float32, kl_divergence


class MutualLearningLoss(nn.Module):
    """A network learns from a peer's predictions: KL(p_peer || p), mean over the batch, no temperature.

    It does not teach the peer, which has a loss of its own with the roles swapped. https://arxiv.org/abs/1706.00384,
    equations 5 and 6.

    Args of forward:
        logits: (B,K), of the network that learns.
        peer_logits: (B,K); no gradient flows into them.

    Returns:
        A scalar tensor.

    >>> import torch
    >>> logits = torch.randn(8, 10)
    >>> MutualLearningLoss()(logits, torch.randn(8, 10)).shape
    torch.Size([])
    >>> MutualLearningLoss()(logits, logits).item()
    0.0
    """

    def forward(self, logits: Tensor, peer_logits: Tensor) -> Tensor:
        log_p = F.log_softmax(as_float32(logits), dim=1)
        log_peer = F.log_softmax(as_float32(peer_logits.detach()), dim=1)
        return kl_divergence(log_p, log_peer)
