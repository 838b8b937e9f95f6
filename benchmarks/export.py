"""How far exported files are from the networks they were made from: `python benchmarks/export.py`.

Of each network: the largest difference of a probability between torch and onnxruntime over 1,000 test images, and the
size as ONNX and with 8 bits. First the shipped networks, with the accuracy of both files on all test images; then one
of every family that is not trained: its batch norms have seen training images, and its last layer is scaled until its
logits are as far apart as those of a trained network, because probabilities that are all alike would hide every error.
Accuracy means nothing there and is left out. Sizes and differences do not depend on what else the machine does. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from iekd.data import Dataset, load
from iekd.engine.scoring import accuracy, is_right, predicted
from iekd.export.base import ExportJob
from iekd.export.check import COMPARED, probabilities, spread_over
from iekd.export.int8 import CALIBRATION, quantised
from iekd.export.onnx_file import graph_of, open_session, save_graph
from iekd.export.program import PixelsToProbabilities, torch_answer
from iekd.models.artifact import ModelCard, load_model
from iekd.models.normalise import Normalise
from iekd.models.registry import build
from iekd.models.shipped import shipped_models
from iekd.paths import checkpoints_dir

SAMPLE = "fashion-mnist-sample"
FAMILIES = (
    "resnet20", "wrn-16-2", "vgg8-crd", "mobilenet-v2-crd", "shufflenet-v1-crd", "shufflenet-v2-crd", "resnet18-cifar",
)  # fmt: skip
BATCHES, BATCH = 4, 128  # of training images for batch norms and logits
LOGIT_SPREAD = 4.0  # standard deviation; of the shipped networks 3.7 to 3.9 on test images


@torch.no_grad()
def untrained(name: str, dataset: Dataset) -> tuple[nn.Module, ModelCard]:
    torch.manual_seed(0)
    mean, std = dataset.statistics
    network, normalise = build(name, len(dataset.class_names), dataset.channels), Normalise(mean, std)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    rows = np.random.default_rng(0).permutation(len(dataset.train))[: BATCHES * BATCH]
    batches = [normalise(torch.from_numpy(dataset.train.images[some].transpose(0, 3, 1, 2).copy()))
               for some in np.split(rows, BATCHES)]  # fmt: skip
    for pixels in batches:
        network.train()(pixels)
    logits = torch.cat([network.eval()(pixels).logits for pixels in batches])
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    for parameter in last.parameters():
        parameter.mul_(LOGIT_SPREAD / logits.std())
    card = ModelCard(
        model=name, datasets=(dataset.name,), class_names=dataset.class_names, channels=dataset.channels,
        resolution=dataset.resolution, mean=mean, std=std, accuracy=None,
        params=sum(p.numel() for p in network.parameters()),
    )  # fmt: skip
    return network, card


def networks(dataset: Dataset, side: int) -> Iterator[tuple[str, nn.Module, ModelCard, bool]]:
    """(name, network, card, whether it is trained)."""
    for name in shipped_models() if side == 28 else ():
        yield name, *load_model(checkpoints_dir() / name), True
    for name in FAMILIES:
        yield name, *untrained(name, dataset), False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=28, help="pixels of the images' sides")
    asked = parser.parse_args()
    dataset = load(SAMPLE, resolution=asked.side)
    compared = dataset.test.take(spread_over(len(dataset.test), COMPARED)).images
    calibration = dataset.train.images[spread_over(len(dataset.train), CALIBRATION)]
    row("network", "parameters", "largest difference", "ONNX", "accuracy", "int8", "int8 / ONNX", "accuracy")
    row(*["---"] * 8)
    with tempfile.TemporaryDirectory() as place:
        plain, small = Path(place, "plain.onnx"), Path(place, "int8.onnx")
        for name, network, card, is_trained in networks(dataset, asked.side):
            job = ExportJob(Path(place), network, card, dataset, "", {}, lambda _: None)
            graph = graph_of(job)
            save_graph(graph, job, plain)
            save_graph(quantised(graph, calibration), job, small)
            original = probabilities(torch_answer(PixelsToProbabilities(network, card).eval()), compared)
            difference = abs(probabilities(open_session(plain, 1), compared) - original).max()
            right = [right_percent(path, dataset) if is_trained else "" for path in (plain, small)]
            sizes = [path.stat().st_size for path in (plain, small)]
            row(name, f"{card.params:,}", f"{difference:.1e}", f"{sizes[0] / 1e6:.2f} MB", right[0],
                f"{sizes[1] / 1e6:.2f} MB", f"{sizes[1] / sizes[0]:.3f}", right[1])  # fmt: skip


def right_percent(path: Path, dataset: Dataset) -> str:
    right = is_right(predicted(probabilities(open_session(path, 1), dataset.test.images)), dataset.test.labels)
    return f"{accuracy(right):.2f}"


def row(*cells: str) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
