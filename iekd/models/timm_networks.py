"""The image classifiers of timm (PyTorch Image Models), as networks that give Features."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from iekd.errors import first_line
from iekd.models.features import Classifier, Features
from iekd.models.info import Pretrained
from iekd.models.pretrained import file_on_hub
from iekd.models.stage_ends import StageEnd, find_ends
from iekd.models.taps import Listening

log = logging.getLogger(__name__)
STAGES = 4  # that are compared at most
# let transformers take images of other sizes than those they were designed for
ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
)


@lru_cache(maxsize=1)
def names() -> list[str]:
    """Every architecture; what follows a dot in timm's names are weights, which are not loaded here."""
    return [str(name) for name in timm.list_models()]


def build(name: str, num_classes: int, channels: int, arguments: Mapping[str, Any] | None = None) -> Classifier:
    """The network with random weights. arguments: more of timm's for its architecture.

    Raises:
        ValueError: it gives no features.
    """
    given = dict(arguments or {})
    ends = _ends(name, json.dumps(given, sort_keys=True))
    return TimmNetwork(_create(name, **{**given, "num_classes": num_classes, "in_chans": channels}), ends)


def plain(name: str, num_classes: int) -> nn.Module:
    """See `libraries.Library.plain`."""
    return _create(name, num_classes=num_classes)


def pretrained(name: str) -> Pretrained | None:
    """timm's usual weights for an architecture, as its `pretrained_cfg` describes them."""
    known = timm.get_pretrained_cfg(name)
    if known is None or not (known.hf_hub_id or known.url):
        return None
    on_hub, url = str(known.hf_hub_id or ""), "" if known.hf_hub_id else str(known.url)
    title, side = on_hub or url.rpartition("/")[2], int(known.input_size[-1])
    return Pretrained(title, int(known.num_classes), side, tuple(known.mean), tuple(known.std), on_hub, url)


def load_pretrained(name: str, channels: int) -> dict[str, Tensor]:
    """timm's weights, with its own changes of old names; no code in them is run."""
    found = pretrained(name)
    assert found is not None
    options: dict[str, Any] = {}
    if found.repo:  # timm 1.0.15 takes the file for one of another format if the network's first weights were such
        options["pretrained_cfg_overlay"] = {"file": str(file_on_hub(found)), "custom_load": False}
    network = _create(name, pretrained=True, num_classes=found.classes, in_chans=channels, **options)
    return {f"network.{key}": value for key, value in network.state_dict().items()}


def _create(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
    """Some networks take no other size of image than the usual one, so they do not know these options."""
    for more in (*ANY_SIZE, {}):
        try:
            network: nn.Module = timm.create_model(name, pretrained=pretrained, **{**more, **options})
            return network
        except TypeError as error:
            if not more or "unexpected keyword" not in str(error):
                raise
    raise AssertionError(name)


@cache
def _ends(name: str, arguments: str) -> tuple[StageEnd, ...] | None:
    """How the stages end, found without computing anything; None for what cannot be run so."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            network: Any = _create(name, **{**json.loads(arguments), "num_classes": 2, "in_chans": 3}).eval()
            side = network.pretrained_cfg["input_size"][-1]
            stages, inner = _chosen(_reductions(network.feature_info)), network.forward_intermediates
            return find_ends(network, lambda: inner(torch.zeros(1, 3, side, side), indices=stages)[1])
    except Exception as error:  # whatever a library raises: od then refuses the network
        log.info("The stage ends of timm's %s before the activation were not found (%s).", name, first_line(error))
        return None


class TimmNetwork(Listening):
    """A network of timm: images (B,C,H,W) -> Features.

    Stages are the last four that timm lists in `feature_info`; of a network whose maps all have one size, such as a
    vision transformer, four at equal distances. Tokens come as maps (B,c,h,w). The last stage is the input of the
    pooling unless the network widens it before, as EfficientNet does.
    """

    def __init__(self, network: nn.Module, ends: tuple[StageEnd, ...] | None = None) -> None:
        """ends: see Listening."""
        super().__init__(network, ends)
        if not hasattr(network, "forward_intermediates") or not hasattr(network, "feature_info"):
            raise ValueError(f"timm's {type(network).__name__} gives no features")
        self.stages = _chosen(_reductions(network.feature_info))
        classifier = network.get_classifier()  # type: ignore[operator]
        # several layers have no input of their own to be the pooled features, and a convolution gets a map
        found = [name for name, module in network.named_modules() if module is classifier]
        self.head = found[0] if found and isinstance(classifier, nn.Linear) else ""
        if self.head:
            self._listen(self.head, gets=True)

    def forward(self, images: Tensor) -> Features:
        self._given.clear()
        last, maps = self.network.forward_intermediates(images, indices=self.stages)
        # not what `get_classifier` gives alone: some have a norm before it, or a second head beside it
        logits = self.network.forward_head(last)
        pooled = self._of(self.head, True, logits) if self.head else maps[-1].mean((2, 3))
        before = self._before(tuple(maps), logits)
        self._given.clear()
        return Features(logits, tuple(maps), before, pooled)


def _reductions(feature_info: Any) -> list[int]:
    """How much smaller than the image the map of each stage is."""
    listed = feature_info.get_dicts() if hasattr(feature_info, "get_dicts") else feature_info
    return [int(one["reduction"]) for one in listed]


def _chosen(reductions: list[int]) -> list[int]:
    """Numbers of the stages that are compared."""
    count = len(reductions)
    if count > STAGES and len(set(reductions)) == 1:
        return [round(count * (i + 1) / STAGES) - 1 for i in range(STAGES)]
    return list(range(max(0, count - STAGES), count))
