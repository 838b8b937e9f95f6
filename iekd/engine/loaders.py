"""Batches and held-out images from somebody's DataLoaders, in the shape in which training takes its own.

The images are float32 and already normalised. Every batch is checked when it arrives: what a loader gives first says
little about what it gives later. Leaves out augmentation, normalisation and order, which are the loaders'.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from iekd.engine.draws import one_at_a_time
from iekd.errors import DataError, first_line
from iekd.plural import counted

Loader = Iterable[Any]  # of batches (images (B,C,H,W) floating, labels (B,) whole numbers); its len() is their number
Value = TypeVar("Value")


class LoaderBatches:
    """Training batches of a loader. All have the shape of the first one.

    A DataLoader's last, smaller batch is left out, as everywhere in this package; other loaders must give none.
    counts: (K,) int64, images of each class in the newest epoch.
    """

    def __init__(
        self, loader: Loader, shape: tuple[int, ...], classes: int, device: torch.device, seed: int, name: str
    ) -> None:
        """shape: (B,C,H,W) of the first batch. seed: of the random numbers that the loader draws from torch's global
        generator. name: in messages."""
        self.loader, self.classes, self.device, self.seed, self.name = loader, classes, device, seed, name
        self.shape, self.steps = shape, _whole_batches(loader, shape[0], name)
        self.counts = np.zeros(classes, np.int64)

    def __len__(self) -> int:
        """Steps per epoch."""
        return self.steps

    def epoch(self, epoch: int, skip: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield (images (B,C,H,W) float32, labels (B,)) of epoch number `epoch`, the first `skip` batches left out.

        Raises:
            DataError: a batch is not like the first, or there are too few.
        """
        self.counts = np.zeros(self.classes, np.int64)
        done = 0
        batches = _drawn(self.loader, self.seed * 1_000_003 + epoch)
        for images, labels in islice(_checked(batches, self.shape[1:], self.classes, self.name), self.steps):
            if len(images) != self.shape[0]:
                raise DataError(
                    f"Batch {done + 1} of {self.name} has {counted(len(images), 'image')}, the first {self.shape[0]}. "
                    "All must have as many: use a DataLoader with a batch size, or drop_last=True."
                )
            done += 1
            self.counts += np.bincount(labels.numpy(), minlength=self.classes)
            if done > skip:
                yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        if done < self.steps:
            raise DataError(
                f"The {self.name} gave {counted(done, 'batch')} in epoch {epoch + 1}, but its len() promises "
                f"{self.steps}. Give a loader that has as many in every epoch."
            )


class LoaderImages:
    """A loader's images (N,C,H,W) in order, read from it again for each evaluation, so that they need no memory.

    labels: (N,) int64 on the CPU, collected once; later passes must give the same.
    """

    def __init__(
        self, loader: Loader, image_shape: tuple[int, ...], classes: int, device: torch.device, seed: int, name: str
    ) -> None:
        """image_shape: (C,H,W) of the training images; the others as in LoaderBatches."""
        self.loader, self.image_shape, self.classes = loader, image_shape, classes
        self.device, self.seed, self.name = device, seed, name
        found = [labels for _, labels in self._batches()]
        if not found:
            raise _empty(name)
        self.labels = torch.cat(found)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.labels), *self.image_shape)

    def split(self, size: int, /) -> Generator[Tensor, None, None]:
        """All images in order, `size` at a time and the last ones fewer, on the device.

        Raises:
            DataError: their labels are not those of the first pass.
        """
        seen, waiting = 0, list[Tensor]()
        for images, labels in self._batches():
            if not torch.equal(labels, self.labels[seen : seen + len(labels)]):
                self._refuse_order()
            seen += len(labels)
            waiting.append(images)
            if sum(map(len, waiting)) >= size:
                *whole, rest = torch.split(torch.cat(waiting), size)
                waiting = [rest]
                if len(rest) == size:
                    whole, waiting = [*whole, rest], []
                for part in whole:
                    yield part.to(self.device, non_blocking=True)
        if seen != len(self.labels):
            self._refuse_order()
        if waiting:
            yield torch.cat(waiting).to(self.device, non_blocking=True)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return _checked(_drawn(self.loader, self.seed), self.image_shape, self.classes, self.name)

    def _refuse_order(self) -> None:
        raise DataError(
            f"The {self.name} gives other images, or in another order, each time it is read, so predictions cannot be "
            "compared with labels. Use shuffle=False and a sampler without chance."
        )


