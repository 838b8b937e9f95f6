"""Layer-wise relevance propagation through any composition of convolutions, batch norms, ReLUs, residual sums, pooling
and linear layers.

A `RelevanceMode` watches the functions that a network calls, whether they belong to a module or not, and gives each a
backward pass that hands on relevance instead of gradients; torch's autograd then does the rest. It is our own because
Zennit and Captum attach their rules to modules: the ReLUs, sums and means of our networks are functions, so each family
would need its own canoniser, and neither says how much relevance the biases take. tests/explain/test_lrp.py compares
the rules with ones written in NumPy. It does without torch.fx, which could fold batch norms, because tracing a network
disturbs what other threads compute meanwhile, such as the predictions of a page.

The rules, from the logits down, are the composite of Kohlbrenner et al. 2020 with z^B at the image:

- Linear layers: LRP-epsilon. R_j = sum_k x_j w_jk / (z_k + eps sign z_k) R_k.
- Convolutions, sums and average pooling: LRP-gamma in its limit of large gamma, for outputs of either sign (Andeol et
  al. 2021): where the output is positive, its positive contributions (x_j w_jk)+ share its relevance in proportion,
  where it is negative, its negative ones. After a ReLU that is z+ (alpha 1, beta 0). Every share is between 0 and 1, so
  nothing grows without bound, and each sum is conserved exactly.
- A batch norm is folded into the convolution before it. One that follows anything else passes relevance on, as an
  activation does.
- ReLUs and their like pass it on; max pooling gives it to the largest.
- A convolution of the image itself: z^B, which knows that pixels lie between black and white (Montavon et al. 2017).

A bias has the share that a contribution of its size has. At the image it has none, unless a filter has no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from iekd.explain.about import NotApplicableError

EPSILON = 1e-6
Rule = Callable[[Tensor], Sequence[Union[Tensor, None]]]  # relevance of the output -> relevance of each input
Pull = Callable[[Tensor], Tensor]  # weights of an output -> the weighted sums that reach each input
Operation = Callable[[Tensor, Tensor], Tensor]  # (input, weights) -> output without bias; linear in the input

# functions that only move numbers or drop some: their gradients move relevance back
MOVING = {
    "max_pool2d", "adaptive_max_pool2d", "dropout", "dropout2d", "cat", "concat", "concatenate", "chunk", "split",
    "unbind", "stack", "flatten", "reshape", "view", "permute", "transpose", "contiguous", "clone", "to", "float",
    "unsqueeze", "squeeze", "narrow", "select", "index_select", "__getitem__", "pad", "channel_shuffle",
}  # fmt: skip
PASSING = {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_"}
MEANS = {"mean", "avg_pool2d", "adaptive_avg_pool2d"}
SUMS = {"add", "add_", "__add__", "__iadd__", "__radd__"}


class Convolution(NamedTuple):
    """A convolution that was called; a batch norm may follow."""

    output: Tensor
    operation: Operation
    input: Tensor
    weight: Tensor
    bias: Tensor | None


class _Redistribute(torch.autograd.Function):
    """Hands on an output that was computed already; its backward pass is a rule."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, output: Tensor, *inputs: Tensor) -> Tensor:
        ctx.rule = rule
        return output

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> Any:  # type: ignore[override]
        return None, None, *ctx.rule(relevance)


