"""Residual networks with four stages (He et al. 2016, table 1), with the parameters and names of torchvision's.

Two stems: that of ImageNet divides the image's side by four, so small images lose much: 32 pixels end at 1. The
networks called `-cifar` begin with one 3x3 convolution of stride 1 instead, as public code for CIFAR has it.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from iekd.models.blocks import ReluBlock, initialise, run_stages
from iekd.models.features import Classifier, Features
from iekd.models.registration import register


def projection(c_in: int, c_out: int, stride: int) -> nn.Module:
    """The shortcut: a 1x1 convolution where the shape changes, else nothing."""
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


class BasicBlock(ReluBlock):
    """Two 3x3 convolutions and a shortcut. Returns (after, before) the last activation."""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(c_in, width, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn2

    def before(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return cast(Tensor, self.bn2(self.conv2(out)) + self.downsample(x))


class Bottleneck(ReluBlock):
    """1x1, 3x3 and 1x1 convolution and a shortcut; the 3x3 one has the stride. Returns (after, before) the last
    activation."""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out = width * self.expansion
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample = projection(c_in, c_out, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn3

    def before(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return cast(Tensor, self.bn3(self.conv3(out)) + self.downsample(x))


class ResNet(Classifier):
    """images (B,C,H,W) -> Features with stages (B,64e,H/4,W/4), (B,128e,H/8,W/8), (B,256e,H/16,W/16) and
    (B,512e,H/32,W/32), where e is the block's expansion; four times as large with the small stem."""

    def __init__(self, block: type[BasicBlock | Bottleneck], blocks: tuple[int, ...], num_classes: int,
                 channels: int, small_stem: bool = False) -> None:  # fmt: skip
        """small_stem: a 3x3 convolution of stride 1 and no pooling, for images of about 32 pixels."""
        super().__init__()
        self.small_stem = small_stem
        self.conv1 = nn.Conv2d(channels, 64, *((3, 1, 1) if small_stem else (7, 2, 3)), bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        stages, c_in = [], 64
        for count, width, stride in zip(blocks, (64, 128, 256, 512), (1, 2, 2, 2), strict=True):
            c_out = width * block.expansion
            rest = [block(c_out, width, 1) for _ in range(count - 1)]
            stages.append(nn.ModuleList([block(c_in, width, stride), *rest]))
            c_in = c_out
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(c_in, num_classes)
        initialise(self)

    @property
    def stage_norms(self) -> list[nn.BatchNorm2d]:
        return [
            cast("BasicBlock | Bottleneck", stage[-1]).last_norm
            for stage in (self.layer1, self.layer2, self.layer3, self.layer4)
        ]

    def forward(self, images: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(images)))
        if not self.small_stem:
            x = F.max_pool2d(x, 3, 2, 1)
        after, before = run_stages((self.layer1, self.layer2, self.layer3, self.layer4), x)
        pooled = after[-1].mean((2, 3))
        return Features(self.fc(pooled), after, before, pooled)


@register
def resnet18(num_classes: int, channels: int) -> Classifier:
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, channels)


@register
def resnet34(num_classes: int, channels: int) -> Classifier:
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, channels)


@register
def resnet50(num_classes: int, channels: int) -> Classifier:
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, channels)


@register
def resnet18_cifar(num_classes: int, channels: int) -> Classifier:
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, channels, small_stem=True)


@register
def resnet34_cifar(num_classes: int, channels: int) -> Classifier:
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, channels, small_stem=True)


@register
def resnet50_cifar(num_classes: int, channels: int) -> Classifier:
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, channels, small_stem=True)
