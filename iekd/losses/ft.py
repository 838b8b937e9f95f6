"""Factor transfer: Kim, Park and Kwak, "Paraphrasing Complex Network", NeurIPS 2018."""

from __future__ import annotations

from torch import Tensor, nn

from iekd.losses.tensors import as_float32, unit_pair


class FactorTransferLoss(nn.Module):
    """The student's factor becomes like the teacher's: mean |u(F_s) - u(F_t)|, u = unit length per sample.

    https://arxiv.org/abs/1802.04977, section 3, p = 1. With D = k*h*w entries the value is at most 2/sqrt(D), which is
    why its weight is in the hundreds.

    Args of forward:
        student_factor: (B,k,h,w), the translator's output for the student's feature.
        teacher_factor: (B,k,h,w), the paraphraser's output for the teacher's feature.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: the factors differ in size.

    >>> import torch
    >>> factor = torch.randn(8, 32, 7, 7)
    >>> FactorTransferLoss()(torch.randn(8, 32, 7, 7), factor).shape
    torch.Size([])
    >>> FactorTransferLoss()(factor, factor).item()
    0.0
    """

    def forward(self, student_factor: Tensor, teacher_factor: Tensor) -> Tensor:
        s, t = unit_pair(student_factor, teacher_factor)  # (B,D)
        return (s - t).abs().mean()


class ReconstructionLoss(nn.Module):
    """Trains the paraphraser (auto-encoder) that makes the teacher's factor: mean |x - reconstruction|.

    https://arxiv.org/abs/1802.04977, section 3. L1, as in the reference implementations; the papers write the squared
    L2 norm.

    Args of forward:
        reconstruction: (B,c,h,w), the decoder's output for the factor.
        feature: (B,c,h,w), the teacher's.

    Returns:
        A scalar tensor.

    >>> import torch
    >>> ReconstructionLoss()(torch.zeros(8, 32, 7, 7), torch.ones(8, 32, 7, 7)).item()
    1.0
    """

    def forward(self, reconstruction: Tensor, feature: Tensor) -> Tensor:
        return (as_float32(reconstruction) - as_float32(feature)).abs().mean()
