"""Which part of every batch, and of the held-out images, one of several processes has (parallel.py).

Each of them draws a whole batch (order, crops, flips, partners of mixed images) and reads and computes its part of it,
so that all parts together are the batch of one process, pixel for pixel.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from iekd.engine.stream import DeviceImages, HeldOutImages, Stream
from iekd.errors import TrainingError
from iekd.plural import counted


class BatchShare(NamedTuple):
    """One of so many parts, in order and as equal as possible."""

    number: int
    parts: int

    def of(self, size: int) -> slice:
        """Its images, of so many."""
        return slice(size * self.number // self.parts, size * (self.number + 1) // self.parts)


class PartOfDraws(torch.Generator):
    """Draws for a whole batch of `size` images, of which only those at `rows` are here."""

    size = 0
    rows: Tensor

    def draw_for(self, size: int, rows: Tensor) -> None:
        self.size, self.rows = size, rows


def to_draw(images: Tensor, generator: torch.Generator) -> int:
    """For how many images random numbers are drawn: those of the whole batch."""
    return generator.size if isinstance(generator, PartOfDraws) else len(images)


def own(draws: Tensor, generator: torch.Generator) -> Tensor:
    """Of draws (...,B) for a whole batch those of the images that are here."""
    return draws[..., generator.rows] if isinstance(generator, PartOfDraws) else draws


def part_of_images(images: DeviceImages, rows: slice) -> HeldOutImages:
    """Some of the images (N,C,H,W), which are only read in order; of streamed ones no others are read."""
    return images[rows] if isinstance(images, Tensor) else _PartOfStream(images, rows)


def shares_of(
    held_out: Mapping[str, tuple[DeviceImages, Tensor]], part: BatchShare | None
) -> dict[str, tuple[HeldOutImages, Tensor]]:
    """Of each split (images (N,C,H,W), labels (N,)) a part; None for whole splits.

    Raises:
        TrainingError: one has fewer images than there are parts.
    """
    if part is None:
        return dict(held_out)
    found: dict[str, tuple[HeldOutImages, Tensor]] = {}
    for kind, (images, labels) in held_out.items():
        if len(labels) < part.parts:
            raise TrainingError(
                f"The {kind} split has {counted(len(labels), 'image')}, fewer than {part.parts} processes. Use fewer "
                "processes."
            )
        rows = part.of(len(labels))
        found[kind] = part_of_images(images, rows), labels[rows]
    return found


class _PartOfStream:
    def __init__(self, stream: Stream, rows: slice) -> None:
        self.stream, self.rows = stream, torch.arange(rows.start, rows.stop)
        self.shape = (len(self.rows), *stream.shape[1:])

    def split(self, size: int, /) -> Generator[Tensor, None, None]:
        return self.stream.read(torch.split(self.rows, size))
