"""Data sets: a registry of sources that return images as uint8 arrays with class names and statistics.

    dataset = iekd.data.load("fashion-mnist-sample")
    dataset.train.images      # (N,H,W,C) uint8

Nothing here imports torch until a torchvision download needs it, so the page can show thumbnails at once.
"""

from iekd.data.base import Dataset, DatasetInfo, Split
from iekd.data.registry import available, check_name, describe, load, resolution_of, thumbnails

__all__ = [
    "Dataset", "DatasetInfo", "Split", "available", "check_name", "describe", "load", "resolution_of", "thumbnails",
]  # fmt: skip