class RelevanceMode(TorchFunctionMode):
    """Within it, a network's backward pass from relevance of the logits gives relevance of `pixels`.

    biases: (B,), the relevance that the biases have taken since it was set to zero.
    """

    def __init__(self, pixels: Tensor, lowest: Tensor, highest: Tensor) -> None:
        """pixels: (B,C,H,W), the image as the network takes it. lowest, highest: (C,1,1), black and white in it."""
        super().__init__()
        self.pixels, self.lowest, self.highest = pixels, lowest, highest
        self.biases = pixels.new_zeros(len(pixels))
        self.convolutions: dict[int, Convolution] = {}  # by the output's id; holding it keeps the id its own
        self.own: dict[Any, Callable[..., Tensor]] = {
            F.conv2d: self._conv2d, F.linear: self._epsilon, F.batch_norm: self._batch_norm,
        }  # fmt: skip

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self.convolutions.clear()  # it would keep the whole graph in memory until Python looks for circles

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _depends(args) and not _depends(tuple(kwargs.values())):
            return func(*args, **kwargs)  # on weights alone
        name = getattr(func, "__name__", str(func))
        if func in self.own:
            return self.own[func](*args, **kwargs)
        if name in MEANS:
            x, rest = args[0], args[1:]
            ones = torch.ones((), device=x.device)
            return self._same_sign(lambda x, w: func(x, *rest, **kwargs) * w, x, ones, None)
        if name in SUMS and not kwargs and len(args) == 2:
            return self._sum(*args)
        if name in PASSING:
            output = _out_of_place(func, args, kwargs)
            return _Redistribute.apply(lambda relevance: [relevance], output, args[0])  # type: ignore[no-untyped-call]
        result = func(*args, **kwargs)
        if name not in MOVING and _depends(result):
            raise NotApplicableError(
                f"LRP has no rule for '{name}', which this network computes. It works for networks of convolutions, "
                "batch norms, ReLUs, sums, pooling and linear layers."
            )
        return result

    def _conv2d(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **kwargs: Any
    ) -> Tensor:  # fmt: skip
        def operation(x: Tensor, weight: Tensor) -> Tensor:
            return F.conv2d(x, weight, None, *rest, **kwargs)

        output = self._convolution(operation, x, weight, bias)
        self.convolutions[id(output)] = Convolution(output, operation, x, weight, bias)
        return output

    def _convolution(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rule = self._box if x is self.pixels else self._same_sign
        return rule(operation, x, weight, bias)

    def _batch_norm(
        self, x: Tensor, mean: Tensor | None, variance: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        if training or mean is None or variance is None:
            raise NotApplicableError(
                "LRP needs batch norms with fixed statistics, and this network has none in evaluation."
            )
        scale = (variance + eps).rsqrt() * (1 if weight is None else weight)  # (c,)
        shift = (0 if bias is None else bias) - mean * scale
        if before := self.convolutions.get(id(x)):
            folded = before.weight * scale[:, None, None, None]
            shift = shift if before.bias is None else before.bias * scale + shift
            return self._convolution(before.operation, before.input, folded, shift)
        shape = (1, -1, *(1,) * (x.dim() - 2))
        output = x.detach() * scale.reshape(shape) + shift.reshape(shape)
        return self._rule(lambda relevance: [relevance], output, x)

    def _rule(self, rule: Rule, output: Tensor, *inputs: Tensor) -> Tensor:
        result: Tensor = _Redistribute.apply(rule, output.detach(), *inputs)  # type: ignore[no-untyped-call]
        return result

    def _epsilon(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x_, output = x.detach(), F.linear(x.detach(), weight, bias)

        def rule(relevance: Tensor) -> list[Tensor]:
            share = relevance / (output + EPSILON * torch.where(output < 0, -1.0, 1.0))
            if bias is not None:
                self._take(share * bias)
            return [x_ * (share @ weight)]

        return self._rule(rule, output, x)

    def _same_sign(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x_, output = _computed(operation, x, weight, bias)

        @cache
        def contributions(sign: int) -> tuple[Tensor, Tensor | None, list[tuple[Tensor, Pull]]]:
            """Of outputs of one sign: their contributions of that sign, what of it is the bias, and the way back."""
            # (input of one sign, weights whose product with it has the output's sign)
            pairs = [(x_.clamp(min=0), (sign * weight).clamp(min=0)), (x_.clamp(max=0), (sign * weight).clamp(max=0))]
            own = None if bias is None else (sign * bias).clamp(min=0).reshape(-1, 1, 1)
            z, back = torch.zeros_like(output) if own is None else own.expand_as(output), []
            for part, weights in pairs:
                if bool(part.any()):
                    total, pull = _with_pull(operation, part, weights)
                    z = z + total
                    back.append((part, pull))
            return z, own, back

        def rule(relevance: Tensor) -> list[Tensor]:
            found = torch.zeros_like(x_)
            for sign in (1, -1):
                there = torch.where(sign * output > 0, relevance, 0.0)
                if not bool(there.any()):
                    continue
                z, own, back = contributions(sign)
                share = _per_contribution(there, z)
                for part, pull in back:
                    found += part * pull(share)
                if own is not None:
                    self._take(share * own)
            return [found]

        return self._rule(rule, output, x)

    def _box(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x_, output = _computed(operation, x, weight, bias)
        inputs = (x_, self.lowest.expand_as(x_), self.highest.expand_as(x_))
        weights = (weight, weight.clamp(min=0), weight.clamp(max=0))

        def rule(relevance: Tensor) -> list[Tensor]:
            pulled = [_with_pull(operation, *pair) for pair in zip(inputs, weights, strict=True)]
            z = pulled[0][0] - pulled[1][0] - pulled[2][0]  # >= 0
            share = _per_contribution(relevance, z)
            self._take(torch.where(z > 0, 0.0, relevance))  # of filters without weights
            parts = [x * pull(share) for x, (_, pull) in zip(inputs, pulled, strict=True)]
            return [parts[0] - parts[1] - parts[2]]

        return self._rule(rule, output, x)

    def _sum(self, a: Any, b: Any) -> Tensor:
        if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape:
            raise NotApplicableError(
                "LRP has no rule for sums of tensors of different shapes, which this network computes."
            )
        a_, b_ = a.detach(), b.detach()
        output = a_ + b_

        def rule(relevance: Tensor) -> list[Tensor]:
            sign = output.sign()
            parts = [(sign * part).clamp(min=0) for part in (a_, b_)]
            share = _per_contribution(relevance, parts[0] + parts[1])
            return [part * share for part in parts]

        return self._rule(rule, output, a, b)

    def _take(self, relevance: Tensor) -> None:
        self.biases += relevance.flatten(1).sum(1)


def _computed(operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """(the input, the operation's output with its bias), both detached from the graph."""
    x = x.detach()
    output = operation(x, weight)
    return x, output if bias is None else output + bias.reshape(-1, 1, 1)


def _per_contribution(relevance: Tensor, contributions: Tensor) -> Tensor:
    """An output's relevance for each unit of its contributions, none of which is negative; 0 where there are none."""
    return torch.where(contributions > 0, relevance / contributions, 0.0)


def _with_pull(operation: Operation, x: Tensor, weight: Tensor) -> tuple[Tensor, Pull]:
    """(the operation's output, the way back from it)."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        output = operation(leaf, weight)
    return output.detach(), lambda share: torch.autograd.grad(output, leaf, share, retain_graph=True)[0]


def _out_of_place(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """An activation's output, detached, without a change of its input."""
    x = args[0].detach().clone()
    result: Tensor = func(x, *args[1:], **kwargs)
    return result


def _depends(value: Any) -> bool:
    """Whether a value, or one of several, depends on the pixels: they alone want gradients."""
    if isinstance(value, Tensor):
        return value.requires_grad
    return isinstance(value, (tuple, list)) and any(map(_depends, value))
