"""The contract between networks and methods."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Features(NamedTuple):
    """What a classifier returns for images (B,C,H,W).

    logits: (B,K) unnormalised scores of K classes.
    stages: one (B,c_i,h_i,w_i) per stage end, after the activation; the last is the input of the pooling, unless a
        library's network widens between the two. () for a network without maps: methods that compare them refuse it.
    pre_activations: the same stage ends before the activation (Heo et al. 2019 distil these). Where the activation is
        a ReLU, a stage is the ReLU of its pre-activation; where there is none (a linear bottleneck), it equals it.
        None for a network that does not give them; od and ie-od then refuse it, all other methods work.
    pooled: (B,c) input of the classifier: the last stage's mean over its pixels, unless the network has more layers
        between the two.
    """

    logits: Tensor
    stages: tuple[Tensor, ...]
    pre_activations: tuple[Tensor, ...] | None
    pooled: Tensor


class Classifier(nn.Module):
    """A network of this package: images (B,C,H,W) -> Features. Registered ones may be any nn.Module that does the same.

    Any number of classes from two, any square image of 8 pixels a side or more. A stage of stride s has a side of H/s,
    rounded up.
    """

    @property
    def stage_norms(self) -> list[nn.BatchNorm2d] | None:
        """Per stage, the batch norm whose output is, or is the last to be added into, its pre-activation.

        None where that is not one batch norm (concatenated branches). Heo et al. 2019 take their margins from these.
        A frozen network (`engine.accelerate.freeze`) has none left: ask the network it was made from.
        """
        return None
