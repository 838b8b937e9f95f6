"""The dataset that ships with the package: a sample of Fashion-MNIST."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from iekd.data.base import Dataset, DatasetInfo, Request, Source, Split

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SAMPLE = "fashion-mnist-sample"
BUNDLED = Path(__file__).parent / "bundled" / f"{SAMPLE}.npz"


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
        return _bundled().resized(request.resolution)


@lru_cache(maxsize=1)
def _bundled() -> Dataset:
    with np.load(BUNDLED) as stored:
        train = Split(stored["train_images"], stored["train_labels"].astype(np.int64))
        test = Split(stored["test_images"], stored["test_labels"].astype(np.int64))
    return Dataset(SAMPLE, FASHION_CLASSES, train, test)
