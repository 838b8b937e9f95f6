"""Batch norms folded into convolutions by watching a forward pass, for networks whose code torch.fx cannot follow:
timm's `tf_` networks and VGGs, and whatever else decides by its values."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves

CLOSE = 1e-3  # of the largest value of an output: what rounding may change


def fold(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy in evaluation mode in which each batch norm that normalises one convolution's output, and nothing else,
    is part of that convolution.

    Args:
        images: (B,C,H,W) float, of the size that the network will see; its outputs for them are compared.
    Raises:
        ValueError: the outputs would change, as where something else reads a convolution's output too.
    """
    plain = copy.deepcopy(network).eval().requires_grad_(False)
    images = images.to(next(plain.parameters()))
    pairs = _pairs(plain, images)
    folded = copy.deepcopy(plain)
    for convolution, norm in pairs:
        made, after = folded.get_submodule(convolution), folded.get_submodule(norm)
        assert isinstance(made, nn.Conv2d)
        assert isinstance(after, nn.BatchNorm2d)
        folded.set_submodule(convolution, fuse_conv_bn_eval(made, after))
        folded.set_submodule(norm, _rest(after))
    with torch.no_grad():
        outputs = ([leaf for leaf in tree_leaves(one(images)) if isinstance(leaf, Tensor)] for one in (plain, folded))
        for before, now in zip(*outputs, strict=True):
            if not torch.allclose(now, before, rtol=CLOSE, atol=CLOSE * float(before.abs().max())):
                raise ValueError("the network's outputs would change")
    return folded


def _pairs(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """(convolution, batch norm) by name, where the first one's output is the other's input; each is used once."""
    outputs: dict[int, tuple[str, Tensor]] = {}  # by id; keeping the tensor keeps its id from another
    calls: Counter[str] = Counter()
    found: list[tuple[str, str]] = []

    def after_convolution(name: str, output: Tensor) -> None:
        calls[name] += 1
        outputs[id(output)] = (name, output)

    def before_norm(name: str, given: Tensor) -> None:
        calls[name] += 1
        if id(given) in outputs:
            found.append((outputs[id(given)][0], name))

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda _m, _i, out, name=name: after_convolution(name, out)))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(lambda _m, given, name=name: before_norm(name, given[0])))
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    of_one = Counter(convolution for convolution, _ in found)
    return [pair for pair in found if calls[pair[0]] == calls[pair[1]] == of_one[pair[0]] == 1]


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What a batch norm does beside normalising: timm's have an activation."""
    return nn.Sequential(*(module for module in norm.children()))
