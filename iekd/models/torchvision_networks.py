"""The image classifiers of torchvision, as networks that give Features."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn

from iekd.models.info import Pretrained
from iekd.models.stage_ends import StageEnd
from iekd.models.taps import Tapped, Taps, find_taps, tapped_ends

SIDES = (224, 256)  # of the image with which the stages are looked for: one of them suits each network
# the second heads of these two are not trained here
OPTIONS: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}


@lru_cache(maxsize=1)
def names() -> list[str]:
    """Every image classifier of torchvision."""
    return [str(name) for name in torchvision.models.list_models(module=torchvision.models)]


def build(name: str, num_classes: int, channels: int) -> Tapped:
    """The network with random weights; for grey images (channels 1) its first convolution takes one channel."""
    network = plain(name, num_classes)
    if channels != 3:
        replace_first_convolution(network, channels)
    return Tapped(network, *_taps(name))


def pretrained(name: str) -> Pretrained | None:
    """torchvision's best weights for an architecture, as their `transforms` describe them."""
    found = list(torchvision.models.get_model_weights(name))
    if not found:
        return None
    best = _best(name)
    shown, url = best.transforms(), str(best.url)
    mean, std = tuple(map(float, shown.mean)), tuple(map(float, shown.std))
    if name in OPTIONS:  # with weights, these two change pixels themselves to what one half makes of them
        mean, std = (0.5,) * 3, (0.5,) * 3
    title = f"{type(best).__name__}.{best.name}"
    return Pretrained(title, len(best.meta["categories"]), int(shown.crop_size[0]), mean, std, url=url)


def load_pretrained(name: str, channels: int) -> dict[str, Tensor]:
    """torchvision's weights for images in colour; torch.hub downloads them. A file with code is refused, and none of it
    runs."""
    options = {key: value for key, value in OPTIONS.get(name, {}).items() if key != "init_weights"}
    # torchvision itself would run it: the file in the cache may not be the one that was downloaded
    _best(name).get_state_dict(progress=True, check_hash=True, weights_only=True)
    network = torchvision.models.get_model(name, weights=_best(name), **options)
    return {f"network.{key}": value for key, value in network.state_dict().items()}


def _best(name: str) -> Any:
    return torchvision.models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]


def plain(name: str, num_classes: int) -> nn.Module:
    """See `libraries.Library.plain`."""
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=num_classes, **OPTIONS.get(name, {})
    )
    return network


@cache
def _taps(name: str) -> tuple[Taps, tuple[StageEnd, ...] | None]:
    """The stages and how they end, without computing anything where the network allows that, and of images that it
    takes."""
    for device in ("meta", "cpu"):
        for side in SIDES:
            try:
                with torch.device(device), torch.random.fork_rng(devices=[]):
                    network, images = plain(name, 10), torch.zeros(1, 3, side, side)
                    taps = find_taps(network, images)
                    return taps, tapped_ends(network, taps, images)
            except (AssertionError, NotImplementedError, RuntimeError) as error:
                problem = error
    raise problem


def replace_first_convolution(network: nn.Module, channels: int) -> None:
    """Give the first convolution, which takes 3 channels, another number of them and new weights."""
    name, old = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
    new = nn.Conv2d(
        channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None, padding_mode=old.padding_mode,
    )  # fmt: skip
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, new)
