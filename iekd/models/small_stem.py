"""torchvision's residual networks (He et al. 2016, table 1) for small images: they begin with a 3x3 convolution.

The stem for ImageNet divides the image's side by four, so small images lose much: 32 pixels end at 1. Public code for
CIFAR begins with one 3x3 convolution and no pooling instead.
"""

from __future__ import annotations

from torch import nn

from iekd.models.features import Classifier
from iekd.models.registration import register
from iekd.models.stage_ends import StageEnd
from iekd.models.taps import Tapped, Taps

LAYERS = ("layer1", "layer2", "layer3", "layer4")


def small_stem(name: str, num_classes: int, channels: int) -> Classifier:
    """images (B,C,H,W) -> Features with stages of H, H/2, H/4 and H/8 pixels a side."""
    import torchvision.models  # late: it takes a second

    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    network.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    last = [f"{layer}.{len(getattr(network, layer)) - 1}" for layer in LAYERS]
    norm = "bn3" if hasattr(network.layer1[0], "bn3") else "bn2"
    ends = tuple(StageEnd(f"{block}.{norm}", f"{block}.relu") for block in last)
    return Tapped(network, Taps(tuple(last), "fc", maps=True), ends)


@register
def resnet18_cifar(num_classes: int, channels: int) -> Classifier:
    return small_stem("resnet18", num_classes, channels)


@register
def resnet34_cifar(num_classes: int, channels: int) -> Classifier:
    return small_stem("resnet34", num_classes, channels)


@register
def resnet50_cifar(num_classes: int, channels: int) -> Classifier:
    return small_stem("resnet50", num_classes, channels)
