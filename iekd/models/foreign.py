"""Weights of other public implementations: their names for the parameters, turned into ours.

Known are, per family, the names of: torchvision and of everything derived from it (`layer2.0.downsample.0`), the
benchmark of Tian et al. 2020 and its successors, and CIFAR ResNets with `shortcut` and `linear`, whether these have
projections or not.
"""

from __future__ import annotations

import re

from torch import Tensor

from iekd.models.catalog import check_model, known_models
from iekd.models.registry import builders

Rules = tuple[tuple[str, str], ...]  # (pattern, replacement), applied in order

PARALLEL: Rules = ((r"^module\.", ""),)  # what DataParallel puts in front
RULES: dict[str, Rules] = {
    "resnet_cifar": (
        (r"^conv1\.", "conv."),
        (r"^bn1\.", "bn."),
        (r"^layer1\.", "stages.0."),
        (r"^layer2\.", "stages.1."),
        (r"^layer3\.", "stages.2."),
        (r"\.downsample\.", ".shortcut."),
        (r"^(fc|linear)\.", "classifier."),
    ),
    "wrn": ((r"^(block\d)\.layer\.", r"\1."), (r"\.convShortcut\.", ".shortcut.")),
    "vgg": ((r"^block(\d)\.", r"blocks.\1."),),
    "mobilenet_v2": ((r"^classifier\.0\.", "classifier."),),
    "shufflenet_v1": (),
    "shufflenet_v2": (),
    "resnet": ((r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc.")),
}


def rename(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """A state dict with the parameters' names of our model `name`. Names that are ours already stay; names that are
    unknown stay too, for `load_state_dict` to complain about.

    Raises:
        UserError: no such model.
    """
    family = builders()[check_model(name)].__module__.rpartition(".")[2]
    return {_replace(key, PARALLEL + RULES.get(family, ())): value for key, value in state.items()}


def shortcut_variant(state: dict[str, Tensor], name: str) -> str:
    """The name of the CIFAR ResNet that the weights are for: with projections (`resnet20`) or without (`resnet20-a`).
    Names without such a pair come back as they are."""
    projected = name.removesuffix("-a")
    if f"{projected}-a" not in known_models():
        return name
    return projected if any(".shortcut." in key for key in rename(state, projected)) else f"{projected}-a"


def _replace(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
