"""Centred kernel alignment: how alike two networks' features are, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iekd.explain.about import DiagnosticAbout, NotApplicableError
from iekd.explain.network import Batch, Network

ABOUT = DiagnosticAbout(
    title="CKA",
    shows="Linear CKA compares two feature maps by which images they find alike, whatever their number of channels.",
    reading="1 means the same up to a rotation and a scale and 0 means unrelated, so the inheritance half should be "
    "closer to the teacher than the exploration half.",
    reference="Kornblith et al. 2019, Similarity of Neural Network Representations Revisited; with the unbiased "
    "estimate of HSIC (Song et al. 2012; Nguyen et al. 2021)",
)
LEAST = 4  # for the unbiased estimate
IMAGES = 256  # the matrices of similarities are IMAGES x IMAGES
MEMORY = 2**29  # bytes that the features of one network may take; fewer images are used where it would be more
COLUMNS = 4096  # features that are multiplied at a time in float64


@dataclass(frozen=True)
class StageSimilarity:
    """The similarities at one stage.

    stage: counted from the end, -1 is the last. images: how many the features are of.
    names: networks, and halves such as "ie-ft inheritance".
    values: values[i][j] is the CKA of names[i] and names[j]; None where one of them is the same for all images.
    """

    stage: int
    images: int
    names: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def similarity(networks: Sequence[Network], images: Batch) -> list[StageSimilarity]:
    """CKA between all networks and halves, at as many stages as all of them have: the last stage first. Networks
    without feature maps are left out.

    Args:
        images: (B,H,W,C) uint8; no more than 256 are used.
    Raises:
        NotApplicableError: no network gives feature maps, or there are fewer than 4 images.
    """
    if len(images) < LEAST:
        raise NotApplicableError(f"CKA needs at least {LEAST} images, and there are {len(images)}.")
    networks = [network for network in networks if network.shapes]
    if not networks:
        raise NotApplicableError("None of these networks gives feature maps.")
    images = images[: min(IMAGES, max(LEAST, MEMORY // max(map(_bytes_per_image, networks))))]
    grams: dict[int, dict[str, Tensor]] = {}
    for network in networks:
        for stage, of_stage in _grams(network, images).items():
            grams.setdefault(stage, {}).update(of_stage)
    found = []
    for stage in range(-1, -min(len(network.widths) for network in networks) - 1, -1):
        matrices = grams[stage].values()
        values = tuple(tuple(cka_of_grams(a, b) for b in matrices) for a in matrices)
        found.append(StageSimilarity(stage, len(images), tuple(grams[stage]), values))
    return found


def cka(x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> float | None:
    """Linear CKA of features (N,p) and (N,q) of the same N images, N >= 4; the estimate can be a little below 0.

    Returns:
        None where one of them is the same for all images.
    """
    return cka_of_grams(_gram(torch.as_tensor(x)), _gram(torch.as_tensor(y)))


def cka_of_grams(k: Tensor, m: Tensor) -> float | None:
    """CKA of two (N,N) matrices of inner products."""
    own = _hsic(k, k) * _hsic(m, m)
    return _hsic(k, m) / own**0.5 if own > 0 else None


def _gram(features: Tensor) -> Tensor:
    """(N,p) -> (N,N) float64, inner products of the centred features."""
    gram = torch.zeros(len(features), len(features), dtype=torch.float64, device="cpu")
    for columns in torch.split(features, COLUMNS, 1):
        centred = columns.cpu().double()
        centred = centred - centred.mean(0)
        gram += centred @ centred.T
    return gram


def _hsic(k: Tensor, m: Tensor) -> float:
    """The unbiased estimate of HSIC of Song et al. 2012, equation 5, times n (n - 3)."""
    n = len(k)
    k, m = (matrix - matrix.diag().diag() for matrix in (k, m))
    trace = (k * m).sum()
    sums = k.sum() * m.sum() / ((n - 1) * (n - 2))
    return float(trace + sums - 2 / (n - 2) * (k.sum(0) @ m.sum(0)))


def _grams(network: Network, images: Batch) -> dict[int, dict[str, Tensor]]:
    """stage -> name -> inner products, for a network and for its halves where the stage is split."""
    features: list[list[Tensor]] = [[] for _ in network.widths]
    with torch.inference_mode():
        for batch in network.batches(len(images)):
            for found, values in zip(features, network.forward(network.pixels(images[batch])).stages, strict=True):
                found.append(values.float())
    grams: dict[int, dict[str, Tensor]] = {}
    for stage in range(-1, -len(features) - 1, -1):
        whole = torch.cat(features.pop())  # (N,c,h,w)
        grams[stage] = {network.name: _gram(whole.flatten(1))}
        for half, channels in network.halves.items():
            if -stage <= len(channels) and len(channels[stage]):
                grams[stage][f"{network.name} {half}"] = _gram(whole[:, channels[stage]].flatten(1))
    return grams


def _bytes_per_image(network: Network) -> int:
    return 4 * sum(stage.numel() for stage in network.shapes)
