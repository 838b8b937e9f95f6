"""ShuffleNet (Zhang et al. 2018) with three groups for small images, as in the benchmark of Tian et al. 2020.

There the stem is a 1x1 convolution that keeps the image's size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iekd.models.blocks import ReluBlock, run_stages
from iekd.models.features import Classifier, Features
from iekd.models.registration import register

STEM, GROUPS = 24, 3
STAGES = ((240, 4), (480, 8), (960, 4))  # channels, units


class Unit(ReluBlock):
    """Grouped 1x1 convolution, shuffle, 3x3 per channel, grouped 1x1. Returns (after, before) the last activation.

    A first unit halves the resolution, and joins its input's channels to its own instead of adding them.
    """

    def __init__(self, c_in: int, c_out: int, first: bool) -> None:
        super().__init__()
        own = c_out - c_in if first else c_out
        mid = own // 4
        self.first = first
        self.groups = 1 if c_in == STEM else GROUPS  # the stem's few channels are not grouped
        self.conv1 = nn.Conv2d(c_in, mid, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, mid, 3, 2 if first else 1, 1, groups=mid, bias=False)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv3 = nn.Conv2d(mid, own, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(own)

    def before(self, x: Tensor) -> Tensor:
        out = F.channel_shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.cat([out, F.avg_pool2d(x, 3, 2, 1)], 1) if self.first else out + x


class ShuffleNetV1(Classifier):
    """images (B,C,H,W) -> Features with stages (B,240,H/2,W/2), (B,480,H/4,W/4), (B,960,H/8,W/8).

    `stage_norms` is None: a unit that joins channels has a batch norm for some of them only.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        stages, c_in = [], STEM
        for c_out, units in STAGES:
            rest = [Unit(c_out, c_out, first=False) for _ in range(units - 1)]
            stages.append(nn.ModuleList([Unit(c_in, c_out, first=True), *rest]))
            c_in = c_out
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(c_in, num_classes)

    def forward(self, images: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(images)))
        after, before = run_stages((self.layer1, self.layer2, self.layer3), x)
        pooled = after[-1].mean((2, 3))
        return Features(self.linear(pooled), after, before, pooled)


@register
def shufflenet_v1_crd(num_classes: int, channels: int) -> Classifier:
    return ShuffleNetV1(num_classes, channels)
