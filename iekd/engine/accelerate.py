"""Everything that makes the step fast and nothing that changes what it computes.

Device and precision are chosen here; frozen networks are folded here; learners that share a batch are run side by side
on the CPU's cores here. The plain version of the step is `loop.run_epoch` and `learner.Learner.step`.
"""

from __future__ import annotations

import contextlib
import copy
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from iekd.engine.metrics import TrainingError

Item = TypeVar("Item")
Result = TypeVar("Result")
Network = TypeVar("Network", bound=nn.Module)


def choose_device(name: str) -> torch.device:
    """ "auto" -> cuda, mps or cpu, the first that is there. A named device must be there.

    Raises:
        TrainingError: it is not.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    if not there[name]:
        raise TrainingError(f"Device '{name}' was asked for, but there is none here. Choose 'auto' or 'cpu'.")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """ "auto" -> bfloat16 where the hardware multiplies it natively, else float32."""
    if name == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # private, and absent before torch 2.6
            native = device.type == "cpu" and check is not None and bool(check())
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Mixed precision for the enclosed forward pass; nothing for float32."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def channels_last(network: Network, device: torch.device) -> Network:
    """Move a network in place; convolutions are fastest when each pixel's channels lie side by side."""
    network.to(device)
    network.to(memory_format=torch.channels_last)
    return network


def freeze(network: nn.Module) -> nn.Module:
    """A copy for inference: evaluation mode, batch norm folded into the convolutions, channels last.

    The outputs equal the original's up to rounding; the original is untouched.
    """
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    return fuse(frozen).to(memory_format=torch.channels_last)


def side_by_side(
    source: Iterable[Item], workers: list[Callable[[Item], Iterable[Result]]], ahead: int = 3
) -> Iterator[Result]:
    """Give every item of `source` to every worker, each worker in a thread of its own; yield what they return.

    Results come in the order of items, and of workers for one item, whoever was first: a run's rows are always the
    same. A worker gets the items in order and may be up to `ahead` items in front of the slowest. As many threads as
    there are cores compute at a time, each with its share of the cores, which beats all cores on one small network:
    batch norm and activations of such networks are too short to be split. Closing the generator stops all threads
    after their current item; an error in any thread is raised here.
    """
    running = threading.Semaphore(cores())
    share = max(1, cores() // (len(workers) + 1))  # the source computes too
    stopped = threading.Event()
    inboxes: list[queue.Queue[Item | None]] = [queue.Queue(ahead) for _ in workers]
    outbox: queue.Queue[tuple[int, int, list[Result]] | BaseException | None] = queue.Queue()

    def put(inbox: queue.Queue[Item | None], item: Item | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                return inbox.put(item, timeout=0.1)

    def produce() -> None:
        items = iter(source)
        while not stopped.is_set():
            with running:
                item = next(items, None)
            for inbox in inboxes:
                put(inbox, item)
            if item is None:
                return

    def consume(w: int, worker: Callable[[Item], Iterable[Result]], inbox: queue.Queue[Item | None]) -> None:
        done = 0
        while not stopped.is_set():
            try:
                item = inbox.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is None:
                return
            with running:
                outbox.put((done, w, list(worker(item))))
            done += 1

    def guarded(task: Callable[[], None]) -> None:
        torch.set_num_threads(share)
        try:
            task()
        except BaseException as error:
            outbox.put(error)
        finally:
            outbox.put(None)

    tasks = [produce, *(partial(consume, w, *pair) for w, pair in enumerate(zip(workers, inboxes, strict=True)))]
    threads = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in tasks]
    before = torch.get_num_threads()
    for thread in threads:
        thread.start()
    try:
        finished, at = 0, 0  # at: item * len(workers) + worker of the results that are next
        early: dict[int, list[Result]] = {}
        while finished < len(threads):
            news = outbox.get()
            if news is None:
                finished += 1
            elif isinstance(news, BaseException):
                raise news
            else:
                early[news[0] * len(workers) + news[1]] = news[2]
                while at in early:
                    yield from early.pop(at)
                    at += 1
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
        torch.set_num_threads(before)
