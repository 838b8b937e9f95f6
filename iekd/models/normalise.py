"""Pixels to what a network was trained with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """images (B,C,H,W) uint8 -> float32 with the given per-channel mean and standard deviation (0..1 pixel values)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        scale = 1 / (255 * torch.tensor(std))
        self.register_buffer("scale", scale.view(-1, 1, 1))
        self.register_buffer("shift", (-torch.tensor(mean) / torch.tensor(std)).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return pixels * self.scale + self.shift
