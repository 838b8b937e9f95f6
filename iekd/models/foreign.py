"""Weights of other public implementations: their names for the parameters, turned into ours.

Known are, per family, the names of: torchvision and of everything derived from it (`layer2.0.downsample.0`), the
benchmark of Tian et al. 2020 and its successors, and CIFAR ResNets with `shortcut` and `linear`, whether these have
projections or not.
"""

from __future__ import annotations

import re

from torch import Tensor

from iekd.models.catalog import known_models
from iekd.models.libraries import LIBRARIES
from iekd.models.registry import module_of

Rules = tuple[tuple[str, str], ...]  # (pattern, replacement), applied in order

WRAPPED: Rules = (
    (r"^module\.", ""),  # what DataParallel puts in front
    # parts of a network that are wrapped one by one: by torch.compile, FSDP, activation checkpointing
    (r"(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.", ""),
)
WITHIN: Rules = ((r"^(?!network\.)", "network."),)  # the name of a library's network within ours
# torchvision's names, and those of public code for CIFAR
RESNET: Rules = ((r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc."), *WITHIN)
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
    "small_stem": RESNET,
    **dict.fromkeys(LIBRARIES.values(), WITHIN),
    "torchvision_networks": RESNET,
}


def rename(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """A state dict with the parameters' names of our model `name`, in the same order. Names that are ours already
    stay; so do unknown ones, and those that would become the same as another.

    Raises:
        UserError: no such model.
    """
    family = module_of(name).rpartition(".")[2]
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        ours = _replace(key, WRAPPED + RULES.get(family, ()))
        taken = ours in renamed or (ours != key and ours in state)
        renamed[key if taken else ours] = value
    return renamed


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
