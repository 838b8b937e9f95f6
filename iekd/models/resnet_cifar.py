"""Residual networks for small images (He et al. 2016, section 4.2): depth 6n+2, three stages.

Shortcuts that change the shape are projections (1x1 convolution + batch norm, the paper's option B), as in the
networks of the knowledge distillation literature, or parameter-free (option A) where the name ends in `-a`.
`x4` networks are four times as wide (Tian et al. 2020, "Contrastive Representation Distillation").
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.models.blocks import ReluBlock, initialise, run_stages
from iekd.models.features import Classifier, Features
from iekd.models.registration import register

WIDTHS = (16, 16, 32, 64)  # the stem, then the stages
WIDTHS_X4 = (32, 64, 128, 256)


class PaddedShortcut(nn.Module):
    """Option A: (B,c,H,W) -> (B,c_out,H/s,W/s), every s-th pixel, between two equal halves of empty channels."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.padding = (c_out - c_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


class BasicBlock(ReluBlock):
    """Two 3x3 convolutions and a shortcut. Returns (after, before) the last activation."""

    def __init__(self, c_in: int, c_out: int, stride: int, padded: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if padded and c_in != c_out:
            self.shortcut = PaddedShortcut(c_in, c_out, stride)
        elif c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def before(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return cast(Tensor, self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(Classifier):
    """images (B,C,H,W) -> Features; stages (B,16,H,W), (B,32,H/2,W/2), (B,64,H/4,W/4) with the usual widths."""

    def __init__(self, depth: int, num_classes: int, channels: int = 3, widths: tuple[int, ...] = WIDTHS,
                 padded: bool = False) -> None:  # fmt: skip
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth {depth} is not of the form 6n+2 with n >= 1")
        c_in = widths[0]
        self.conv = nn.Conv2d(channels, c_in, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(c_in)
        stages = []
        for c_out, stride in zip(widths[1:], (1, 2, 2), strict=True):
            blocks = []
            for i in range((depth - 2) // 6):
                blocks.append(BasicBlock(c_in, c_out, stride if i == 0 else 1, padded))
                c_in = c_out
            stages.append(nn.ModuleList(blocks))
        self.stages = nn.ModuleList(stages)
        self.classifier = nn.Linear(c_in, num_classes)
        initialise(self)

    @property
    def stage_norms(self) -> list[nn.BatchNorm2d]:
        return [cast(BasicBlock, cast(nn.ModuleList, stage)[-1]).bn2 for stage in self.stages]

    def forward(self, images: Tensor) -> Features:
        x = F.relu(self.bn(self.conv(images)))
        after, before = run_stages(self.stages, x)
        pooled = after[-1].mean((2, 3))
        return Features(self.classifier(pooled), after, before, pooled)


@register
def resnet8(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(8, num_classes, channels)


@register
def resnet14(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(14, num_classes, channels)


@register
def resnet20(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(20, num_classes, channels)


@register
def resnet32(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(32, num_classes, channels)


@register
def resnet44(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(44, num_classes, channels)


@register
def resnet56(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(56, num_classes, channels)


@register
def resnet110(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(110, num_classes, channels)


@register
def resnet8x4(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(8, num_classes, channels, WIDTHS_X4)


@register
def resnet32x4(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(32, num_classes, channels, WIDTHS_X4)


@register
def resnet20_a(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(20, num_classes, channels, padded=True)


@register
def resnet32_a(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(32, num_classes, channels, padded=True)


@register
def resnet44_a(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(44, num_classes, channels, padded=True)


@register
def resnet56_a(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(56, num_classes, channels, padded=True)


@register
def resnet110_a(num_classes: int, channels: int) -> Classifier:
    return CifarResNet(110, num_classes, channels, padded=True)
