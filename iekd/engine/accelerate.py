"""Everything that makes the step fast and nothing that changes what it computes.

Device and precision are chosen here; frozen networks are folded here; learners that share a batch are run side by side
on the CPU's cores here; the step is recorded and replayed on a GPU here. The plain version of the step is
`loop._run_plain` and `learner.Learner.compute`. Learners of several seeds as one network: `stacked.py`.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import heapq
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from iekd.config.run import RunConfig
from iekd.data.control_groups import cores
from iekd.engine.threads import Threads
from iekd.errors import TrainingError, first_line

log = logging.getLogger(__name__)

Work = Callable[[Tensor, Tensor], None]  # images (B,C,H,W) uint8, labels (B,)
Item = TypeVar("Item")
Result = TypeVar("Result")
Network = TypeVar("Network", bound=nn.Module)


def choose_device(name: str) -> torch.device:
    """ "auto" -> cuda, mps or cpu, the first that is there. A named device must be there; "cuda:1" is the second GPU.

    Raises:
        TrainingError: it is not.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    kind, _, index = name.partition(":")
    if not there.get(kind) or (index and not (index.isdecimal() and int(index) < torch.cuda.device_count())):
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


def freeze(network: nn.Module, precision: torch.dtype | None = None) -> nn.Module:
    """A copy for inference: evaluation mode, batch norm folded into the convolutions, channels last.

    The outputs equal the original's up to rounding; the original is untouched.

    precision: of the weights; that of autocast saves converting them at every step. None leaves
    them as they are.
    """
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    return fuse(frozen).to(dtype=precision).to(memory_format=torch.channels_last)


# options of glibc's `mallopt`: one heap for all threads; tensors up to 256 MB come from it, more than most feature maps
# take; up to 1 GB of it is kept while free
MALLOPT = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, 2**28), "M_TRIM_THRESHOLD": (-1, 2**30)}


def keep_memory() -> None:
    """Let this process keep what a step on the CPU frees, for the next step; does nothing without glibc.

    By default each large tensor goes back to the system and comes as new pages, one fault for every 4 kB of them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for option, value in MALLOPT.values():
        mallopt(option, value)


@dataclass(frozen=True)
class Shortcuts:
    """Which accelerations a run uses; all off is the plain step (`--eager`)."""

    side_by_side: bool = False  # several learners on several CPU cores
    graph: bool = False  # the step as a CUDA graph
    stack: bool = False  # seeds of one method as one network
    compiled: bool = False  # torch.compile

    @classmethod
    def of(cls, config: RunConfig, device: torch.device) -> Shortcuts:
        """What that configuration allows on that device."""
        if config.eager:
            return cls()
        cuda = device.type == "cuda"
        return cls(
            side_by_side=device.type == "cpu" and cores() > 1,
            graph=cuda and config.graph,
            stack=cuda and config.stack,
            compiled=config.compile,
        )


def compile_or_not(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function through torch.compile; as it is, with a line in the log, where that fails on the first call."""
    chosen: list[Callable[..., Result]] = []

    def call(*args: Any) -> Result:
        if chosen:
            return chosen[0](*args)
        compiled = torch.compile(function)
        try:
            result = compiled(*args)
            chosen.append(compiled)
        except Exception as error:  # no compiler, an operation it does not know, a bug of its own
            warn_not_compiled(error)
            result = function(*args)
            chosen.append(function)
        return result

    return call


def warn_not_compiled(error: BaseException) -> None:
    """One line in the log; the step then runs as it is."""
    log.warning("torch.compile failed (%s); training goes on without it.", first_line(error))


STREAMS = 4  # branches of a recorded step that may run at a time; more would only hold more memory


def branches(tasks: Sequence[Callable[[], None]]) -> None:
    """Do tasks that do not depend on each other: in order, or while a CUDA graph is recorded as parallel branches.

    One learner's kernels are too small to fill a large GPU; outside of a graph the host could not queue them faster.
    """
    if len(tasks) < 2 or not torch.cuda.is_available() or not torch.cuda.is_current_stream_capturing():
        for task in tasks:
            task()
        return
    main, streams = torch.cuda.current_stream(), _streams()[: len(tasks)]
    for stream in streams:
        stream.wait_stream(main)
    try:
        for i, task in enumerate(tasks):
            with torch.cuda.stream(streams[i % len(streams)]):
                task()
    finally:  # a recording with loose ends could not even be given up
        for stream in streams:
            main.wait_stream(stream)


@functools.cache
def _streams() -> list[Any]:
    """Made once: cuBLAS keeps a workspace for each."""
    return [torch.cuda.Stream() for _ in range(STREAMS)]  # type: ignore[no-untyped-call]


