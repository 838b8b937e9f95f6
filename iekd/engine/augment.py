"""Augmentation of whole batches: crop and flip, resized crop and flip, cutout; tensor operations on uint8.

The draws come from a CPU generator and the arithmetic is in whole numbers, so every device sees the same images. Where
only a part of a batch is here (part.py), numbers are drawn for all of it.
Leaves out: which images make a batch (batches.py), and normalisation, which each network does for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from iekd.data.views import AREA, ATTEMPTS, RATIO
from iekd.engine.part import own, to_draw

Augment = Callable[[Tensor, torch.Generator], Tensor]  # images (B,C,H,W) uint8 -> the same shape

BITS = 11  # of a pixel's weight, a whole number: two weights times 255 fit into 32 bits
ONE = 1 << BITS


def make_augment(
    kind: str, hole: int, side: int, mean: tuple[float, ...], device: torch.device, flip: bool = True
) -> Augment:  # fmt: skip
    """The augmentation of RunConfig.augmentation and RunConfig.cutout (`hole`) for images of that side on a device.

    flip: whether each image is mirrored with probability 1/2; crops and holes are the same either way. mean: of the
    dataset, per channel, 0..1; cutout fills its holes with it.
    """
    views: dict[str, Augment] = {
        "crop": partial(crop_and_flip, padding=padding_of(side), flip=flip),
        "resized-crop": partial(resized_crop_and_flip, flip=flip),
        "none": lambda images, _: images,
    }
    view = views[kind]
    if not hole:
        return view
    fill = (torch.tensor(mean) * 255).round().to(torch.uint8).to(device)
    return lambda images, generator: cut_out(view(images, generator), generator, hole, fill)


def padding_of(side: int) -> int:
    """4 pixels of 32, as in the paper."""
    return max(1, side // 8)


def to_device_async(values: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor from the CPU to the device, without waiting for an NVIDIA one."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int = 4, flip: bool = True) -> Tensor:
    """Pad with black, crop at a random place, mirror with probability 1/2: (B,C,H,W) uint8 -> the same shape.

    One gather does all three. flip: mirror at all.
    """
    b, _, h, w = images.shape
    drawn = to_draw(images, generator)
    top, left = own(torch.randint(0, 2 * padding + 1, (2, drawn), generator=generator), generator)
    mirrored = (own(torch.rand(drawn, generator=generator), generator) < 0.5) & flip
    rows = top[:, None] + torch.arange(h)  # (B,H)
    columns = left[:, None] + torch.arange(w)  # (B,W)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    rows, columns = to_device_async(rows, images.device), to_device_async(columns, images.device)
    padded = F.pad(images, (padding,) * 4)
    index = torch.arange(b, device=images.device)[:, None, None]
    # the slice between the indices puts the channels last in memory, which is what the convolutions want
    cropped: Tensor = padded[index, :, rows[:, :, None], columns[:, None, :]]  # (B,H,W,C)
    return cropped.permute(0, 3, 1, 2)


def resized_crop_and_flip(images: Tensor, generator: torch.Generator, flip: bool = True) -> Tensor:
    """A random part of each image, enlarged to the whole, mirrored with probability 1/2: (B,C,S,S) uint8 -> the same.

    flip: mirror at all.
    """
    drawn = to_draw(images, generator)
    top, left, height, width = own(crop_boxes(drawn, images.shape[-1], generator), generator)
    mirrored = (own(torch.rand(drawn, generator=generator), generator) < 0.5) & flip
    return resized_crop(images, top, left, height, width, mirrored)


def crop_boxes(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Top, left, height and width, (4,count) int64, of random crops of square images, as torchvision draws them.

    Of ten attempts (area uniform, logarithm of the ratio uniform) the first that fits, else the whole image.
    """
    return boxes_of(count, side, generator, AREA, RATIO)


