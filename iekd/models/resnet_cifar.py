"""Residual networks for small images (He et al. 2016, section 4.2): depth 6n+2, stages of 16, 32 and 64 channels.

Shortcuts that change the shape are projections (1x1 convolution + batch norm, the paper's option B), as in the
networks of the knowledge distillation literature.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.models.features import Features
from iekd.models.registry import register


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. Returns (after, before) the last activation."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = F.relu(self.bn1(self.conv1(x)))
        before = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(before), before


class CifarResNet(nn.Module):
    """images (B,C,H,W) -> Features with stages (B,16,H,W), (B,32,H/2,W/2), (B,64,H/4,W/4) and pooled (B,64)."""

    def __init__(self, depth: int, num_classes: int, channels: int = 3) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth {depth} is not of the form 6n+2 with n >= 1")
        self.conv = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        stages, c_in = [], 16
        for c_out, stride in ((16, 1), (32, 2), (64, 2)):
            blocks = []
            for i in range((depth - 2) // 6):
                blocks.append(BasicBlock(c_in, c_out, stride if i == 0 else 1))
                c_in = c_out
            stages.append(nn.ModuleList(blocks))
        self.stages = nn.ModuleList(stages)
        self.classifier = nn.Linear(c_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Features:
        x = F.relu(self.bn(self.conv(images)))  # (B,16,H,W)
        after, before = [], []
        for stage in self.stages:
            y = x
            for block in cast(nn.ModuleList, stage):
                x, y = block(x)
            after.append(x)
            before.append(y)
        pooled = x.mean((2, 3))  # (B,64)
        return Features(self.classifier(pooled), tuple(after), tuple(before), pooled)


@register
def resnet8(num_classes: int, channels: int) -> nn.Module:
    return CifarResNet(8, num_classes, channels)


@register
def resnet14(num_classes: int, channels: int) -> nn.Module:
    return CifarResNet(14, num_classes, channels)


@register
def resnet20(num_classes: int, channels: int) -> nn.Module:
    return CifarResNet(20, num_classes, channels)


@register
def resnet32(num_classes: int, channels: int) -> nn.Module:
    return CifarResNet(32, num_classes, channels)


@register
def resnet44(num_classes: int, channels: int) -> nn.Module:
    return CifarResNet(44, num_classes, channels)


@register
def resnet56(num_classes: int, channels: int) -> nn.Module:
    return CifarResNet(56, num_classes, channels)


@register
def resnet110(num_classes: int, channels: int) -> nn.Module:
    return CifarResNet(110, num_classes, channels)