class Recorded:
    """A step recorded once as a CUDA graph and then replayed, so that the host launches one thing instead of hundreds.

    The first calls run as they are: they make what later calls reuse (momentum, sums, the choice of kernels). Where
    recording fails the step goes on as it is, with a line in the log. A batch of another shape than the recorded one,
    such as the smaller one at the end of an epoch, is computed as it is. What the step reads beside its arguments must
    stay at its place in memory, and it may not wait for the device.
    """

    WARM_UP = 3  # calls before recording

    def __init__(self, work: Work, capture: Callable[[Callable[[], None]], Callable[[], None]] | None = None) -> None:
        """capture: record a call and return its replay; CUDA's by default."""
        self.work, self.capture = work, capture or _cuda_capture
        self.calls = 0
        self.replay: Callable[[], None] | None = None
        self.failed = False

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        self.calls += 1
        if self.failed or self.calls <= self.WARM_UP:
            self.work(images, labels)
            return
        if self.replay is None and not self._record(images, labels):
            self.work(images, labels)
            return
        assert self.replay is not None
        if images.shape != self.images.shape:
            self.work(images, labels)
            return
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.replay()

    def _record(self, images: Tensor, labels: Tensor) -> bool:
        self.images, self.labels = images.clone(), labels.clone()
        try:
            self.replay = self.capture(lambda: self.work(self.images, self.labels))
        except RuntimeError as error:  # CUDA's, out of memory among them, and torch's own
            cause: BaseException = error
            while isinstance(cause.__context__, RuntimeError):  # the end of a recording that has failed fails too
                cause = cause.__context__
            log.warning("The step could not be recorded as a CUDA graph (%s); it goes on as it is.", first_line(cause))
            self.failed = True
        return not self.failed


def _cuda_capture(work: Callable[[], None]) -> Callable[[], None]:
    graph, before, pool = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), torch.cuda.graph_pool_handle()
    try:
        # other threads (a loader that pins memory) may use CUDA meanwhile
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
    except BaseException:
        # some versions leave the recording's memory as if it went on, and then no more can be freed or recorded
        with contextlib.suppress(Exception):
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            torch._C._cuda_releasePool(torch.cuda.current_device(), pool)
        raise
    finally:  # some versions stay on the recording's stream where it failed
        torch.cuda.set_stream(before)
    replay: Callable[[], None] = graph.replay
    return replay


@contextlib.contextmanager
def whole_float32(device: torch.device, precision: torch.dtype) -> Generator[None, None, None]:
    """Within, float32 on CUDA means float32: convolutions would round to TF32's ten bits otherwise."""
    if device.type != "cuda" or precision != torch.float32:
        yield
        return
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


FIRST = -1  # the place of what all wait for


class Turns:
    """So many may compute at a time; of those that wait, the one that is furthest behind is next.

    A plain semaphore lets whoever has just finished go on at once. The learners would then keep the teacher waiting
    until both have nothing left to do, and a core idle while it answers.
    """

    def __init__(self, at_a_time: int) -> None:
        self.free, self.waiting = at_a_time, list[tuple[int, int]]()
        self.numbers = itertools.count()
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def at(self, place: int) -> Generator[None, None, None]:
        """place: how far the work within is; the lowest is next, and of equals the one that has waited longest."""
        with self.changed:
            mine = (place, next(self.numbers))
            heapq.heappush(self.waiting, mine)
            self.changed.wait_for(lambda: self.free and self.waiting[0] == mine)
            heapq.heappop(self.waiting)
            self.free -= 1
            self.changed.notify_all()  # there may be room for one more
        try:
            yield
        finally:
            with self.changed:
                self.free += 1
                self.changed.notify_all()


def side_by_side(
    source: Iterable[Item], workers: list[Callable[[Item], Iterable[Result]]], ahead: int = 3,
    threads: Threads | None = None,
) -> Generator[Result, None, None]:  # fmt: skip
    """Give every item of `source` to every worker, each worker in a thread of its own; yield what they return.

    Results come in the order of items, and of workers for one item, whoever was first: a run's rows are always the
    same. A worker gets the items in order and may be up to `ahead` items in front of the slowest. As many workers as
    there are cores compute at a time, each with its share of the threads, which beats all threads on one small
    network: batch norm and activations of such networks are too short to be split. Closing the generator stops all
    threads after their current item; an error in any thread is raised here.

    threads: how many compute; None for one for each core.
    """
    threads = threads or Threads(cores())
    turns, among = Turns(threads.at_a_time), len(workers) + 1  # the source computes too
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
            threads.look()
            threads.use(among)
            with turns.at(FIRST):
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
            threads.use(among)
            with turns.at(done):
                outbox.put((done, w, list(worker(item))))
            done += 1

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            outbox.put(error)
        finally:
            outbox.put(None)

    tasks = [produce, *(partial(consume, w, *pair) for w, pair in enumerate(zip(workers, inboxes, strict=True)))]
    running = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in tasks]
    before = torch.get_num_threads()
    for thread in running:
        thread.start()
    try:
        finished, at = 0, 0  # at: item * len(workers) + worker of the results that are next
        early: dict[int, list[Result]] = {}
        while finished < len(running):
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
        for thread in running:
            thread.join()
        torch.set_num_threads(before)