def boxes_of(
    count: int, side: int, generator: torch.Generator, areas: tuple[float, float], ratios: tuple[float, float]
) -> Tensor:
    """`crop_boxes` of any range of areas (shares of the image) and ratios of width to height."""
    area, ratio = torch.rand((2, ATTEMPTS, count), generator=generator, dtype=torch.float64)
    area = side**2 * (areas[0] + (areas[1] - areas[0]) * area)
    low, high = map(math.log, ratios)
    ratio = torch.exp(low + (high - low) * ratio)
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()]).round().long()  # (2,attempts,count)
    fits = ((sides > 0) & (sides <= side)).all(0)
    first = fits.long().argmax(0)  # (count,): the first that is largest
    size = sides.gather(1, first.expand(2, 1, -1)).squeeze(1)
    size = torch.where(fits.any(0), size, side)
    corner = torch.rand((2, count), generator=generator, dtype=torch.float64) * (side - size + 1)
    return torch.cat([corner.long(), size])


def resized_crop(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, mirrored: Tensor) -> Tensor:
    """Enlarge a box of each image to the whole, bilinear, and mirror some: (B,C,H,W) uint8 -> the same shape.

    The boxes (B,) lie within the images. A box is never larger than the image, so nothing is ever made smaller, and
    there is nothing for antialiasing to do. At most one level from torchvision's, which rounds in other places.
    """
    b, _, h, w = images.shape
    above, below, down = _between(top, height, h)
    before, after, along = (torch.where(mirrored[:, None], t.flip(1), t) for t in _between(left, width, w))
    above, below, down = to_device_async(torch.stack([above, below, down]), images.device)  # one copy for the three
    before, after, along = to_device_async(torch.stack([before, after, along]), images.device)
    down, along = down.int()[:, :, None, None], along.int()[:, None, :, None]
    index, row = torch.arange(b, device=images.device)[:, None], torch.arange(h, device=images.device)[:, None]
    pixels = images.permute(0, 2, 3, 1)  # whole rows are taken first, which lie together
    tall = pixels[index, above] * (ONE - down) + pixels[index, below] * down  # (B,H,W,C) int32, times ONE
    index = index[:, None]
    enlarged = tall[index, row, before[:, None]] * (ONE - along) + tall[index, row, after[:, None]] * along
    rounded: Tensor = (enlarged + ONE * ONE // 2) >> 2 * BITS
    return rounded.to(torch.uint8).permute(0, 3, 1, 2)


def _between(start: Tensor, length: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the pixels of an enlarged line come from: two neighbours and the weight of the second, (B,side) each.

    Pixels are squares: the centre of pixel i of the result is at (i + 1/2) * length / side of the line.
    """
    scale = (length.double() / side)[:, None]
    at = ((torch.arange(side, dtype=torch.float64) + 0.5) * scale - 0.5).clamp(min=0)
    first = at.long()
    second = torch.minimum(first + 1, length[:, None] - 1)
    return start[:, None] + first, start[:, None] + second, ((at - first) * ONE).round().long()


def cut_out(images: Tensor, generator: torch.Generator, side: int, fill: Tensor) -> Tensor:
    """Fill a square hole in each image with a colour (C,) uint8 (DeVries & Taylor 2017): (B,C,H,W) -> the same shape.

    The centre is any pixel, and the hole is cut off at the border. The dataset's mean is about zero once normalised.
    """
    b, _, h, w = images.shape
    drawn = to_draw(images, generator)
    top = own(torch.randint(0, h, (drawn,), generator=generator), generator) - side // 2
    left = own(torch.randint(0, w, (drawn,), generator=generator), generator) - side // 2
    sides = torch.full((b,), side)
    return fill_boxes(images, top, left, sides, sides, fill)


def fill_boxes(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, fill: Tensor) -> Tensor:
    """Fill a box in each image, as far as it lies within, with a colour (C,) uint8: (B,C,H,W) -> the same shape.

    top, left, height, width: (B,) int64.
    """
    h, w = images.shape[-2:]
    rows, columns = (
        to_device_async(
            (start[:, None] <= torch.arange(n)) & (torch.arange(n) < (start + size)[:, None]), images.device
        )
        for start, size, n in ((top, height, h), (left, width, w))
    )  # (B,H), (B,W)
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], fill[:, None, None], images)
