"""The contract between networks and methods."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """What a classifier returns for images (B,C,H,W).

    logits: (B,K) unnormalised scores of K classes.
    stages: one (B,c_i,h_i,w_i) per stage end, after the activation; the last is the input of the pooling.
    pre_activations: the same stage ends before the activation (Heo et al. 2019 distil these).
    pooled: (B,c) input of the classifier.
    """

    logits: Tensor
    stages: tuple[Tensor, ...]
    pre_activations: tuple[Tensor, ...]
    pooled: Tensor
