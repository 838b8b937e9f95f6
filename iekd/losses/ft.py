"""Factor transfer: Kim, Park and Kwak, "Paraphrasing Complex Network", NeurIPS 2018 (arXiv 1802.04977)."""

from __future__ import annotations

from torch import Tensor, nn

from iekd.losses.tensors import unit, wide


class FactorTransferLoss(nn.Module):
    """mean |u(F_s) - u(F_t)|, u = unit length per sample (section 3, p = 1).

    forward: student factor and teacher factor, both (B,k,h,w) -> scalar.
    With D = k*h*w entries the value is at most 2/sqrt(D), which is why its weight is in the hundreds.
    """

    def forward(self, student_factor: Tensor, teacher_factor: Tensor) -> Tensor:
        return (unit(student_factor) - unit(teacher_factor)).abs().mean()


class ReconstructionLoss(nn.Module):
    """mean |x - reconstruction|: trains the paraphraser. Both (B,c,h,w) -> scalar.

    L1, as in the reference implementations; the papers write the squared L2 norm.
    """

    def forward(self, reconstruction: Tensor, feature: Tensor) -> Tensor:
        return (wide(reconstruction) - wide(feature)).abs().mean()
