"""The names under which networks are built: a function's name, with `_` written `-`."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from iekd import plugins
from iekd.errors import UserError
from iekd.models import catalog
from iekd.models.measure import Builder, measure

BUILDERS: dict[str, Builder] = {}
AnyBuilder = TypeVar("AnyBuilder", bound=Builder)


def register(builder: AnyBuilder) -> AnyBuilder:
    """Decorator for `def name(num_classes, channels)`, which returns a network: images (B,C,H,W) -> Features.

    It is then known everywhere by that name: command line, page, configuration, saved models. Its sizes are measured
    when they are first asked for.

    Args:
        builder: a function of (num_classes, channels); its name, with `-` for `_`, is the network's.
    Returns:
        The same function.
    Raises:
        UserError: another module has registered that name.

    Example:
        @register
        def my_net(num_classes: int, channels: int) -> nn.Module:
            return MyNet(num_classes, channels)
    """
    name = builder.__name__.replace("_", "-")
    earlier = BUILDERS.get(name)
    if earlier is not None and earlier.__module__ != builder.__module__:
        raise UserError(f"Model '{name}' exists already, in {earlier.__module__}. Give yours another name.")
    BUILDERS[name] = builder
    catalog.add(name, partial(measure, name, builder))
    plugins.remember(builder.__module__)
    return builder
