"""Streams images that do not fit on the device: processes read ahead, from memory or files, in the requested order.

The pixels are the same as those of an array on the device. Leaves out: the order and the augmentation (batches.py,
augment.py), which are the same for both.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Union

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iekd.data import base as data
from iekd.data.control_groups import cores
from iekd.data.views import PictureViews
from iekd.errors import DataError

CHUNK = 8e6  # bytes that a process reads at a time: with two chunks waiting for each, memory stays small at any batch
MOST_PROCESSES = 8  # of one loader


class Stream:
    """One split's images (N,C,H,W) uint8; the requested ones arrive on the device.

    A loader reads one split at a time: `read` may be called again once the last one has finished, or was closed.
    """

    def __init__(self, loader: Loader, number: int) -> None:
        self.loader, self.number = loader, number
        n, h, w, c = loader.splits[number].shape
        self.shape = (n, c, h, w)

    @property
    def has_views(self) -> bool:
        """Whether random views are cropped from the files."""
        return isinstance(self.loader.splits[self.number], PictureViews)

    def read(self, batches: Sequence[Tensor], seeds: Sequence[Tensor] = ()) -> Generator[Tensor, None, None]:
        """Yield the images (b,C,H,W) of each batch of indices (b,), which are on the CPU.

        seeds: of a view of each image, in batches alike (b,) int64; none for the whole images.

        Raises:
            DataError: a file cannot be read any more.
        """
        return self.loader.read(self.number, batches, seeds)

    def split(self, size: int) -> Generator[Tensor, None, None]:
        """All images in order, `size` at a time, as Tensor.split gives them."""
        return self.read(torch.split(torch.arange(self.shape[0]), size))


DeviceImages = Union[Tensor, Stream]


class HeldOutImages(Protocol):
    """Images (N,C,H,W) that are only read in order: DeviceImages, or those of a loader (loaders.py)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def split(self, size: int, /) -> Iterable[Tensor]:
        """All images in order, `size` at a time and the last ones fewer."""
        ...


def split_into_batches(images: HeldOutImages, size: int) -> Generator[Tensor, None, None]:
    """All images in order, (size,C,H,W) at a time. Close it if it may not be exhausted: see Stream."""
    yield from images.split(size)


def processes(device: torch.device, local_count: int = 1) -> int:
    """How many processes read for one loader; if training runs on the CPU, it needs cores too.

    0 if processes cannot be forked safely: the process that trains then reads the images itself.

    local_count: how many processes that train share the cores of this machine.
    """
    if sys.platform != "linux":
        return 0
    return max(1, min(MOST_PROCESSES, cores() // local_count // (2 if device.type == "cpu" else 1)))


class Loader:
    """Reads several splits for a device, in `workers` processes; 0 reads in the caller's.

    The processes are forked here, before training starts threads that compute, and live until `close`, or until their
    parent has ended. They share its memory, so that nothing is copied to them.
    """

    def __init__(self, splits: Sequence[data.Images], device: torch.device, workers: int) -> None:
        self.splits, self.device = splits, device
        _, h, w, c = splits[0].shape
        self.chunk = max(1, int(CHUNK / (h * w * c)))
        self.requests: list[Any] = []  # (split, rows, seeds) of each chunk; refilled by each `read`
        self.busy = threading.Lock()
        options: dict[str, Any] = {"multiprocessing_context": "fork", "persistent_workers": True, "prefetch_factor": 2}
        self.loader: DataLoader[Any] = DataLoader(
            _Reader(splits), batch_sampler=self.requests, num_workers=workers, collate_fn=_as_it_is,
            pin_memory=device.type == "cuda", worker_init_fn=partial(_live_and_die_with, os.getpid()),
            generator=torch.Generator(),  # else it draws from the global one, which would change other draws
            **(options if workers else {}),
        )  # fmt: skip
        if workers:
            iter(self.loader)  # forks them; nothing is requested yet

    def read(
        self, number: int, batches: Sequence[Tensor], seeds: Sequence[Tensor] = ()
    ) -> Generator[Tensor, None, None]:
        """See Stream.read."""
        chunks = [torch.split(batch, self.chunk) for batch in batches]
        seeded = [chunk.numpy() for batch in seeds for chunk in torch.split(batch, self.chunk)]
        if not self.busy.acquire(blocking=False):
            raise RuntimeError("These images are still being read by an earlier call.")
        try:
            rows = [chunk.numpy() for batch in chunks for chunk in batch]
            self.requests[:] = [
                (number, *pair) for pair in zip(rows, seeded or itertools.repeat(None, len(rows)), strict=True)
            ]
            found = iter(self.loader)
            for batch in chunks:
                pieces = [self._on_device(next(found)) for _ in batch]
                images = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
                yield images.permute(0, 3, 1, 2)
        finally:
            self.busy.release()

    def close(self) -> None:
        """End the processes."""
        del self.loader

    def _on_device(self, found: _Pixels | DataError) -> Tensor:
        if isinstance(found, DataError):
            raise found
        return torch.as_tensor(found.values).to(self.device, non_blocking=True)


@dataclass
class _Pixels:
    """Images (N,H,W,C) uint8. An array travels through a pipe; tensors would need room in /dev/shm, which containers
    have little of."""

    values: np.ndarray | Tensor

    def pin_memory(self) -> _Pixels:
        """Called by torch, in a thread of its own, where the device is an NVIDIA one."""
        return _Pixels(torch.as_tensor(self.values).pin_memory())


class _Reader(Dataset[Any]):
    def __init__(self, splits: Sequence[data.Images]) -> None:
        self.splits = splits

    def __getitems__(self, asked: tuple[int, np.ndarray, np.ndarray | None]) -> _Pixels | DataError:
        number, rows, seeds = asked
        split = self.splits[number]
        try:
            if seeds is not None and isinstance(split, PictureViews):
                return _Pixels(split.views(rows, seeds))
            return _Pixels(split[rows])
        except DataError as error:  # raised by the parent: torch would add the process' traceback
            return error


def _as_it_is(found: Any) -> Any:
    return found


def _live_and_die_with(parent: int, _: int) -> None:
    """Ignore the signals that reach all processes of a terminal, service or cluster job: the parent finishes its step
    first, and needs what it has requested. End with the parent.

    torch's own check for a killed parent waits for ever while a result is in the pipe that nobody will fetch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # it waits for the thread below

    def watch() -> None:
        while os.getppid() == parent:
            told = signal.sigtimedwait({signal.SIGTERM}, 1)
            if told is not None and told.si_pid == parent:  # how torch ends a process that cannot deliver a result
                break
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
