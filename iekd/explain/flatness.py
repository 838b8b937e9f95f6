"""How flat the loss is around a network's weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iekd.engine.scoring import is_right, percent, predicted
from iekd.explain.about import DiagnosticAbout
from iekd.explain.network import Batch, Network

ABOUT = DiagnosticAbout(
    title="Flatness",
    shows="Gaussian noise is added to the weights, scaled so that a filter's noise is a share of the filter's own "
    "size, and the loss on fixed images is measured again.",
    reading="A loss that grows slowly means a flat minimum, and filter normalisation makes networks of different scale "
    "comparable.",
    reference="Li et al. 2018, Visualizing the Loss Landscape of Neural Nets (filter normalisation)",
)
LEVELS = (0.0, 0.1, 0.2, 0.4)
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Flatness:
    """Of one network.

    levels: noise as a share of each filter's norm; the first is 0, without noise.
    losses: per seed the cross-entropy at each level. mean, deviation: of the losses over the seeds, per level.
    accuracy: percent right at each level, mean over the seeds. images: how many.
    """

    network: str
    images: int
    levels: tuple[float, ...]
    seeds: tuple[int, ...]
    losses: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    accuracy: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def flatness(
    network: Network, images: Batch, labels: np.ndarray, levels: Sequence[float] = LEVELS, seeds: Sequence[int] = SEEDS
) -> Flatness:
    """The loss under growing noise. A seed draws one direction, along which the levels are steps.

    Batch norms and biases stay as they are, statistics included.

    Args:
        images: (B,H,W,C) uint8. labels: (B,) int64.
    """
    pixels, truth = network.pixels(images), torch.from_numpy(labels).to(network.device)
    noisy = Network(network.name, copy.deepcopy(network.model), network.card, network.device)
    weights = {name: p for name, p in noisy.model.named_parameters() if p.dim() > 1}
    originals = {name: p.clone() for name, p in weights.items()}
    plain = _measure(noisy, pixels, truth)
    losses, right = np.zeros((len(seeds), len(levels))), np.zeros((len(seeds), len(levels)))
    for i, seed in enumerate(seeds):
        noise = directions(originals, seed)
        for j, level in enumerate(levels):
            if level:
                for name, weight in weights.items():
                    weight.copy_(originals[name] + level * noise[name])
            losses[i, j], right[i, j] = _measure(noisy, pixels, truth) if level else plain
    deviation = losses.std(0, ddof=1) if len(seeds) > 1 else np.zeros(len(levels))
    return Flatness(
        network.name, len(images), tuple(levels), tuple(seeds), tuple(tuple(row) for row in losses.tolist()),
        tuple(losses.mean(0).tolist()), tuple(deviation.tolist()), tuple(right.mean(0).tolist()),
    )  # fmt: skip


def directions(weights: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Gaussian noise in the shape of each weight; each filter (the first dimension) has the norm of the weight's."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, weight in weights.items():
        noise = torch.randn(weight.shape, generator=generator).to(weight.device)
        filters = (len(weight), *(1,) * (weight.dim() - 1))
        scale = weight.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
        found[name] = noise * scale.reshape(filters)
    return found


def _measure(network: Network, pixels: Tensor, labels: Tensor) -> tuple[float, float]:
    """(mean cross-entropy, percent right)."""
    logits = []
    with torch.inference_mode():
        for batch in network.batches(len(pixels)):
            logits.append(network.forward(pixels[batch]).logits)
        scores = torch.cat(logits).float()
        loss = float(F.cross_entropy(scores, labels))
        return loss, percent(int(is_right(predicted(scores), labels).sum()), len(labels))
