"""Names and sizes of the networks, without torch: what the page shows before anything heavy is loaded.

Our own networks are in `catalog.json`, which `python -m iekd.models.write_catalog` measures; a test holds the file to
the real networks. Registered ones (registration.py) are measured when they are first asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from iekd.models import libraries
from iekd.models.aliases import canonical
from iekd.models.info import ModelInfo
from iekd.models.unknown import SEARCH, unknown_model
from iekd.plugins import VARIABLE, load_plugins

CATALOG = Path(__file__).with_name("catalog.json")
OWN = f"A model of your own has to be in a module that {VARIABLE} names."
MODEL_NAMES = {
    "mobilenet-v2-crd": "MobileNetV2 (CRD)", "shufflenet-v1-crd": "ShuffleNetV1 (CRD)",
    "shufflenet-v2-crd": "ShuffleNetV2 (CRD)",
}  # fmt: skip
KINDS = {"": "", "-a": " (option A)", "-cifar": " (CIFAR stem)"}  # of ResNets


@lru_cache(maxsize=1)
def own_models() -> dict[str, ModelInfo]:
    """The networks of this package by name, family by family."""
    return {row["name"]: _from_json(row) for row in json.loads(CATALOG.read_text())}


def _from_json(row: dict[str, Any]) -> ModelInfo:
    stages = {key: tuple(row[key]) for key in ("stage_channels", "stage_strides")}
    return ModelInfo(**{**row, **stages})


class _Models(Mapping[str, ModelInfo]):
    """Our own networks, then the registered ones. These are measured when their entry is first read; so are those of
    other libraries, which can be looked up but are not listed: there are more than a thousand."""

    def __init__(self) -> None:
        self.measures: dict[str, Callable[[], ModelInfo]] = {}
        self.measured: dict[str, ModelInfo] = {}

    def __getitem__(self, name: str) -> ModelInfo:
        name = canonical(name)
        if name in own_models():
            return own_models()[name]
        if name not in self.measured and libraries.names_one(name):
            self.measured[name] = libraries.measured(name)
        load_plugins()
        if name not in self.measured:
            self.measured[name] = self.measures[name]()
        return self.measured[name]

    def __contains__(self, name: object) -> bool:
        name = canonical(str(name))
        if name in own_models():
            return True
        if libraries.names_one(str(name)):
            return libraries.has(str(name))
        load_plugins()
        return name in self.measures

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter([*own_models(), *self.measures])

    def __len__(self) -> int:
        return len(list(iter(self)))


_MODELS = _Models()


def models() -> Mapping[str, ModelInfo]:
    """Every network by name: ours family by family, then registered ones.

    Raises:
        UserError: by looking up a registered one that cannot be built, or if a plugin cannot be imported.
    """
    return _MODELS


def add(name: str, measure: Callable[[], ModelInfo]) -> None:
    """Make a registered network known; `measure` is called when its sizes are first asked for."""
    if name not in own_models():
        _MODELS.measures[name] = measure
        _MODELS.measured.pop(name, None)


def factor_channels(channels: int) -> int:
    """k, the channels of the factor of a feature with `channels` (the papers' rate of one half)."""
    return max(1, channels // 2)


def known_models() -> list[str]:
    """Names of all networks that are registered here; those of libraries are not listed."""
    return list(models())


def check_model(name: str) -> str:
    """Return the name of a network as it is called now, if there is one.

    Raises:
        UnknownNameError: there is none; the message has the closest name, and how to make a model of your own known.
    """
    name = canonical(name)
    if libraries.names_one(name):
        return libraries.check(name)
    if name not in models():
        advice = f"Networks of timm begin with timm:, those of torchvision with torchvision:. {SEARCH} {OWN}"
        raise unknown_model(name, known_models(), advice)
    return name


def model_info(name: str) -> ModelInfo:
    """The sizes of one network.

    Raises:
        UnknownNameError: see `check_model`.
    """
    return models()[check_model(name)]


def model_name(model: str) -> str:
    """resnet20 -> ResNet-20, resnet32x4 -> ResNet-32×4, wrn-40-2 -> WRN-40-2, timm:resnet18 -> resnet18 (timm); a name
    it does not know stays. vgg8-crd, a small version of the CRD benchmark, -> VGG-8 (CRD)."""
    model = canonical(model)
    if libraries.names_one(model):
        return libraries.title(model)
    if model in MODEL_NAMES:
        return MODEL_NAMES[model]
    if match := re.fullmatch(r"resnet(\d+)(x\d+)?(-a|-cifar)?", model):
        depth, times, kind = match.groups("")
        return f"ResNet-{depth}{times.replace('x', '×')}{KINDS[kind]}"
    if match := re.fullmatch(r"(wrn-|vgg)([\d-]+?)(-crd)?", model):
        return f"{match[1].strip('-').upper()}-{match[2]}{' (CRD)' if match[3] else ''}"
    return model
