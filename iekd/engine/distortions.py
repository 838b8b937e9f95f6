"""More augmentation of whole batches, after the crop: RandAugment, TrivialAugment, colour jitter, random erasing, and
mixed images (mixup, CutMix), whose labels are shares of classes.

All draws come from one CPU generator per batch. Shapes and colours are torchvision's (transforms.v2 on uint8), applied
to those images of a batch at once that get the same; jitter and mixing are whole numbers, as in augment.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iekd.config.run import RunConfig
from iekd.engine.augment import BITS, ONE, Augment, boxes_of, fill_boxes, to_device_async
from iekd.engine.part import own, to_draw

BINS = 31  # strengths of an operation, as in torchvision
RAND_OPERATIONS, RAND_STRENGTH = 2, 9 / (BINS - 1)  # of RandAugment, torchvision's usual ones
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # Zhong et al. 2020
LUMA = (299, 587, 114)  # thousandths of red, green and blue


@dataclass(frozen=True)
class Extras:
    """What is done to a batch after its view was chosen: `steps` in order, then mixing.

    mixup, cutmix: alpha of the Beta distribution of the shares, 0 for neither; with both, each batch gets one of them.
    """

    classes: int
    steps: tuple[Augment, ...] = ()
    mixup: float = 0.0
    cutmix: float = 0.0
    kinds: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        kinds = tuple(kind for kind in ("mixup", "cutmix") if getattr(self, kind))
        object.__setattr__(self, "kinds", kinds)

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (B,C,S,S) uint8 and labels (B,) -> the same; with mixing, labels (B,K) float32: shares of classes."""
        for step in self.steps:
            images = step(images, generator)
        if not self.kinds:
            return images, labels
        kind = self.kinds[int(torch.randint(len(self.kinds), (), generator=generator))]
        mix = _mixup if kind == "mixup" else _cutmix
        images, share = mix(images, beta(getattr(self, kind), generator), generator)
        one, other = (F.one_hot(rows, self.classes).float() for rows in (labels, labels.roll(1)))
        return images, share * one + (1 - share) * other


def make_extras(config: RunConfig, mean: tuple[float, ...], classes: int, device: torch.device) -> Extras | None:
    """What the run asks for; None if nothing. mean: of the dataset, per channel, 0..1; fills what has no image."""
    levels = (torch.tensor(mean) * 255).round().to(torch.uint8)
    steps: list[Augment] = []
    if config.auto_augment != "none":
        steps.append(partial(auto_augment, kind=config.auto_augment, fill=levels.tolist()))
    if config.colour_jitter:
        steps.append(partial(colour_jitter, strength=config.colour_jitter))
    if config.random_erasing:
        steps.append(partial(random_erasing, share=config.random_erasing, fill=levels.to(device)))
    if not steps and not config.mixup and not config.cutmix:
        return None
    return Extras(classes, tuple(steps), config.mixup, config.cutmix)


def beta(alpha: float, generator: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha); torch has none with a generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _mixup(images: Tensor, share: float, _: torch.Generator) -> tuple[Tensor, float]:
    """Each image becomes a weighted mean with the one before it in the batch (Zhang et al. 2018); its exact share."""
    weight = round(share * ONE)
    mixed = _blend(images.int(), images.roll(1, 0).int(), weight)
    return mixed.to(torch.uint8), weight / ONE


