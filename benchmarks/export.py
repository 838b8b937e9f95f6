"""How far exported files are from the networks they were made from: `python benchmarks/export.py`.

Of each network: the largest difference of a probability between torch and onnxruntime over 1,000 test images, and size
and accuracy with 8 bits. First the shipped networks, with their accuracy on all test images; then one of every family,
trained for a moment so that its batch norms have seen images, with its accuracy on those 1,000.
Sizes and differences do not depend on what else the machine does. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from iekd.data import Dataset, load
from iekd.export import Certificate, export_model
from iekd.export.check import COMPARED, spread_over
from iekd.models.artifact import ModelCard, save_model
from iekd.models.normalise import Normalise
from iekd.models.registry import build
from iekd.models.shipped import shipped_models
from iekd.paths import checkpoints_dir

SAMPLE = "fashion-mnist-sample"
FAMILIES = ("resnet20", "wrn-16-2", "vgg8", "mobilenet-v2", "shufflenet-v1", "shufflenet-v2", "resnet18")


def trained(name: str, dataset: Dataset, steps: int, folder: Path) -> Path:
    """A network after so many steps on training images: its answers are sure enough for errors to show."""
    torch.manual_seed(0)
    mean, std = dataset.statistics
    network, normalise = build(name, len(dataset.class_names), dataset.channels).train(), Normalise(mean, std)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        rows = rng.integers(0, len(dataset.train), 128)
        pixels = normalise(torch.from_numpy(dataset.train.images[rows].transpose(0, 3, 1, 2).copy()))
        loss = torch.nn.functional.cross_entropy(network(pixels).logits, torch.from_numpy(dataset.train.labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    card = ModelCard(
        model=name, datasets=(dataset.name,), class_names=dataset.class_names, channels=dataset.channels,
        resolution=dataset.resolution, mean=mean, std=std, accuracy=None,
        params=sum(p.numel() for p in network.parameters()),
    )  # fmt: skip
    save_model(folder, network, card)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="training steps of each network")
    parser.add_argument("--side", type=int, default=28, help="pixels of the images' sides")
    asked = parser.parse_args()
    dataset = load(SAMPLE, resolution=asked.side)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)

        def exported(folder: Path, format_name: str, test: Dataset) -> Certificate:
            return export_model(folder, format_name, root / f"{folder.name}-{format_name}", dataset=test, force=True)

        row("network", "parameters", "largest difference", "images", "ONNX", "int8", "ratio", "right", "right in int8")
        row(*["---"] * 9)
        some = replace(dataset, test=dataset.test.take(spread_over(len(dataset.test), COMPARED)))
        shipped = shipped_models() if asked.side == 28 else {}
        for name in (*shipped, *FAMILIES):
            if name in shipped:
                folder, test = checkpoints_dir() / name, dataset
            else:
                folder, test = trained(name, dataset, asked.steps, root / name), some
            plain, small = exported(folder, "onnx", test), exported(folder, "int8", test)
            row(folder.name, f"{plain.params:,}", f"{plain.difference:.1e}", f"{plain.compared_images:,}",
                f"{plain.bytes / 1e6:.2f} MB", f"{small.bytes / 1e6:.2f} MB", f"{small.bytes / plain.bytes:.3f}",
                f"{plain.accuracy:.2f}", f"{small.accuracy:.2f}")  # fmt: skip


def row(*cells: str) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
