"""How faithful a relevance map is: deletion and insertion, joined into one score."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iekd.explain.about import DiagnosticAbout
from iekd.explain.maps import Faithfulness, RelevanceMaps
from iekd.explain.network import Batch, NetworkOrHalf

ABOUT = DiagnosticAbout(
    title="Faithfulness of the maps",
    shows="All pixels are blurred step by step, once from the most to the least relevant and once in the reverse "
    "order, and after each step the network says how probable the class still is.",
    reading="The score is the mean probability in the reverse order minus that in the map's order: 0 is no better than "
    "a random order, and higher is better.",
    reference="Petsiuk et al. 2018, RISE (deletion and insertion); their difference is the symmetric relevance gain of "
    "Blücher et al. 2024, Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI Benchmarks",
)
STEPS = 8
BLUR = 8  # the standard deviation of the blur is the image's side over this


def faithfulness(
    part: NetworkOrHalf, images: Batch, maps: RelevanceMaps, steps: int = STEPS, seed: int = 0
) -> Faithfulness:
    """Deletion and insertion of one part's maps. A half is evaluated with the other half's channels silenced.

    Args:
        images: (B,H,W,C) uint8, those of the maps.
        steps: an equal share of the pixels changes in each.
        seed: of the order of pixels that are equally relevant.
    """
    network = part.network
    ranks = _ranks(maps.maps, seed)  # (B,H*W), 0 is the most relevant
    chosen = np.array([network.card.class_names.index(name) for name in maps.explained])
    areas: list[np.ndarray] = []
    for batch in network.batches(len(images)):
        pixels = network.pixels(images[batch])
        blurred = blur(pixels)
        rank = torch.from_numpy(ranks[batch]).to(network.device).reshape(len(pixels), 1, *pixels.shape[2:])
        rows = torch.arange(len(pixels)), torch.from_numpy(chosen[batch])
        count = rank[0].numel()

        def probability(gone: Tensor) -> np.ndarray:
            """(B,) of the class where the pixels of `gone` (B,1,H,W) are blurred."""
            return part.probabilities(torch.where(gone, blurred, pixels)).cpu()[rows].numpy()  # noqa: B023

        ends = [probability(rank < 0), probability(rank >= 0)]
        inner = [round(count * i / steps) for i in range(1, steps)]
        first = [ends[0], *(probability(rank < gone) for gone in inner), ends[1]]
        last = [ends[0], *(probability(rank >= count - gone) for gone in inner), ends[1]]
        areas.append(np.stack([_area(curve) for curve in (first, last)]))
    deletion, insertion = np.concatenate(areas, 1)
    gains = insertion - deletion
    error = float(gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else 0.0
    return Faithfulness(float(deletion.mean()), float(insertion.mean()), float(gains.mean()), error)


def _area(curve: list[np.ndarray]) -> np.ndarray:
    """Mean height of a curve between its points, which are equally far apart."""
    heights = np.stack(curve)
    return np.asarray((heights[1:] + heights[:-1]).mean(0) / 2)


def blur(pixels: Tensor) -> Tensor:
    """(B,C,H,W), blurred so much that no detail is left; the edges are mirrored."""
    height, width = pixels.shape[2:]
    for side, shape in ((width, (1, 1, 1, -1)), (height, (1, 1, -1, 1))):
        deviation = max(side / BLUR, 1.0)
        radius = min(int(3 * deviation), side - 1)
        weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=pixels.device) / deviation) ** 2)
        kernel = (weights / weights.sum()).reshape(shape)
        margins = (radius, radius, 0, 0) if shape[3] == -1 else (0, 0, radius, radius)
        channels = pixels.shape[1]
        pixels = F.conv2d(
            F.pad(pixels, margins, mode="reflect"), kernel.expand(channels, 1, *kernel.shape[2:]), groups=channels
        )
    return pixels


def _ranks(maps: np.ndarray, seed: int) -> np.ndarray:
    """(B,H,W) -> (B,H*W), each pixel's place from the most to the least relevant; equals are in random order."""
    flat = maps.reshape(len(maps), -1)
    order = np.lexsort((np.random.default_rng(seed).random(flat.shape), -flat), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks
