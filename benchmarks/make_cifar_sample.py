"""Rebuild iekd/data/bundled/cifar10-sample.npz from class folders of CIFAR-10 as JPEG files.

    python benchmarks/make_cifar_sample.py FOLDER

FOLDER holds train/<class>/NNNN.jpg and test/<class>/NNNN.jpg. Takes the first 200 training images and the first 100
test images of each class, number by number, so that the classes take turns.
"""

import sys
from pathlib import Path

import numpy as np

PER_CLASS = {"train": 200, "test": 100}
OUT = Path(__file__).parents[1] / "iekd/data/bundled/cifar10-sample.npz"


def main(folder: Path) -> None:
    parts = {}
    for part, count in PER_CLASS.items():
        classes = sorted(path for path in (folder / part).iterdir() if path.is_dir())
        files = [sorted(path.glob("*.jpg"))[:count] for path in classes]
        contents = [file.read_bytes() for of_number in zip(*files, strict=True) for file in of_number]
        parts[f"{part}_files"] = np.frombuffer(b"".join(contents), np.uint8)  # one after the other
        parts[f"{part}_sizes"] = np.array([len(content) for content in contents], np.int32)
        parts[f"{part}_labels"] = np.tile(np.arange(len(classes), dtype=np.uint8), count)
    np.savez_compressed(OUT, **parts)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
