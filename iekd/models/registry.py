"""Builds networks by name: those of this package, and whatever else is registered."""

from __future__ import annotations

from torch import nn

from iekd.models import mobilenet_v2, resnet, resnet_cifar, shufflenet_v1, shufflenet_v2, vgg, wrn
from iekd.models.catalog import check_model
from iekd.models.measure import Builder
from iekd.models.registration import BUILDERS, register
from iekd.plugins import load_plugins

__all__ = ["FAMILIES", "Builder", "build", "builders", "register"]

# in the order in which they are listed
FAMILIES = (resnet_cifar, wrn, vgg, mobilenet_v2, shufflenet_v1, shufflenet_v2, resnet)


def build(name: str, num_classes: int, channels: int = 3) -> nn.Module:
    """A freshly initialised classifier for images (B,channels,H,W) of `num_classes` classes.

    Raises:
        UserError: unknown name, with the closest match.
    """
    return BUILDERS[check_model(name)](num_classes, channels)


def builders() -> dict[str, Builder]:
    """Every registered builder by name: ours family by family, then the others."""
    load_plugins()
    order = [family.__name__ for family in FAMILIES]

    def by_family(item: tuple[str, Builder]) -> int:
        family = item[1].__module__
        return order.index(family) if family in order else len(order)

    return dict(sorted(BUILDERS.items(), key=by_family))
