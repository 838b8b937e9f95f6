"""The registry of networks: a function's name, with `_` written `-`, is the key the user types."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from iekd.models.catalog import check_model

Builder = Callable[[int, int], nn.Module]
_BUILDERS: dict[str, Builder] = {}


def register(builder: Builder) -> Builder:
    """Decorator for `def name(num_classes, channels) -> nn.Module`."""
    _BUILDERS[builder.__name__.replace("_", "-")] = builder
    return builder


def build(name: str, num_classes: int, channels: int = 3) -> nn.Module:
    """A freshly initialised classifier for images (B,channels,H,W) of `num_classes` classes.

    Raises:
        UserError: unknown name, with the closest match.
    """
    return builders()[check_model(name)](num_classes, channels)


def builders() -> dict[str, Builder]:
    """Every registered builder by name."""
    from iekd.models import resnet_cifar  # registers on import

    assert resnet_cifar
    return _BUILDERS
