"""ShuffleNetV2 (Ma et al. 2018) for small images, as in the benchmark of Tian et al. 2020.

There the stem is a 1x1 convolution that keeps the image's size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iekd.models.blocks import ReluBlock, run_stages
from iekd.models.features import Classifier, Features
from iekd.models.registration import register

STEM, LAST = 24, 1024
STAGES = ((116, 3), (232, 7), (464, 3))  # channels, units after the one that halves the resolution


def depthwise(c: int, stride: int) -> nn.Conv2d:
    """A 3x3 convolution of each channel by itself."""
    return nn.Conv2d(c, c, 3, stride, 1, groups=c, bias=False)


def pointwise(c_in: int, c_out: int) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(c_in, c_out, 1, bias=False)


class Unit(ReluBlock):
    """Half of the channels pass, half are convolved, then all are shuffled. Returns (after, before) the activation.

    The half that passes is activated already, which a second ReLU does not change.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels // 2
        self.conv1, self.bn1 = pointwise(c, c), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = depthwise(c, 1), nn.BatchNorm2d(c)
        self.conv3, self.bn3 = pointwise(c, c), nn.BatchNorm2d(c)

    def before(self, x: Tensor) -> Tensor:
        passed, out = x.chunk(2, 1)
        out = F.relu(self.bn1(self.conv1(out)))
        out = self.bn2(self.conv2(out))
        return F.channel_shuffle(torch.cat([passed, self.bn3(self.conv3(out))], 1), 2)


class DownUnit(ReluBlock):
    """Two branches of half the resolution, joined and shuffled. Returns (after, before) the activation."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        c = c_out // 2
        self.conv1, self.bn1 = depthwise(c_in, 2), nn.BatchNorm2d(c_in)
        self.conv2, self.bn2 = pointwise(c_in, c), nn.BatchNorm2d(c)
        self.conv3, self.bn3 = pointwise(c_in, c), nn.BatchNorm2d(c)
        self.conv4, self.bn4 = depthwise(c, 2), nn.BatchNorm2d(c)
        self.conv5, self.bn5 = pointwise(c, c), nn.BatchNorm2d(c)

    def before(self, x: Tensor) -> Tensor:
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        right = self.bn5(self.conv5(right))
        return F.channel_shuffle(torch.cat([left, right], 1), 2)


class ShuffleNetV2(Classifier):
    """images (B,C,H,W) -> Features with stages (B,116,H/2,W/2), (B,232,H/4,W/4), (B,1024,H/8,W/8).

    The last stage ends with the 1x1 convolution before the pooling. `stage_norms` is None: the other stages join
    branches that have a batch norm each.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = pointwise(channels, STEM), nn.BatchNorm2d(STEM)
        stages, c_in = [], STEM
        for c_out, units in STAGES:
            stages.append(nn.ModuleList([DownUnit(c_in, c_out), *(Unit(c_out) for _ in range(units))]))
            c_in = c_out
        self.layer1, self.layer2, self.layer3 = stages
        self.conv2, self.bn2 = pointwise(c_in, LAST), nn.BatchNorm2d(LAST)
        self.linear = nn.Linear(LAST, num_classes)

    def forward(self, images: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(images)))
        after, before = run_stages((self.layer1, self.layer2, self.layer3), x)
        last = self.bn2(self.conv2(after[-1]))
        after, before = (*after[:-1], F.relu(last)), (*before[:-1], last)
        pooled = after[-1].mean((2, 3))
        return Features(self.linear(pooled), after, before, pooled)


@register
def shufflenet_v2_crd(num_classes: int, channels: int) -> Classifier:
    return ShuffleNetV2(num_classes, channels)
