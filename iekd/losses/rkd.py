"""Relational knowledge distillation: Park, Kim, Lu and Cho, CVPR 2019."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iekd.losses.tensors import as_float32

LEAST_SQUARE = 1e-12  # of a distance: its root has no gradient at 0


class RelationalDistanceLoss(nn.Module):
    """The distances between images become the same in the student's features as in the teacher's: mean huber(d_s, d_t).

    d_ij = |x_i - x_j| / mu, where mu is the mean of |x_i - x_j| over different images, so the scale of the features has
    no effect. huber(a, b) = (a - b)^2 / 2 where |a - b| < 1, else |a - b| - 1/2. https://arxiv.org/abs/1904.05068,
    section 3.2, the distance-wise loss. As in the reference release it is the mean over all pairs, including an image
    with itself, where the paper has the sum.

    Args of forward:
        student: (B,c), such as the input of the classifier.
        teacher: (B,d); the widths may differ.

    Returns:
        A scalar tensor.

    >>> feature = torch.randn(8, 64)
    >>> RelationalDistanceLoss()(torch.randn(8, 16), feature).shape
    torch.Size([])
    >>> RelationalDistanceLoss()(feature, feature).item()
    0.0
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return _huber(_distances(student), _distances(teacher))


class RelationalAngleLoss(nn.Module):
    """The angles between any three images become the same in the student's features as in the teacher's.

    The mean over triples of huber(cos_s, cos_t), where cos is the cosine of the angle at image i between images j and
    k, and huber is as in RelationalDistanceLoss. https://arxiv.org/abs/1904.05068, section 3.2, the angle-wise loss,
    as the mean over all triples like the reference release. It takes memory for B^2 (c + d + B) numbers, twice that
    with gradients.

    Args of forward:
        student: (B,c), such as the input of the classifier.
        teacher: (B,d); the widths may differ.

    Returns:
        A scalar tensor.

    >>> feature = torch.randn(8, 64)
    >>> RelationalAngleLoss()(torch.randn(8, 16), feature).shape
    torch.Size([])
    >>> RelationalAngleLoss()(feature, feature).item()
    0.0
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return _huber(_cosines(student), _cosines(teacher))


def _distances(features: Tensor) -> Tensor:
    """(B,c) -> (B,B), divided by the mean over different images; 0 between an image and itself."""
    x = as_float32(features)
    with torch.autocast(x.device.type, enabled=False):  # half precision cannot resolve small distances
        products = x @ x.T
    squares = x.square().sum(1)
    others = 1 - torch.eye(len(x), dtype=x.dtype, device=x.device)
    distances = (squares[:, None] + squares - 2 * products).clamp_min(LEAST_SQUARE).sqrt() * others
    mean = distances.sum() / max(1, len(x) * (len(x) - 1))
    return distances / mean.clamp_min(LEAST_SQUARE**0.5)


def _cosines(features: Tensor) -> Tensor:
    """(B,c) -> (B,B,B): at image i, the cosine of the angle between images j and k; 0 where j or k is i."""
    x = as_float32(features)
    directions = F.normalize(x - x[:, None], dim=2)  # (B,B,c): from i to j
    with torch.autocast(x.device.type, enabled=False):
        return directions @ directions.transpose(1, 2)


def _huber(a: Tensor, b: Tensor) -> Tensor:
    error = (a - b).abs()
    return torch.where(error < 1, error.square() / 2, error - 0.5).mean()
