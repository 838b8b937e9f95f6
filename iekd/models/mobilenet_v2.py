"""MobileNetV2 (Sandler et al. 2018) of half the width for small images, as in the benchmark of Tian et al. 2020.

There the stem halves the image once, the second group of blocks does not, and ReLU replaces ReLU6.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.models.blocks import initialise
from iekd.models.features import Classifier, Features
from iekd.models.registration import register

# expansion, channels, blocks, stride of the first
GROUPS = (
    (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
STAGE_ENDS = (1, 2, 4)  # the last groups of their resolution
LAST = 1280


def conv_norm(c_in: int, c_out: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias and its batch norm."""
    conv = nn.Conv2d(c_in, c_out, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; no activation at the end. (B,c,H,W) -> (B,c_out,H/s,W/s)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = c_in * expansion
        self.residual = stride == 1 and c_in == c_out
        self.conv = nn.Sequential(
            *conv_norm(c_in, wide, 1),
            nn.ReLU(),
            *conv_norm(wide, wide, 3, stride, groups=wide),
            nn.ReLU(),
            *conv_norm(wide, c_out, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(Classifier):
    """images (B,C,H,W) -> Features. The first three stages are ends of linear bottlenecks, so they have no activation:
    (B,12,H/2,W/2), (B,16,H/4,W/4), (B,48,H/8,W/8) at half the width. The last is the 1x1 convolution before the
    pooling, with a ReLU: (B,1280,H/16,W/16)."""

    def __init__(self, width: float, num_classes: int, channels: int) -> None:
        super().__init__()
        c_in = int(32 * width)
        self.conv1 = nn.Sequential(*conv_norm(channels, c_in, 3, 2), nn.ReLU())
        groups = []
        for expansion, c, blocks, stride in GROUPS:
            c_out = int(c * width)
            layers = [InvertedResidual(c_in, c_out, stride, expansion)]
            layers += [InvertedResidual(c_out, c_out, 1, expansion) for _ in range(blocks - 1)]
            groups.append(nn.Sequential(*layers))
            c_in = c_out
        self.blocks = nn.ModuleList(groups)
        self.conv2 = nn.Sequential(*conv_norm(c_in, LAST, 1))
        self.classifier = nn.Linear(LAST, num_classes)
        initialise(self, linear_std=0.01)

    @property
    def stage_norms(self) -> list[nn.BatchNorm2d]:
        ends = [cast(InvertedResidual, cast(nn.Sequential, self.blocks[i])[-1]).conv for i in STAGE_ENDS]
        return [cast(nn.BatchNorm2d, end[-1]) for end in (*ends, self.conv2)]

    def forward(self, images: Tensor) -> Features:
        x = self.conv1(images)
        ends = []
        for i, group in enumerate(self.blocks):
            x = group(x)
            if i in STAGE_ENDS:
                ends.append(x)
        before = self.conv2(x)
        last = F.relu(before)
        pooled = last.mean((2, 3))
        return Features(self.classifier(pooled), (*ends, last), (*ends, before), pooled)


@register
def mobilenet_v2_crd(num_classes: int, channels: int) -> Classifier:
    return MobileNetV2(0.5, num_classes, channels)
