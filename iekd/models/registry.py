"""Builds networks by name: those of this package, and whatever else is registered."""

from __future__ import annotations

from functools import partial

from torch import nn

from iekd.models import libraries, mobilenet_v2, resnet_cifar, shufflenet_v1, shufflenet_v2, small_stem, vgg, wrn
from iekd.models.catalog import check_model
from iekd.models.measure import Builder
from iekd.models.registration import BUILDERS, register
from iekd.plugins import load_plugins

__all__ = ["FAMILIES", "Builder", "build", "builder_of", "builders", "module_of", "register"]

# in the order in which they are listed
FAMILIES = (resnet_cifar, wrn, vgg, mobilenet_v2, shufflenet_v1, shufflenet_v2, small_stem)


def build(name: str, num_classes: int, channels: int = 3) -> nn.Module:
    """A classifier with random weights, drawn from torch's global generator.

    Args:
        name: of a network, such as resnet20 or timm:resnet18.
        num_classes: K.
        channels: of the images: 1 for grey, 3 for colour.
    Returns:
        A module: normalised images (B,channels,H,W) float32 -> Features with logits (B,K).
    Raises:
        UserError: unknown name, with the closest match.
    """
    return builder_of(name)(num_classes, channels)


def builder_of(name: str) -> Builder:
    """The function of (num_classes, channels) that builds the network of that name.

    Raises:
        UserError: unknown name, with the closest match.
    """
    name = check_model(name)
    return libraries.builder_of(name) if libraries.names_one(name) else BUILDERS[name]


def module_of(name: str) -> str:
    """The module that builds the network of that name: one of our families, a library's, or somebody's own.

    Raises:
        UserError: unknown name, with the closest match.
    """
    builder = builder_of(name)
    return (builder.func if isinstance(builder, partial) else builder).__module__


def builders() -> dict[str, Builder]:
    """Every registered builder by name: ours family by family, then the others."""
    load_plugins()
    order = [family.__name__ for family in FAMILIES]

    def by_family(item: tuple[str, Builder]) -> int:
        family = item[1].__module__
        return order.index(family) if family in order else len(order)

    return dict(sorted(BUILDERS.items(), key=by_family))
