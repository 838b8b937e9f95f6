"""The datasets that ship with the package: samples of Fashion-MNIST and of CIFAR-10."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from iekd.data.base import Dataset, DatasetInfo, Request, Source, Split

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SAMPLE = "fashion-mnist-sample"
COLOUR_SAMPLE = "cifar10-sample"
CIFAR10_AS_JPEG = "cifar10-jpeg"  # what the sample is of, as cards of networks name it; nobody can load it by that name
BUNDLED = Path(__file__).parent / "bundled"


class FashionSample(Source):
    """1,000 training images per class and the full test set of Fashion-MNIST (Xiao et al. 2017, MIT licence)."""

    name = SAMPLE
    resolution = 28

    def describe(self, name: str, test_fraction: float) -> DatasetInfo:
        return DatasetInfo(
            SAMPLE, "Fashion-MNIST, 10,000 images", 10_000, 10_000, 10, 1, self.resolution,
            "shipped, no download", "fashion-mnist", class_names=FASHION_CLASSES,
        )  # fmt: skip

    def load(self, request: Request) -> Dataset:
        return _fashion().resized(request.resolution)


class CifarSample(Source):
    """200 training and 100 test images per class of CIFAR-10 (Krizhevsky 2009), from a copy in JPEG files.

    JPEG makes it harder than the original, and there is little to learn from: it is something in colour that needs no
    download.
    """

    name = COLOUR_SAMPLE

    def describe(self, name: str, test_fraction: float) -> DatasetInfo:
        return DatasetInfo(
            COLOUR_SAMPLE, "CIFAR-10, 2,000 images", 2000, 1000, 10, 3, self.resolution, "shipped, no download",
            CIFAR10_AS_JPEG, class_names=CIFAR10_CLASSES,
        )  # fmt: skip

    def load(self, request: Request) -> Dataset:
        return _cifar().resized(request.resolution)


@lru_cache(maxsize=1)
def _fashion() -> Dataset:
    with np.load(BUNDLED / f"{SAMPLE}.npz") as stored:
        train = Split(stored["train_images"], stored["train_labels"].astype(np.int64))
        test = Split(stored["test_images"], stored["test_labels"].astype(np.int64))
    return Dataset(SAMPLE, FASHION_CLASSES, train, test)


@lru_cache(maxsize=1)
def _cifar() -> Dataset:
    with np.load(BUNDLED / f"{COLOUR_SAMPLE}.npz") as stored:
        train, test = (
            Split(_decoded(stored[f"{part}_files"], stored[f"{part}_sizes"]), stored[f"{part}_labels"].astype(np.int64))
            for part in ("train", "test")
        )
    return Dataset(COLOUR_SAMPLE, CIFAR10_CLASSES, train, test)


def _decoded(files: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N,H,W,3) uint8 of N files of `sizes` bytes that follow each other."""
    contents = np.split(files, np.cumsum(sizes)[:-1])
    return np.stack([np.asarray(Image.open(io.BytesIO(content.tobytes())).convert("RGB")) for content in contents])
