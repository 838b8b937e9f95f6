"""The number of active neurons, one of the IE-KD paper's diagnostics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from iekd.explain.about import DiagnosticAbout, NotApplicableError
from iekd.explain.network import Batch, Network

ABOUT = DiagnosticAbout(
    title="Active neurons",
    shows="A neuron is one value of a stage's feature map, and it is active for an image if its ReLU lets it through.",
    reading="A larger share means that more of the network works on each image, and a channel that is silent for all "
    "images does nothing.",
    reference="Huang et al. 2021, Revisiting Knowledge Distillation: An Inheritance and Exploration Framework, which "
    "counts active neurons; the definition is ours",
)


@dataclass(frozen=True)
class ActiveNeurons:
    """Of one stage of a network, or of a half of it.

    stage: counted from the end, -1 is the last. name: the network, with its half such as "ie-ft inheritance".
    neurons: values of the feature map. active: how many are above 0, mean over the images. share: active / neurons.
    channels, silent_channels: how many there are, and how many are 0 everywhere in all images.
    """

    stage: int
    name: str
    neurons: int
    active: float
    share: float
    channels: int
    silent_channels: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def active_neurons(network: Network, images: Batch) -> list[ActiveNeurons]:
    """Of every stage that ends in a ReLU, the last first: the network, and its halves where the stage is split.

    Args:
        images: (B,H,W,C) uint8.
    Raises:
        NotApplicableError: it gives no feature maps, or no stage ends in a ReLU.
    """
    network.need_maps()
    counts: list[Tensor] = [torch.zeros(width, dtype=torch.float64) for width in network.widths]
    lowest, sizes = [0.0] * len(counts), [shape[1] * shape[2] for shape in network.shapes]
    with torch.inference_mode():
        for batch in network.batches(len(images)):
            for i, values in enumerate(network.forward(network.pixels(images[batch])).stages):
                counts[i] += (values > 0).sum((0, 2, 3)).cpu()
                lowest[i] = min(lowest[i], float(values.min()))
    found = []
    for stage in range(-1, -len(counts) - 1, -1):
        if lowest[stage] < 0:
            continue  # no ReLU: every neuron is always active
        chosen = {network.name: torch.arange(len(counts[stage]))}
        for half, channels in network.halves.items():
            if -stage <= len(channels) and len(channels[stage]):
                chosen[f"{network.name} {half}"] = channels[stage].cpu()
        for name, rows in chosen.items():
            own, neurons = counts[stage][rows], len(rows) * sizes[stage]
            active = float(own.sum()) / len(images)
            found.append(
                ActiveNeurons(stage, name, neurons, active, active / neurons, len(rows), int((own == 0).sum()))
            )
    if not found:
        raise NotApplicableError(f"No stage of '{network.name}' ends in a ReLU, so its neurons are never inactive.")
    return found
