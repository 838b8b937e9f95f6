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
from iekd.engine.part import BatchShare, PartOfDraws
from iekd.engine.stream import DeviceImages, Loader, Stream, processes
from iekd.errors import TrainingError
from iekd.plural import counted

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
    training: Split, held_out: Sequence[Split], device: torch.device, image_memory: float | None,
    workers: int | None = None,
) -> Generator[tuple[tuple[DeviceImages, Tensor], list[tuple[DeviceImages, Tensor]]], None, None]:  # fmt: skip
    """`images_on_device` for what is trained on and for the others, which stay on the device beside views of pictures
    if they are in memory: those alone are streamed then."""
    groups = [[training, *held_out]]
    if isinstance(training.images, PictureViews) and not any(isinstance(s.images, FileImages) for s in held_out):
        groups = [[training], list(held_out)]
    with contextlib.ExitStack() as stack:
        first, *others = (
            pair
            for splits in groups
            for pair in stack.enter_context(images_on_device(splits, device, image_memory, workers))
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
    part: of every batch, which alone is read and yielded; None for whole batches.
    """

    def __init__(
        self, images: DeviceImages, labels: Tensor, batch_size: int, seed: int, augment: Augment | None = None,
        drop_last: bool = True, extras: Extras | None = None, part: BatchShare | None = None,
    ) -> None:  # fmt: skip
        self.images, self.labels = images, labels
        self.batch_size = min(batch_size, len(labels))
        self.seed, self.part = seed, part
        full, rest = divmod(len(labels), self.batch_size)
        self.steps = full + (rest > 1 and not drop_last)
        self.last = rest if self.steps > full else self.batch_size  # images of an epoch's last batch
        self.padding = padding_of(images.shape[-1])
        self.extras = extras
        self.augment = augment or partial(crop_and_flip, padding=self.padding)

    def __len__(self) -> int:
        """Steps per epoch."""
        return self.steps

    def whole(self, step: int) -> tuple[int, int]:
        """(labelled, unlabelled) images of the batch that is next after so many steps of training, all parts of it."""
        return (self.last if (step + 1) % self.steps == 0 else self.batch_size), 0

    def check_parts(self, least: int = 1) -> None:
        """Raises TrainingError if some part of a batch would have fewer than `least` images."""
        if self.part is None or min(self.batch_size, self.last) >= least * self.part.parts:
            return
        which = "A batch" if self.batch_size < least * self.part.parts else "The last batch of an epoch"
        remedy = "use fewer processes" + (", or leave that batch out with --drop-last" * (self.last < self.batch_size))
        raise TrainingError(
            f"{which} has {min(self.batch_size, self.last)} images, and {self.part.parts} processes need at least "
            f"{least * self.part.parts}. Use a larger batch size, {remedy}."
        )

    def order(self, generator: torch.Generator) -> Tensor:
        """The images of an epoch, (steps * batch size,) int64."""
        return torch.randperm(len(self.labels), generator=generator)[: len(self) * self.batch_size]

    def epoch(self, epoch: int, skip: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield (images (B,C,H,W) uint8, labels (B,)) of epoch number `epoch`, the first `skip` batches left out.

        Labels of mixed images are shares of the classes, (B,K) float32.
        """
        generator = self._generator(self.seed * 1_000_003 + epoch)
        order = self.order(generator)
        sizes = [len(batch) for batch in torch.split(order, self.batch_size)[skip:]]
        chosen = self._batches(to_device_async(order, self.labels.device))[skip:]
        seeds: Sequence[Tensor] = ()
        if isinstance(self.images, Stream) and self.images.has_views:
            seeds = self._batches(torch.randint(2**62, order.shape, generator=generator))[skip:]
        blank = torch.zeros(1, dtype=torch.uint8, device=self.labels.device)
        for _ in range(skip):  # draw the same random numbers; how many depends on the shape alone
            count = self._draw_for(generator, self.batch_size)
            self.augment(blank.expand(count, *self.images.shape[1:]), generator)
            self._own_generator(generator)
        if isinstance(self.images, Stream):
            image_batches: Iterator[Tensor] = self.images.read(self._batches(order)[skip:], seeds)
        else:
            image_batches = map(self.images.__getitem__, chosen)
        for images, rows, size in zip(image_batches, chosen, sizes, strict=True):  # (B,C,H,W) uint8, (B,)
            self._draw_for(generator, size)
            views, labels = self.augment(images, generator), self.labels[rows]
            if own := self._own_generator(generator):
                assert self.extras is not None
                self._draw_for(own, size)
                views, labels = self.extras(views, labels, own)
            yield (views[1:], labels[1:]) if self._reads_one_more else (views, labels)

    def _generator(self, seed: int) -> torch.Generator:
        generator = torch.Generator() if self.part is None else PartOfDraws()
        generator.manual_seed(seed)
        return generator

    def _own_generator(self, generator: torch.Generator) -> torch.Generator | None:
        """Of the extras for one batch; nothing is drawn where there are none."""
        if self.extras is None:
            return None
        return self._generator(int(torch.randint(2**62, (), generator=generator)))

    def _batches(self, values: Tensor) -> Sequence[Tensor]:
        """One value for each image of an epoch, by batch: those of the images that are read here."""
        return [self._mine(batch) for batch in torch.split(values, self.batch_size)]

    def _mine(self, batch: Tensor) -> Tensor:
        if self.part is None:
            return batch
        mine = self.part.of(len(batch))
        before = batch[mine.start - 1 :][:1] if self._reads_one_more else batch[:0]
        return torch.cat([before, batch[mine]])

    @property
    def _reads_one_more(self) -> bool:
        """Whether the image before a part is read too: where images are mixed, its first one is mixed with that."""
        return self.part is not None and self.extras is not None and bool(self.extras.kinds)

    def _draw_for(self, generator: torch.Generator, size: int) -> int:
        """Prepare to draw for a batch of that size; returns how many of its images are read here."""
        if not isinstance(generator, PartOfDraws):
            return size
        rows = self._mine(torch.arange(size))
        generator.draw_for(size, rows)
        return len(rows)


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
        part = labelled.part
        self.here = self.batch_size if part is None else len(range(self.batch_size)[part.of(self.batch_size)])

    def __len__(self) -> int:
        return len(self.labelled)

    def whole(self, step: int) -> tuple[int, int]:
        """As `Batches.whole`."""
        return self.labelled.whole(step)[0], self.batch_size

    def check_parts(self) -> None:
        """Raises TrainingError if some part of a batch would have no unlabelled image."""
        part = self.labelled.part
        if part is not None and self.batch_size < part.parts:
            raise TrainingError(
                f"A batch has {counted(self.batch_size, 'unlabelled image')}, fewer than {part.parts} processes. Use a "
                "larger batch size or fewer processes."
            )

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
        seed = labelled.seed + UNLABELLED_SEED
        super().__init__(images, labels, share, seed, augment, extras=extras, part=labelled.part)
        self.batch_size, self.steps = share, len(labelled)

    def order(self, generator: torch.Generator) -> Tensor:
        """Every image once before any comes again."""
        needed, count = self.steps * self.batch_size, len(self.labels)
        rounds = [torch.randperm(count, generator=generator) for _ in range(-(-needed // count))]
        return torch.cat(rounds)[:needed]
