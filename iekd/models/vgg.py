"""VGG with batch norm for small images: the convolutions of Simonyan and Zisserman 2015 and one linear layer.

vgg8 has one convolution a block. As in the benchmark of Tian et al. 2020 there is no pooling between the last two
blocks, so that an image of 32 pixels ends at 4 (there, images of 64 pixels are pooled once more).
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.models.blocks import initialise
from iekd.models.features import Classifier, Features
from iekd.models.registration import register

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}  # per block


class Vgg(Classifier):
    """images (B,C,H,W) -> Features with five stages, the ends of the blocks before their pooling:
    (B,64,H,W), (B,128,H/2,W/2), (B,256,H/4,W/4), (B,512,H/8,W/8) and again (B,512,H/8,W/8)."""

    def __init__(self, depth: int, num_classes: int, channels: int) -> None:
        super().__init__()
        blocks, c_in = [], channels
        for width, convolutions in zip(WIDTHS, CONVOLUTIONS[depth], strict=True):
            layers: list[nn.Module] = []
            for _ in range(convolutions):
                layers += [nn.Conv2d(c_in, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()]
                c_in = width
            blocks.append(nn.Sequential(*layers[:-1]))
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(c_in, num_classes)
        initialise(self, linear_std=0.01)

    @property
    def stage_norms(self) -> list[nn.BatchNorm2d]:
        return [cast(nn.BatchNorm2d, cast(nn.Sequential, block)[-1]) for block in self.blocks]

    def forward(self, images: Tensor) -> Features:
        x, after, before = images, [], []
        for i, block in enumerate(self.blocks):
            if i in (1, 2, 3):
                x = F.max_pool2d(x, 2, ceil_mode=True)  # odd sides round up, as strided convolutions do
            before.append(block(x))
            x = F.relu(before[-1])
            after.append(x)
        pooled = x.mean((2, 3))
        return Features(self.classifier(pooled), tuple(after), tuple(before), pooled)


@register
def vgg8_crd(num_classes: int, channels: int) -> Classifier:
    return Vgg(8, num_classes, channels)


@register
def vgg11_crd(num_classes: int, channels: int) -> Classifier:
    return Vgg(11, num_classes, channels)


@register
def vgg13_crd(num_classes: int, channels: int) -> Classifier:
    return Vgg(13, num_classes, channels)


@register
def vgg16_crd(num_classes: int, channels: int) -> Classifier:
    return Vgg(16, num_classes, channels)


@register
def vgg19_crd(num_classes: int, channels: int) -> Classifier:
    return Vgg(19, num_classes, channels)
