"""How fast the step could be here: what its operations must compute and move, against what the machine was seen to do.

Two probes measure the machine: a large square matrix product, in operations per second, and the copy of a tensor that
no cache holds, in bytes read + written per second. An operation takes at least max(operations / the one, bytes / the
other) (Williams et al. 2009, "Roofline"); the bound of a step is the sum over its operations.

It is the bound of unfused kernels: each operation reads its inputs from memory and writes its outputs there. A step
that fuses several operations, or whose tensors stay in a cache, may be faster than its bound.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from iekd.estimate.timing import synchronise

aten = torch.ops.aten
FREE = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten._unsafe_view}
GATHERS = {aten.index, aten.index_select, aten.gather}  # they read what they return, not all of their first input
READS = {aten._fused_sgd_: ("grads",)}  # it may scale them, which is why its schema says that they are written
OVERWRITES = {aten.copy_, aten.zero_, aten.fill_}  # they write their first input, and do not read it


@dataclass(frozen=True)
class Operation:
    """One operation of a step: its name, floating-point operations, and bytes read + written."""

    name: str
    flops: int
    bytes: int


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within the context, `seen` collects every operation on `device`, views left out; also those of backward."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.seen: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        if _is_view(func) or packet in FREE:
            return out
        moved = _bytes(func, args, kwargs, out, self.device.type)
        if moved:
            count = flop_registry.get(packet)
            flops = int(count(*args, **kwargs, out_val=out)) if count else 0
            self.seen.append(Operation(str(func), flops, moved))
        return out


def _is_view(func: Any) -> bool:
    """Its output is an input, seen otherwise: an alias that is not written to."""
    aliases = [a.alias_info for a in func._schema.arguments if a.alias_info is not None]
    return any(not alias.is_write for alias in aliases)


def _bytes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, device: str) -> int:
    """Inputs + what is written: new outputs, and arguments that are changed in place."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    packet = func.overloadpacket
    changed = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    written = list(_tensors(given[name] for name in changed if name in given and name not in READS.get(packet, ())))
    here = {id(tensor) for tensor in written}
    written += [tensor for tensor in _tensors([out]) if id(tensor) not in here]  # in place, what changed is returned
    read = [_size(t, device) for t in _tensors(args[1:] if packet in OVERWRITES else given.values())]
    outputs = sum(_size(t, device) for t in written)
    if packet in GATHERS:
        read[0] = min(read[0], outputs)
    return sum(read) + outputs


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(list(values)) if isinstance(leaf, Tensor))


def _size(tensor: Tensor, device: str) -> int:
    """Its bytes on the device; an expanded tensor has no more than its storage."""
    if tensor.device.type != device:
        return 0
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


@dataclass(frozen=True)
class Peaks:
    """What the machine was seen to do: floating-point operations per second, bytes read + written per second."""

    flops_per_second: float
    bytes_per_second: float


@dataclass(frozen=True)
class Bound:
    """The least time of some operations: seconds = arithmetic + traffic, by what limits each operation."""

    flops: int
    bytes: int
    arithmetic: float
    traffic: float

    @property
    def seconds(self) -> float:
        return self.arithmetic + self.traffic


def bound(operations: Iterable[Operation], peaks: Peaks) -> Bound:
    """The sum over operations of the longer of computing and moving."""
    flops = moved = 0
    arithmetic = traffic = 0.0
    for operation in operations:
        flops, moved = flops + operation.flops, moved + operation.bytes
        computing = operation.flops / peaks.flops_per_second
        moving = operation.bytes / peaks.bytes_per_second
        if computing > moving:
            arithmetic += computing
        else:
            traffic += moving
    return Bound(flops, moved, arithmetic, traffic)


def measure_peaks(
    device: torch.device, precision: torch.dtype, side: int | None = None, numbers: int | None = None
) -> Peaks:
    """Both probes, the best of several tries each; about a second.

    side: of the matrices; numbers: float32 that are copied. None: large enough for the device.
    """
    cpu = device.type == "cpu"
    side, numbers = side or (2048 if cpu else 8192), numbers or (2**25 if cpu else 2**28)  # 128 MiB, 1 GiB
    own = torch.Generator(device)  # the device's usual one is lost to it where a recording has failed
    a, b = (torch.randn(side, side, device=device, generator=own).to(precision) for _ in range(2))
    with _convolutions_arithmetic(device):
        product = _best(lambda: a @ b, device)
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source), device)
    return Peaks(2 * side**3 / product, 2 * numbers * source.element_size() / copy)


def _best(work: Callable[[], object], device: torch.device, tries: int = 5) -> float:
    """The fewest seconds of one call, after one that warms up."""
    found = float("inf")
    for _ in range(tries + 1):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        found = min(found, time.perf_counter() - began)
    return found


@contextlib.contextmanager
def _convolutions_arithmetic(device: torch.device) -> Iterator[None]:
    """On CUDA, float32 convolutions compute in TF32 unless told otherwise; within, matrix products do so too."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
