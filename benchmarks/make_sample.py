"""Rebuild iekd/data/bundled/fashion-mnist-sample.npz from the original Fashion-MNIST files.

    python benchmarks/make_sample.py /usr/share/datasets/fashion-mnist

Takes the first 1,000 training images of each class, in the order of the original file, and all 10,000 test images.
The folder holds the four original `*-ubyte.gz` files (Debian: package dataset-fashion-mnist).
"""

import gzip
import sys
from pathlib import Path

import numpy as np

PER_CLASS = 1000
OUT = Path(__file__).parents[1] / "iekd/data/bundled/fashion-mnist-sample.npz"


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N,28,28,1) uint8 and labels (N,) uint8 of one original part ("train" or "t10k")."""
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1),
        np.frombuffer(labels, np.uint8, offset=8),
    )


def main(folder: Path) -> None:
    images, labels = read(folder, "train")
    first_of_each_class = np.sort(np.concatenate([np.flatnonzero(labels == k)[:PER_CLASS] for k in range(10)]))
    test_images, test_labels = read(folder, "t10k")
    np.savez_compressed(
        OUT,
        train_images=images[first_of_each_class],
        train_labels=labels[first_of_each_class],
        test_images=test_images,
        test_labels=test_labels,
    )
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
