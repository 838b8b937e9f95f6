"""Which GPUs this process may use, told without importing torch: the driver knows, or else its list of devices."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

KNOWN = Path("/proc/driver/nvidia/gpus")
WHOLE = re.compile(r"(?:GPU|MIG)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)


@dataclass(frozen=True)
class Gpu:
    """entry: what CUDA_VISIBLE_DEVICES has to be for CUDA to see this GPU alone. uuid: None where nothing tells it."""

    entry: str
    uuid: str | None


def gpus() -> tuple[Gpu, ...]:
    """CUDA's devices in its order; a single one without a UUID where nothing tells which there are.

    It stays as it was when it was first asked: a worker hides all GPUs but its own from CUDA later (`slots.use`).
    """
    return _found()


@lru_cache(maxsize=1)
def _found() -> tuple[Gpu, ...]:
    named = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    if named and all(map(WHOLE.fullmatch, named)):
        return tuple(Gpu(entry, WHOLE.fullmatch(entry)[1].lower()) for entry in named)  # type: ignore[index]
    if told := _ask_driver():
        return tuple(Gpu(named[i] if i < len(named) else str(i), uuid) for i, uuid in enumerate(told))
    listed = _from_list()
    found = []
    for entry in named or map(str, range(len(listed))):
        if not (entry.isdecimal() and int(entry) < len(listed)):
            break  # CUDA ignores what follows an entry that it does not know
        found.append(Gpu(entry, listed[int(entry)]))
    return tuple(found) or (Gpu(named[0] if named else "0", None),)


def _ask_driver() -> tuple[str, ...]:
    """The UUIDs of CUDA's devices; none if the driver does not answer. In a process of its own: this one may fork, and
    an initialised driver does not survive that."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"from {__name__} import say_uuids; say_uuids()"],
            capture_output=True, text=True, timeout=30, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = done.stdout.split()
    return tuple(found) if done.returncode == 0 and all(WHOLE.fullmatch(f"GPU-{uuid}") for uuid in found) else ()


def say_uuids() -> None:
    """Print a line for each of CUDA's devices; the driver's own library knows their order and what is visible."""
    cuda, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    ask = getattr(cuda, "cuDeviceGetUuid_v2", None) or cuda.cuDeviceGetUuid  # the second knows no parts of a GPU
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        sys.exit(1)
    for index in range(count.value):
        device, uuid = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        if cuda.cuDeviceGet(ctypes.byref(device), index) or ask(ctypes.byref(uuid), device):
            sys.exit(1)
        number = bytes(uuid).hex()
        print("-".join((number[:8], number[8:12], number[12:16], number[16:20], number[20:])))


def _from_list() -> list[str]:
    """UUIDs in the order of the bus, which is CUDA's where all GPUs are of one kind."""
    try:
        texts = [(folder / "information").read_text() for folder in sorted(KNOWN.iterdir())]
    except OSError:
        return []
    found = [WHOLE.search(text) for text in texts]
    return [match[1].lower() for match in found if match] if all(found) else []
