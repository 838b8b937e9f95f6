"""What each half of an IE student is worth: its accuracy when the other half's channels are silenced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from iekd.engine.scoring import accuracy, interval, is_right, predicted
from iekd.explain.about import DiagnosticAbout, NotApplicableError
from iekd.explain.network import EXPLORATION, INHERITANCE, Batch, Network, NetworkOrHalf

ABOUT = DiagnosticAbout(
    title="What each half is worth",
    shows="The channels of one half are set to 0 before the linear layer, and the other half predicts alone.",
    reading="A half that is nearly as accurate as the whole network has learned most of the task by itself; the same "
    "channels of the plain student show what that number of channels reaches without IE-KD.",
    reference="Huang et al. 2021 for the halves; silencing channels is the usual ablation (Morcos et al. 2018, On the "
    "Importance of Single Directions for Generalization)",
)


@dataclass(frozen=True)
class HalvesWorth:
    """Percent right on the same images: with all channels, and with those of one half alone.

    network: whose channels. split_of: the IE student whose split was used; another network's for comparison.
    intervals: 95 % intervals of the three accuracies (Wilson), in their order.
    """

    network: str
    split_of: str
    images: int
    whole: float
    inheritance: float
    exploration: float
    intervals: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def halves_worth(
    network: Network, images: Batch, labels: np.ndarray, others: Sequence[Network] = ()
) -> list[HalvesWorth]:
    """The halves of an IE student, and for comparison the same channels of others with as many of them.

    Args:
        images: (B,H,W,C) uint8. labels: (B,) int64.
        others: such as the plain student; those whose last stage is of another width are left out.
    Raises:
        NotApplicableError: the network has no halves.
    """
    if not network.halves:
        raise NotApplicableError(network.no_halves)
    same = [other for other in others if _comparable(other, network)]
    return [_worth(network, network, images, labels), *(_worth(other, network, images, labels) for other in same)]


def _comparable(other: Network, network: Network) -> bool:
    try:
        return other.head[0].shape == network.head[0].shape and not other.halves
    except NotApplicableError:
        return False


def _worth(network: Network, split_of: Network, images: Batch, labels: np.ndarray) -> HalvesWorth:
    weight, bias = network.head
    masks = [torch.ones_like(bias[:1]), *(NetworkOrHalf(split_of, half).mask() for half in (INHERITANCE, EXPLORATION))]
    right: list[list[np.ndarray]] = [[] for _ in masks]
    with torch.inference_mode():
        for batch in network.batches(len(images)):
            pooled = network.forward(network.pixels(images[batch])).pooled  # (B,c)
            for found, mask in zip(right, masks, strict=True):
                answers = predicted((pooled * mask) @ weight.T + bias).cpu().numpy()
                found.append(is_right(answers, labels[batch]))
    rows = [np.concatenate(found) for found in right]
    whole, inheritance, exploration = (accuracy(row) for row in rows)
    intervals = tuple(interval(int(row.sum()), len(row)) for row in rows)
    return HalvesWorth(network.name, split_of.name, len(labels), whole, inheritance, exploration, intervals)
