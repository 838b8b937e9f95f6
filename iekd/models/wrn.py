"""Wide residual networks for small images (Zagoruyko and Komodakis 2016): wrn-depth-width, without dropout.

Blocks begin with batch norm and ReLU (He et al. 2016, "Identity Mappings"), so a stage's end is only normalised and
activated by what follows it: the first batch norm of the next stage, or the network's last.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.models.blocks import initialise
from iekd.models.features import Classifier, Features
from iekd.models.registration import register


class PreActivationBlock(nn.Module):
    """Sum x (B,c,H,W) and its activation -> the next sum (B,c_out,H/s,W/s). `bn1` is the activation's, applied by the
    network, which shows it to the methods where a stage begins."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if c_in != c_out else None

    def forward(self, x: Tensor, active: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return cast(Tensor, out + (x if self.shortcut is None else self.shortcut(active)))


class WideResNet(Classifier):
    """images (B,C,H,W) -> Features with stages (B,16k,H,W), (B,32k,H/2,W/2), (B,64k,H/4,W/4) for width k.

    depth: 6n+4, where n is the number of blocks per stage.
    """

    def __init__(self, depth: int, width: int, num_classes: int, channels: int) -> None:
        super().__init__()

        def stage(c_in: int, c_out: int, stride: int) -> nn.ModuleList:
            rest = [PreActivationBlock(c_out, c_out, 1) for _ in range((depth - 4) // 6 - 1)]
            return nn.ModuleList([PreActivationBlock(c_in, c_out, stride), *rest])

        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.block1 = stage(16, 16 * width, 1)
        self.block2 = stage(16 * width, 32 * width, 2)
        self.block3 = stage(32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        initialise(self)

    @property
    def stage_norms(self) -> list[nn.BatchNorm2d]:
        return [cast(PreActivationBlock, stage[0]).bn1 for stage in (self.block2, self.block3)] + [self.bn1]

    def forward(self, images: Tensor) -> Features:
        x = self.conv1(images)
        after, before = [], []
        for stage in (self.block1, self.block2, self.block3):
            for i, block in enumerate(stage):
                normed = block.bn1(x)  # type: ignore[operator]
                active = F.relu(normed)
                if i == 0 and stage is not self.block1:
                    before.append(normed)
                    after.append(active)
                x = block(x, active)
        before.append(self.bn1(x))
        after.append(F.relu(before[-1]))
        pooled = after[-1].mean((2, 3))
        return Features(self.fc(pooled), tuple(after), tuple(before), pooled)


@register
def wrn_16_1(num_classes: int, channels: int) -> Classifier:
    return WideResNet(16, 1, num_classes, channels)


@register
def wrn_40_1(num_classes: int, channels: int) -> Classifier:
    return WideResNet(40, 1, num_classes, channels)


@register
def wrn_16_2(num_classes: int, channels: int) -> Classifier:
    return WideResNet(16, 2, num_classes, channels)


@register
def wrn_28_2(num_classes: int, channels: int) -> Classifier:
    return WideResNet(28, 2, num_classes, channels)


@register
def wrn_40_2(num_classes: int, channels: int) -> Classifier:
    return WideResNet(40, 2, num_classes, channels)


@register
def wrn_28_4(num_classes: int, channels: int) -> Classifier:
    return WideResNet(28, 4, num_classes, channels)


@register
def wrn_28_10(num_classes: int, channels: int) -> Classifier:
    return WideResNet(28, 10, num_classes, channels)
