"""LRP maps of a network and of its halves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from iekd.engine.accelerate import whole_float32
from iekd.explain.about import DiagnosticAbout, NotApplicableError
from iekd.explain.lrp_rules import RelevanceMode
from iekd.explain.maps import Conservation, RelevanceMaps
from iekd.explain.network import Batch, Network, NetworkOrHalf
from iekd.models.features import Features

ABOUT = DiagnosticAbout(
    title="LRP maps",
    shows="Layer-wise relevance propagation hands the score of the predicted class back layer by layer, until the "
    "pixels and the biases have all of it.",
    reading="Red pixels speak for the class and blue ones against it, and the maps of the two halves add up to the map "
    "of the whole network.",
    reference="Bach et al. 2015, PLoS ONE 10(7); rules as in Kohlbrenner et al. 2020, Towards Best Practice in "
    "Explaining Neural Network Decisions with LRP",
)

TOLERANCE = 1e-3  # of logits that are computed in another order


def lrp(parts: Sequence[NetworkOrHalf], images: Batch) -> list[RelevanceMaps]:
    """The maps of parts of one network, for the class that the whole network predicts.

    Args:
        parts: the network, its halves, or all of them.
        images: (B,H,W,C) uint8.
    Raises:
        NotApplicableError: the network computes something that there is no rule for.
    """
    network = parts[0].network
    maps: dict[str, list[np.ndarray]] = {part.half: [] for part in parts}
    sums: dict[str, list[Tensor]] = {part.half: [] for part in parts}
    classes: list[int] = []
    for batch in network.batches(len(images)):
        pixels = network.pixels(images[batch]).requires_grad_()
        mode = RelevanceMode(pixels, *_black_and_white(network, pixels.shape[1]))
        with mode:
            features = network.forward(pixels)
        with torch.no_grad():
            logits = network.forward(pixels).logits
        if not torch.allclose(features.logits, logits, rtol=TOLERANCE, atol=TOLERANCE):
            raise NotApplicableError(
                f"LRP cannot follow '{network.name}': watched function by function, it predicts something else. That "
                "happens where a function changes a tensor in place and its result is not used."
            )
        chosen = logits.argmax(1)
        classes += chosen.tolist()
        for part in parts:
            mode.biases = torch.zeros_like(mode.biases)
            start, relevance = _start(part, features, chosen)
            with whole_float32(network.device, torch.float32):
                (found,) = torch.autograd.grad(start, pixels, relevance, retain_graph=True)
            maps[part.half].append(found.sum(1).cpu().numpy())
            sums[part.half].append(torch.stack([relevance.sum(1), found.sum((1, 2, 3)), mode.biases]).cpu().double())
    names = tuple(network.card.class_names[k] for k in classes)
    return [
        RelevanceMaps(
            "lrp", network.name, part.half, names, np.concatenate(maps[part.half]),
            conservation=_conservation(torch.cat(sums[part.half], 1)),
        )
        for part in parts
    ]  # fmt: skip


def _black_and_white(network: Network, channels: int) -> tuple[Tensor, Tensor]:
    """(C,1,1) each: the lowest and highest pixel values as the network takes them."""
    edges = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1).repeat(channels, 3)
    black, white = network.pixels(edges)
    return black, white


def _start(part: NetworkOrHalf, features: Features, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """(where relevance starts, how much there is): the class's logit, or what a half's channels contribute to it."""
    if not part.half:
        rows = torch.nn.functional.one_hot(chosen, features.logits.shape[1])
        return features.logits, features.logits.detach() * rows
    weight, _ = part.network.head
    return features.pooled, features.pooled.detach() * weight[chosen] * part.mask()


def _conservation(sums: Tensor) -> Conservation:
    """Of (3,B): each image's relevance at the outputs, at the pixels and in the biases."""
    given, pixels, biases = sums
    total, size = float(given.sum()) or 1.0, float(given.abs().sum()) or 1.0
    lost = float((given - pixels - biases).abs().sum()) / size
    return Conservation(float(pixels.sum()) / total, float(biases.sum()) / total, lost)
