"""Datasets: a registry of sources that return images as uint8 arrays with class names and statistics.

    dataset = iekd.data.load("fashion-mnist-sample")
    dataset.train.images      # (N,H,W,C) uint8

Nothing here imports torch until a torchvision download needs it, so the page can show thumbnails at once.
"""

from iekd.data.base import Dataset, DatasetInfo, Request, Source, Split
from iekd.data.folder import folder_name
from iekd.data.registry import (
    AS_TEXT,
    available,
    check_name,
    describe,
    for_guests,
    load,
    own_files,
    own_path,
    part_at_hand,
    prepare,
    register,
    relative_name,
    short_name,
    source_of,
    sources,
    thumbnails,
    title_of,
)

__all__ = [
    "AS_TEXT", "Dataset", "DatasetInfo", "Request", "Source", "Split", "available", "check_name", "describe",
    "folder_name", "for_guests", "load", "own_files", "own_path", "part_at_hand", "prepare", "register",
    "relative_name", "short_name", "source_of", "sources", "thumbnails", "title_of",
]  # fmt: skip
