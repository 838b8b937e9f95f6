"""Where images live, and shuffled, augmented batches of them.

The order and the augmentation of an epoch depend on (seed, epoch) alone, so that a resumed or repeated run sees the
same batches, wherever the images are. Leaves out: normalisation, which each network does for itself.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from iekd.config.run import RunConfig
from iekd.data.base import Dataset, Split
from iekd.data.decoding import CROP
from iekd.data.file_images import FileImages
from iekd.data.memory import image_budget
from iekd.data.views import PictureViews, usual_side
from iekd.engine.augment import Augment, crop_and_flip, padding_of, to_device_async
from iekd.engine.distortions import Extras
from iekd.engine.stream import DeviceImages, Loader, Stream, processes

log = logging.getLogger(__name__)


def to_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """(images (N,C,H,W) uint8, labels (N,) int64) on the device."""
    images = torch.from_numpy(split.images[:]).permute(0, 3, 1, 2)
    return images.to(device), torch.from_numpy(split.labels).to(device)


@contextlib.contextmanager
def images_on_device(
    splits: Sequence[Split], device: torch.device, image_memory: float | None = None, workers: int | None = None
) -> Generator[list[tuple[DeviceImages, Tensor]], None, None]:
    """(images, labels (N,) int64) of each split: all on the device, or all streamed to it while the context lasts.

    Both give the same pixels.

    Args:
        splits: what to read from, all of one shape.
        device: where the images are needed.
        image_memory: GB that the images may take on the device; they are streamed if they take more, or are still in
            their files. None: half of the device's free memory; on the CPU, where they are already, no limit.
        workers: processes that read, for one split at a time. None: by the number of cores.
    """
    size, limit = sum(split.images.nbytes for split in splits), room_for_images(device, image_memory)
    if size <= limit and not any(isinstance(split.images, FileImages) for split in splits):
        log.info("The images take %.2f GB and are stored in the memory of %s.", size / 1e9, device)
        yield [to_device(split, device) for split in splits]
        return
    workers = processes(device) if workers is None else workers
    if size > limit:
        log.info(
            "The images take %.2f GB, of which %s may hold %.2f GB: they are streamed to it by %d processes.",
            size / 1e9, device, limit / 1e9, workers,
        )  # fmt: skip
    else:
        log.info("Images are read from their files by %d processes.", workers)
    with contextlib.closing(Loader([split.images for split in splits], device, workers)) as loader:
        streams = [Stream(loader, number) for number in range(len(splits))]
        labels = [torch.from_numpy(split.labels).to(device) for split in splits]
        yield list(zip(streams, labels, strict=True))


@contextlib.contextmanager
def images_of_run(
    training: Split, held_out: Sequence[Split], device: torch.device, image_memory: float | None
) -> Generator[tuple[tuple[DeviceImages, Tensor], list[tuple[DeviceImages, Tensor]]], None, None]:
    """`images_on_device` for what is trained on and for the others, which stay on the device beside views of pictures
    if they are in memory: those alone are streamed then."""
    groups = [[training, *held_out]]
    if isinstance(training.images, PictureViews) and not any(isinstance(s.images, FileImages) for s in held_out):
        groups = [[training], list(held_out)]
    with contextlib.ExitStack() as stack:
        first, *others = (
            pair for splits in groups for pair in stack.enter_context(images_on_device(splits, device, image_memory))
        )
        yield first, others


def training_split(config: RunConfig, dataset: Dataset) -> Split:
    """What is trained on: the training split, or random views of its pictures where resized crops are asked for and the
    pictures are larger than the images."""
    files = dataset.train.image_files
    if config.augmentation != "resized-crop" or dataset.fit != CROP or files is None:
        return dataset.train
    side = usual_side(files)
    if side <= dataset.resolution:
        return dataset.train
    log.info("Training images are cropped from the original pictures, whose shorter side is %d pixels (median).", side)
    views = PictureViews(files, dataset.resolution, dataset.channels, dataset.white, config.flip)
    return Split(views, dataset.train.labels)


def room_for_images(device: torch.device, image_memory: float | None) -> float:
    """Bytes of the device's memory that images may take; see `images_on_device`."""
    if image_memory is None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2
    if image_memory is None and device.type == "cpu":
        return float("inf")
    return image_budget(image_memory)