def first_batch(loader: Loader, name: str) -> tuple[Tensor, Tensor]:
    """(images (B,C,H,W) float32, labels (B,) int64) of the first batch, on the CPU.

    Raises:
        DataError: there is none, or it is not (images, labels).
    """
    for batch in _drawn(loader, 0):
        return _pair(batch, 1, name)
    raise _empty(name)


def _empty(name: str) -> DataError:
    return DataError(
        f"The {name} gives no batch. Give one with images; with drop_last=True a DataLoader needs a whole batch."
    )


def _whole_batches(loader: Loader, batch_size: int, name: str) -> int:
    """How many batches of that size an epoch has."""
    try:
        count = len(loader)  # type: ignore[arg-type]
        if isinstance(loader, DataLoader) and loader.batch_size is not None and not loader.drop_last:
            drawn_from = loader.dataset if isinstance(loader.dataset, IterableDataset) else loader.sampler
            count = max(1, len(drawn_from) // batch_size)  # type: ignore[arg-type]
    except TypeError as error:
        raise DataError(
            f"The {name} has no length ({first_line(error)}), and the schedule needs the number of steps. Give a "
            "loader whose dataset has __len__."
        ) from error
    return count


def _drawn(loader: Loader, seed: int) -> Iterator[Any]:
    """Its batches, drawn with torch random numbers of their own.

    A loader shuffles and, without workers, augments by torch's global generator. It would give something else whenever
    a network draws numbers too, and its draws would change the networks'.
    """
    own = torch.Generator().manual_seed(seed).get_state()

    def with_own(call: Callable[[], Value]) -> Value:
        nonlocal own
        with one_at_a_time:
            outside = torch.get_rng_state()
            torch.set_rng_state(own)
            try:
                return call()
            finally:
                own = torch.get_rng_state()
                torch.set_rng_state(outside)

    try:
        batches = with_own(lambda: iter(loader))
    except TypeError as error:
        raise DataError(
            f"A {type(loader).__name__} cannot be read as a loader ({first_line(error)}). Give a DataLoader, or "
            "another iterable of (images, labels)."
        ) from error
    end = object()
    while (batch := with_own(lambda: next(batches, end))) is not end:
        yield batch


def _checked(
    batches: Iterator[Any], image_shape: tuple[int, ...], classes: int, name: str
) -> Iterator[tuple[Tensor, Tensor]]:
    for number, batch in enumerate(batches, 1):
        images, labels = _pair(batch, number, name)
        if tuple(images.shape[1:]) != image_shape:
            raise DataError(
                f"Batch {number} of {name} has images {tuple(images.shape[1:])}, the training images begin with "
                f"{image_shape}. All must have one shape (C, H, W)."
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise DataError(
                f"Batch {number} of {name} has the label {low if low < 0 else high}, but the networks have {classes} "
                f"classes, so labels are 0 to {classes - 1}. Renumber them, or give networks with more classes."
            )
        yield images, labels


def _pair(batch: Any, number: int, name: str) -> tuple[Tensor, Tensor]:
    """A loader's batch as (images (B,C,H,W) float32, labels (B,) int64).

    Raises:
        DataError: it is something else.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(t, Tensor) for t in batch):
        what = type(batch).__name__
        if isinstance(batch, (tuple, list)):
            what += f" of {', '.join(type(t).__name__ for t in batch) or 'nothing'}"
        raise DataError(
            f"Batch {number} of {name} is a {what}, not (images, labels), two tensors. Let its collate_fn return these."
        )
    images, labels = batch
    if images.ndim != 4 or not images.is_floating_point():
        raise DataError(
            f"Batch {number} of {name} has images {tuple(images.shape)} of {images.dtype}. They must be (B, C, H, W) "
            "and float, normalised as your networks expect."
        )
    if tuple(labels.shape) != (len(images),) or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"Batch {number} of {name} has labels {tuple(labels.shape)} of {labels.dtype} for "
            f"{counted(len(images), 'image')}. They must be ({len(images)},), whole numbers, one class each."
        )
    if not len(images):
        raise DataError(f"Batch {number} of {name} is empty. Give batches of one image or more.")
    return images.float().cpu(), labels.long().cpu()
