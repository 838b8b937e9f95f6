"""The registry of networks: a function's name, with `_` written `-`, is the key the user types."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from iekd.models.catalog import check_model
from iekd.models.features import Classifier

Builder = Callable[[int, int], Classifier]
FAMILIES = ("resnet_cifar", "wrn", "vgg", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2", "resnet")
_BUILDERS: dict[str, Builder] = {}


def register(builder: Builder) -> Builder:
    """Decorator for `def name(num_classes, channels) -> Classifier`."""
    _BUILDERS[builder.__name__.replace("_", "-")] = builder
    return builder


def build(name: str, num_classes: int, channels: int = 3) -> Classifier:
    """A freshly initialised classifier for images (B,channels,H,W) of `num_classes` classes.

    Raises:
        UserError: unknown name, with the closest match.
    """
    return builders()[check_model(name)](num_classes, channels)


def builders() -> dict[str, Builder]:
    """Every registered builder by name, family by family, whichever was imported first."""
    families = [import_module(f"iekd.models.{family}").__name__ for family in FAMILIES]  # registers on import
    return dict(sorted(_BUILDERS.items(), key=lambda item: families.index(item[1].__module__)))
