"""Batch norm over the images of several processes: mean and variance of the whole batch, as one process has them.

torch's SyncBatchNorm needs CUDA and takes the place of modules, of which libraries have kinds of their own. Here the
function that all of them call is replaced while a learner computes, on any device and with any module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


class AddsUp(Protocol):
    """What is needed of processes (parallel.Processes)."""

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        ...


class SyncedNorms(TorchFunctionMode):
    """Within, every batch norm in training mode normalises by the images of all processes.

    Each process must compute the same norms in the same order, forward and backward.
    """

    def __init__(self, processes: AddsUp) -> None:
        super().__init__()
        self.processes = processes

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is F.batch_norm:
            return _batch_norm(self.processes, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _batch_norm(
    processes: AddsUp, x: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """torch.nn.functional.batch_norm; x (B,C,...)."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    mean, var, count = _statistics(x.detach(), processes)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean), momentum)
        running_var.lerp_((var * count / (count - 1).clamp(min=1)).to(running_var), momentum)
    y: Tensor = _Normalised.apply(x, weight, bias, mean, var, count, eps, processes)  # type: ignore[no-untyped-call]
    return y


def _statistics(x: Tensor, processes: AddsUp) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (C,) float32 of all processes' x (B,C,...), and of how many values each is, ().

    Chan, Golub and LeVeque 1979: each process has the mean of its own values and their variance around it, which loses
    no digits as sums of squares would.
    """
    # (C,) each; torch.var_mean takes ten times as long on a CPU
    own_mean, own_var = torch.batch_norm_update_stats(x.float(), None, None, 0.0)
    rows = own_mean.new_zeros(processes.count, 2 * len(own_mean) + 1)
    own_count = own_mean.new_full((1,), x.numel() / x.shape[1])
    rows[processes.rank] = torch.cat([own_mean, own_var, own_count])
    # (processes, C or 1) each
    means, variances, counts = torch.split(processes.add_up(rows), [len(own_mean), len(own_mean), 1], 1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    return mean, ((variances + (means - mean).square()) * counts).sum(0) / count, count


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias; mean and var depend on the x of all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, count: Tensor,
        eps: float, processes: AddsUp,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps, ctx.processes, ctx.has_bias = eps, processes, bias is not None
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The gradients of weight and bias are those of the images here, as every parameter's; they are added up later.

        With z = (x - mean) / std, g = grad and means over all images of all processes:
        dx = weight / std * (g - mean(g) - z mean(g z)). The first term is the gradient with fixed statistics, for which
        torch has a kernel; the others are a batch norm with other weights.
        """
        x, weight, mean, var, count = ctx.saved_tensors
        values, scale = x.float(), torch.ones_like(mean) if weight is None else weight.float()
        fixed, dw, db = torch.ops.aten.native_batch_norm_backward(
            grad.float(), values, scale, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        means = ctx.processes.add_up(torch.stack([dw, db])) / count * scale * (var + ctx.eps).rsqrt()  # (2,C)
        dx = fixed - F.batch_norm(values, mean, var, means[0], means[1], False, 0.0, ctx.eps)
        of_weight = None if weight is None else dw.to(weight.dtype)
        return dx.to(x.dtype), of_weight, db if ctx.has_bias else None, None, None, None, None, None