class TrainingBatches(Protocol):
    """What training gets its batches from: `Batches`, or a loader's (loaders.py)."""

    def __len__(self) -> int:
        """Steps per epoch, the same in every epoch."""
        ...

    def epoch(self, epoch: int, skip: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield (images (B,C,H,W), labels (B,)) of epoch number `epoch`, the first `skip` batches left out."""
        ...


class Batches:
    """Shuffled, augmented batches of one split.

    augment: None for a crop of the padded image, and a flip. Where the images are streamed as random views of their
        pictures, it gets those.
    extras: what is done to a batch after that. It has a generator of its own for each batch, so that batches that are
        left out need not be made; only then are its draws taken from the epoch's.
    drop_last: leave out the last, smaller batch of an epoch. It is always left out if it would be a single image, of
        which batch norm has no statistics.
    """

    def __init__(
        self, images: DeviceImages, labels: Tensor, batch_size: int, seed: int, augment: Augment | None = None,
        drop_last: bool = True, extras: Extras | None = None,
    ) -> None:  # fmt: skip
        self.images, self.labels = images, labels
        self.batch_size = min(batch_size, len(labels))
        self.seed = seed
        full, rest = divmod(len(labels), self.batch_size)
        self.steps = full + (rest > 1 and not drop_last)
        self.padding = padding_of(images.shape[-1])
        self.extras = extras
        self.augment = augment or partial(crop_and_flip, padding=self.padding)

    def __len__(self) -> int:
        """Steps per epoch."""
        return self.steps

    def order(self, generator: torch.Generator) -> Tensor:
        """The images of an epoch, (steps * batch size,) int64."""
        return torch.randperm(len(self.labels), generator=generator)[: len(self) * self.batch_size]

    def epoch(self, epoch: int, skip: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield (images (B,C,H,W) uint8, labels (B,)) of epoch number `epoch`, the first `skip` batches left out.

        Labels of mixed images are shares of the classes, (B,K) float32.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = self.order(generator)
        chosen = torch.split(to_device_async(order, self.labels.device), self.batch_size)[skip:]
        seeds: Sequence[Tensor] = ()
        if isinstance(self.images, Stream) and self.images.has_views:
            seeds = torch.split(torch.randint(2**62, order.shape, generator=generator), self.batch_size)[skip:]
        blank = torch.zeros(1, dtype=torch.uint8, device=self.labels.device)
        for _ in range(skip):  # draw the same random numbers; how many depends on the shape alone
            self.augment(blank.expand(self.batch_size, *self.images.shape[1:]), generator)
            self._own_generator(generator)
        if isinstance(self.images, Stream):
            image_batches: Iterator[Tensor] = self.images.read(torch.split(order, self.batch_size)[skip:], seeds)
        else:
            image_batches = map(self.images.__getitem__, chosen)
        for images, rows in zip(image_batches, chosen, strict=True):  # (B,C,H,W) uint8, (B,)
            views, labels = self.augment(images, generator), self.labels[rows]
            own = self._own_generator(generator)
            yield self.extras(views, labels, own) if self.extras and own else (views, labels)

    def _own_generator(self, generator: torch.Generator) -> torch.Generator | None:
        """Of the extras for one batch; nothing is drawn where there are none."""
        if self.extras is None:
            return None
        return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))


UNLABELLED_SEED = 2**31  # added to the seed of the order of unlabelled images


class WithUnlabelled:
    """Batches of labelled images, each followed by the same number of unlabelled ones, whose label is -1.

    There are as many unlabelled images as their share of all would give, at most as many as labelled ones. The labelled
    images of each step are those of `labelled` alone. Unlabelled images are distorted as those are, but never mixed.
    """

    def __init__(self, labelled: Batches, images: DeviceImages, augment: Augment | None = None) -> None:
        """images: the unlabelled ones, (N,C,H,W). augment: of these; None: that of the labelled ones."""
        self.labelled = labelled
        self.unlabelled = _Unlabelled(labelled, images, augment or labelled.augment)
        self.batch_size = self.unlabelled.batch_size  # unlabelled images of each batch

    def __len__(self) -> int:
        return len(self.labelled)

    def epoch(self, epoch: int, skip: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield (images (B+m,C,H,W), labels (B+m,), or (B+m,K) where labelled images are mixed) of epoch number
        `epoch`, the first `skip` batches left out."""
        with (
            contextlib.closing(self.labelled.epoch(epoch, skip)) as labelled,
            contextlib.closing(self.unlabelled.epoch(epoch, skip)) as unlabelled,
        ):
            for (images, labels), (more, _) in zip(labelled, unlabelled, strict=True):
                none = labels.new_full((len(more), *labels.shape[1:]), -1)
                yield torch.cat([images, more]), torch.cat([labels, none])


class _Unlabelled(Batches):
    """As many batches as there are of labelled images, whatever the number of unlabelled ones."""

    def __init__(self, labelled: Batches, images: DeviceImages, augment: Augment) -> None:
        count, size = images.shape[0], labelled.batch_size
        labels = torch.full((count,), -1, dtype=labelled.labels.dtype, device=labelled.labels.device)
        share = min(size, max(1, round(size * count / len(labelled.labels))))
        extras = replace(labelled.extras, mixup=0.0, cutmix=0.0) if labelled.extras else None
        super().__init__(images, labels, share, labelled.seed + UNLABELLED_SEED, augment, extras=extras)
        self.batch_size, self.steps = share, len(labelled)

    def order(self, generator: torch.Generator) -> Tensor:
        """Every image once before any comes again."""
        needed, count = self.steps * self.batch_size, len(self.labels)
        rounds = [torch.randperm(count, generator=generator) for _ in range(-(-needed // count))]
        return torch.cat(rounds)[:needed]
