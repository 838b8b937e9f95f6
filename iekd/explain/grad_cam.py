"""Grad-CAM maps of a network and of its halves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from iekd.explain.about import DiagnosticAbout, NotApplicableError
from iekd.explain.maps import RelevanceMaps
from iekd.explain.network import Batch, NetworkOrHalf

ABOUT = DiagnosticAbout(
    title="Grad-CAM maps",
    shows="Grad-CAM adds up the channels of the last stage, each weighted by how much the score of the predicted class "
    "grows with it, and enlarges the sum to the image's size.",
    reading="Red areas raise the score of the class; the map is as coarse as the last stage, so it tells regions, not "
    "pixels.",
    reference="Selvaraju et al. 2017, Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
)


def grad_cam(parts: Sequence[NetworkOrHalf], images: Batch) -> list[RelevanceMaps]:
    """The maps of parts of one network, for the class that the whole network predicts.

    Args:
        parts: the network, its halves, or all of them.
        images: (B,H,W,C) uint8.
    Raises:
        NotApplicableError: it gives no feature maps, or its predictions are not computed from the last one.
    """
    network = parts[0].network
    network.need_maps()
    maps: dict[str, list[np.ndarray]] = {part.half: [] for part in parts}
    classes: list[int] = []
    for batch in network.batches(len(images)):
        pixels = network.pixels(images[batch]).requires_grad_()
        features = network.forward(pixels)
        chosen = features.logits.argmax(1)
        classes += chosen.tolist()
        score = features.logits.gather(1, chosen[:, None]).sum()
        last = features.stages[-1]  # (B,c,h,w)
        (gradient,) = torch.autograd.grad(score, last, allow_unused=True)
        if gradient is None:  # such as tokens that were arranged as a map only for others to look at
            raise NotApplicableError(
                f"Grad-CAM cannot be computed for '{network.name}': its predictions do not go through the feature map "
                "of its last stage."
            )
        weighted = gradient.mean((2, 3), keepdim=True) * last.detach()
        for part in parts:
            cam = F.relu((weighted * part.mask()[:, None, None]).sum(1, keepdim=True))
            cam = F.interpolate(cam, size=pixels.shape[2:], mode="bilinear", align_corners=False)
            maps[part.half].append(cam[:, 0].cpu().numpy())
    names = tuple(network.card.class_names[k] for k in classes)
    return [
        RelevanceMaps("grad-cam", network.name, part.half, names, np.concatenate(maps[part.half])) for part in parts
    ]
