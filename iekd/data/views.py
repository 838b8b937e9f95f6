"""Random parts of pictures, cropped from their files: what augmentation enlarges from a shrunk copy is there in full.

The law of the boxes is that of torchvision's RandomResizedCrop (Szegedy et al. 2015), as in engine/augment.py; what is
drawn for a picture follows from one number, so that any process may make it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from iekd.data.decoding import CROP, ENOUGH, header, open_image
from iekd.data.file_images import FileImages, Files
from iekd.errors import DataError

AREA, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10  # of a resized crop, as in torchvision
LOOKED_AT = 64  # files whose headers say how large the pictures of a split are


class Box(NamedTuple):
    """Pixels of a picture."""

    left: int
    top: int
    width: int
    height: int


class Draws(NamedTuple):
    """What is drawn for one view, uniform from 0 to 1: (10,) each for the areas and the ratios of attempts at a box."""

    areas: np.ndarray
    ratios: np.ndarray
    left: float
    top: float
    mirror: float

    @classmethod
    def of(cls, seed: int) -> Draws:
        numbers = np.random.default_rng(seed).random(2 * ATTEMPTS + 3)
        return cls(numbers[:ATTEMPTS], numbers[ATTEMPTS:-3], *map(float, numbers[-3:]))

    def box(self, width: int, height: int) -> Box:
        """In a picture of that size: of ten attempts the first that fits, else the largest central one whose ratio is
        allowed."""
        for area, ratio in zip(self.areas, self.ratios, strict=True):
            share = AREA[0] + (AREA[1] - AREA[0]) * area
            wide = math.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * ratio)
            w, h = (round(math.sqrt(width * height * share * factor)) for factor in (wide, 1 / wide))
            if 0 < w <= width and 0 < h <= height:
                return Box(int(self.left * (width - w + 1)), int(self.top * (height - h + 1)), w, h)
        w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
        return Box((width - w) // 2, (height - h) // 2, w, h)


class PictureViews(FileImages):
    """The pictures of some files; beside what FileImages gives, random views of them.

    mirrored: whether each view is, with probability 1/2.
    """

    def __init__(
        self, files: Files, resolution: int, channels: int, white: float | None = None, mirrored: bool = True
    ) -> None:
        super().__init__(files, np.zeros((len(files), 0), np.int64), resolution, channels, CROP, white)
        self.mirrored = mirrored

    def views(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """A view of each of those rows (N,), by its seed (N,) int64: (N,S,S,C) uint8.

        Raises:
            DataError: a file cannot be read any more.
        """
        _, side, _, channels = self.shape
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for i, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            try:
                found[i] = view(self.files[row], side, channels, Draws.of(int(seed)), self.white, self.mirrored)
            except DataError:
                raise self._gone(row) from None
        return found


def view(
    path: str, side: int, channels: int, draws: Draws, white: float | None = None, mirrored: bool = True
) -> np.ndarray:
    """A random part of a picture, scaled to (side, side, channels) uint8. A JPEG is decoded at a half, quarter or
    eighth as long as the part has `side` pixels there.

    Raises:
        DataError: see `open_image`.
    """
    stored, wanted = header(path), 0
    width, height = (stored.width, stored.height) if stored else (0, 0)
    if stored:
        part = draws.box(width, height)
        wanted = math.ceil(min(width, height) * side / min(part.width, part.height) / ENOUGH)
    image = open_image(path, "", wanted, white).convert("L" if channels == 1 else "RGB")
    if (width - height) * (image.width - image.height) < 0:  # it was turned, as the camera noted
        width, height = height, width
    box = draws.box(width, height)
    across, down = image.width / width, image.height / height
    corners = (box.left * across, box.top * down, (box.left + box.width) * across, (box.top + box.height) * down)
    image = image.resize((side, side), Image.Resampling.BILINEAR, corners)
    if mirrored and draws.mirror < 0.5:
        image = ImageOps.mirror(image)
    return np.asarray(image, np.uint8).reshape(side, side, channels)


def usual_side(files: Files) -> int:
    """The median of the shorter sides of the pictures, by the headers of some of them; 0 if none can be read."""
    rows = np.unique(np.linspace(0, len(files) - 1, min(LOOKED_AT, len(files))).astype(int))
    found = [size for row in rows if (size := header(files[int(row)])) is not None]
    return int(np.median([min(size.width, size.height) for size in found])) if found else 0