def _cutmix(images: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """A box of the image before it in the batch is pasted into each, at the same place (Yun et al. 2019); the share of
    the image's own pixels."""
    h, w = images.shape[-2:]
    side = math.sqrt(1 - share)
    y, x = (int(torch.randint(size, (), generator=generator)) for size in (h, w))
    top, bottom = (min(max(y + sign * int(h * side) // 2, 0), h) for sign in (-1, 1))
    left, right = (min(max(x + sign * int(w * side) // 2, 0), w) for sign in (-1, 1))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.roll(1, 0)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (h * w)


def _blend(one: Tensor, other: Tensor | int, weight: Tensor | int) -> Tensor:
    """weight / ONE of one, the rest of the other; int32 -> int32, 0..255."""
    return ((one * weight + other * (ONE - weight) + ONE // 2) >> BITS).clamp(0, 255)


def colour_jitter(images: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Brightness, contrast and saturation of each image times factors from 1 - strength to 1 + strength; (B,C,H,W)
    uint8 -> the same."""
    drawn = torch.rand((3, to_draw(images, generator)), generator=generator, dtype=torch.float64)
    factors = 1 + strength * (2 * own(drawn, generator) - 1)
    weights = to_device_async((factors * ONE).round().int(), images.device)[:, :, None, None, None]  # (3,B,1,1,1)
    pixels = _blend(images.int(), 0, weights[0])
    mean = _grey(pixels).sum((1, 2, 3), keepdim=True) // (images.shape[-2] * images.shape[-1])
    pixels = _blend(pixels, mean.int(), weights[1])
    if images.shape[1] == 3:
        pixels = _blend(pixels, _grey(pixels), weights[2])
    return pixels.to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    """(B,C,H,W) int32 -> (B,1,H,W)."""
    if pixels.shape[1] != len(LUMA):
        return pixels[:, :1]
    red, green, blue = (pixels[:, i : i + 1] * weight for i, weight in enumerate(LUMA))
    return (red + green + blue + 500) // 1000


def random_erasing(images: Tensor, generator: torch.Generator, share: float, fill: Tensor) -> Tensor:
    """A rectangle of that share of the images is filled with a colour (C,) uint8 (Zhong et al. 2020)."""
    drawn, side = to_draw(images, generator), images.shape[-1]
    top, left, height, width = own(boxes_of(drawn, side, generator, ERASED_AREA, ERASED_RATIO), generator)
    chosen = own(torch.rand(drawn, generator=generator), generator) < share
    return fill_boxes(images, top, left, height * chosen, width * chosen, fill)


def auto_augment(images: Tensor, generator: torch.Generator, kind: str, fill: list[int]) -> Tensor:
    """RandAugment (Cubuk et al. 2020): two operations of one strength in a row; TrivialAugment (Mueller & Hutter 2021):
    one of any strength, up to stronger ones. (B,C,H,W) uint8 -> the same.

    fill: per channel, of what an operation moves in from outside.
    """
    drawn, wide = to_draw(images, generator), kind == "trivialaugment"
    for _ in range(1 if wide else RAND_OPERATIONS):
        which = own(torch.randint(len(OPERATIONS), (drawn,), generator=generator), generator)
        strength = own(torch.randint(BINS, (drawn,), generator=generator), generator) / (BINS - 1)
        if not wide:
            strength = torch.full_like(strength, RAND_STRENGTH)
        sign = 1 - 2 * own(torch.randint(2, (drawn,), generator=generator), generator)
        asked: dict[tuple[int, float], list[int]] = {}  # operation and signed strength -> the images that get it
        for i, key in enumerate(zip(which.tolist(), (strength * sign).tolist(), strict=True)):
            asked.setdefault(key, []).append(i)
        images = images.clone()
        for (operation, signed), rows in asked.items():
            index = to_device_async(torch.tensor(rows), images.device)
            images[index] = OPERATIONS[operation](images[index], signed, wide, fill)
    return images


Operation = Callable[[Tensor, float, bool, list[int]], Tensor]  # images, strength -1..1, TrivialAugment's range, fill


def _moved(axis: int, shear: float = 0.0, shift: float = 0.0, wide_shift: int = 0) -> Operation:
    """Shear or shift along an axis (0: horizontally): the largest of RandAugment, as shares; of TrivialAugment a shear
    of 0.99, or a shift in pixels."""

    def apply(images: Tensor, strength: float, wide: bool, fill: list[int]) -> Tensor:
        from torchvision.transforms.v2 import functional as tv

        sheared, moved = [0.0, 0.0], [0, 0]
        if shear:
            sheared[axis] = math.degrees(math.atan(strength * (0.99 if wide else shear)))
        else:
            moved[axis] = int(strength * (wide_shift if wide else shift * images.shape[-1]))
        centre = [0.0, 0.0] if shear else None
        changed: Tensor = tv.affine_image(images, 0.0, moved, 1.0, sheared, fill=fill, center=centre)
        return changed

    return apply


def _rotated(images: Tensor, strength: float, wide: bool, fill: list[int]) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    changed: Tensor = tv.rotate_image(images, strength * (135.0 if wide else 30.0), fill=fill)
    return changed


def _enhanced(name: str) -> Operation:
    """adjust_<name> of torchvision by a factor around 1."""

    def apply(images: Tensor, strength: float, wide: bool, fill: list[int]) -> Tensor:
        from torchvision.transforms.v2 import functional as tv

        adjusted: Tensor = getattr(tv, f"adjust_{name}_image")(images, 1 + strength * (0.99 if wide else 0.9))
        return adjusted

    return apply


def _plain(name: str) -> Operation:
    """An operation of torchvision without a strength."""

    def apply(images: Tensor, strength: float, wide: bool, fill: list[int]) -> Tensor:
        from torchvision.transforms.v2 import functional as tv

        changed: Tensor = getattr(tv, f"{name}_image")(images)
        return changed

    return apply


def _posterised(images: Tensor, strength: float, wide: bool, fill: list[int]) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    changed: Tensor = tv.posterize_image(images, 8 - round(abs(strength) * (6 if wide else 4)))
    return changed


def _solarised(images: Tensor, strength: float, wide: bool, fill: list[int]) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    changed: Tensor = tv.solarize_image(images, 255 * (1 - abs(strength)))
    return changed


OPERATIONS: tuple[Operation, ...] = (  # the fourteen of both papers
    lambda images, *_: images, _moved(0, shear=0.3), _moved(1, shear=0.3), _moved(0, shift=150 / 331, wide_shift=32),
    _moved(1, shift=150 / 331, wide_shift=32), _rotated, _enhanced("brightness"), _enhanced("saturation"),
    _enhanced("contrast"), _enhanced("sharpness"), _posterised, _solarised, _plain("autocontrast"), _plain("equalize"),
)  # fmt: skip
