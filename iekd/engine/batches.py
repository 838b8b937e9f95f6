"""Batches from images that live on the device: shuffling, crop and flip as tensor operations on uint8.

The order and the augmentation of an epoch depend on (seed, epoch) alone, so that a resumed or repeated run sees the
same batches. Leaves out: normalisation, which each network does for itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from iekd.data.dataset import Split


def to_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """(images (N,C,H,W) uint8, labels (N,) int64) on the device."""
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2)
    return images.to(device), torch.from_numpy(split.labels).to(device)


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Pad with black, crop at a random place, mirror every second image: (B,C,H,W) uint8 -> the same shape.

    One gather does all three. The draws come from a CPU generator, so every device sees the same augmentation.
    """
    b, _, h, w = images.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, b), generator=generator)
    mirrored = torch.rand(b, generator=generator) < 0.5
    rows = top[:, None] + torch.arange(h)  # (B,H)
    columns = left[:, None] + torch.arange(w)  # (B,W)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    padded = F.pad(images, (padding,) * 4)
    index = torch.arange(b, device=images.device)[:, None, None]
    # the slice between the indices puts the channels last in memory, which is what the convolutions want
    cropped: Tensor = padded[index, :, rows[:, :, None], columns[:, None, :]]  # (B,H,W,C)
    return cropped.permute(0, 3, 1, 2)


class Batches:
    """Shuffled, augmented batches of one split. The last, smaller batch of an epoch is left out."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, seed: int) -> None:
        self.images, self.labels = images, labels
        self.batch_size = min(batch_size, len(labels))
        self.seed = seed
        self.padding = max(1, images.shape[-1] // 8)  # 4 pixels of 32

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images (B,C,H,W) uint8, labels (B,)) of epoch number `epoch`."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.labels), generator=generator).to(self.labels.device)
        for i in range(len(self)):
            chosen = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield crop_and_flip(self.images[chosen], generator, self.padding), self.labels[chosen]
