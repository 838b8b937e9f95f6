"""The queue of this machine: one run per device, first come first served.

Every waiting worker looks for itself, so the queue needs no server: the oldest living queued run for a device trains
next, once the kernel gives it the device's lock. Order holds within one folder of runs; on a GPU that several folders
or users share (devices.py), the first to ask once it is free has it. Runs of other launchers are queued by those
(owner.py).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from iekd.config.run import RunConfig
from iekd.errors import RunError, UserError
from iekd.runs.devices import DeviceLock, lock_name
from iekd.runs.files import read_json, write_json
from iekd.runs.locks import fcntl
from iekd.runs.owner import LOCAL
from iekd.runs.store import QUEUED, Run, Store
from iekd.space import on_zero_gpu

GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap", "/dev/kfd")  # NVIDIA's: drivers, WSL, Jetson; and AMD's


def device_name(requested: str) -> str:
    """Which device a run will use, told without importing torch: "cuda", "mps" or "cpu"."""
    if requested != "auto":
        return requested
    if on_zero_gpu():
        return "cpu"
    if any(Path(path).exists() for path in GPUS):
        return "cuda"
    return "mps" if platform.system() == "Darwin" and platform.machine() == "arm64" else "cpu"


def check_device(requested: str) -> None:
    """Raises UserError if the device that a run asks for is certainly not on this machine."""
    there = device_name("auto")
    if requested in ("cuda", "mps") and requested != there:
        raise UserError(f"Device '{requested}' was asked for, but there is none here. Choose 'auto' or 'cpu'.")


def ahead_of(run: Run, store: Store) -> list[Run]:
    """Living queued runs for the same device that came earlier, oldest first.

    For a run of another launcher, what that launcher says; none if the store does not know it.
    """
    if run.owner != LOCAL:
        owner = store.owners.get(run.owner)
        ids = owner.ahead_of(run.id) if owner else ()
        known = {other.id: other for other in store.list()}  # one may have been deleted since
        return [known[other] for other in ids if other in known]
    device, mine = device_name(run.config.device), (queued_at(run), run.id)
    waiting = []
    for other in store.list():
        try:
            if other.id == run.id or device_name(other.config.device) != device:
                continue
        except RunError:  # a damaged folder does not delay other runs
            continue
        if other.status.state == QUEUED and other.owner == LOCAL and (queued_at(other), other.id) < mine:
            waiting.append(other)
    return sorted(waiting, key=lambda other: (queued_at(other), other.id))


def ahead_of_new(config: RunConfig, store: Store) -> list[Run]:
    """The live runs of this machine that a run started now would wait for: the one that trains, then those queued."""
    device, found = device_name(config.device), []
    for run in store.list():
        try:
            status = run.status
            if run.owner == LOCAL and status.live and device_name(run.config.device) == device:
                found.append((status.state == QUEUED, queued_at(run), run.id, run))
        except RunError:  # a damaged folder does not delay other runs
            continue
    return [run for _, _, _, run in sorted(found, key=lambda entry: entry[:3])]


def queued_at(run: Run) -> float:
    """The time that the queue is sorted by: when the run was queued, or an earlier one set by `move_to_front`."""
    given = (read_json(run.path / "control.json") or {}).get("place")
    status = run.status
    return float(given) if isinstance(given, (int, float)) else status.queued or status.created


def move_to_front(run: Run, store: Store) -> None:
    """Move a queued run to the front of its device's queue.

    Raises:
        RunError: it is not waiting.
    """
    status = run.status
    if status.state != QUEUED or run.stop_requested:
        raise RunError(f"The run '{run.id}' is {status.state}; only a run that waits can be moved.")
    before = [queued_at(other) for other in ahead_of(run, store)]
    if before:
        write_json(run.path / "control.json", {"place": min(before) - 1, "time": time.time()})
        run.event("moved to the front")


def device_lock(config: RunConfig, store: Store) -> Path:
    """The file whose lock says that a run of this folder has the device; older versions use only this one."""
    locks = store.root / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return locks / device_name(config.device)


def machine_lock(config: RunConfig, store: Store) -> DeviceLock | None:
    """The lock of the GPU for the whole machine; None for the CPU, see devices.py."""
    name = lock_name(device_name(config.device))
    return DeviceLock(name, store.root / ".locks" / "machine") if name else None


def device_free(config: RunConfig, store: Store) -> bool:
    """Whether nobody has the device at the moment."""
    with open(device_lock(config, store), "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    machine = machine_lock(config, store)
    return machine is None or not machine.busy()


@contextmanager
def device_turn(
    run: Run, store: Store, stop: Callable[[], bool], poll: float = 0.5, tell: Callable[[str], None] | None = None
) -> Iterator[bool]:
    """Wait for the device; yields True while it is held, or False if `stop()` came first.

    tell: called with a sentence when a run of another folder has the device, and when that changes.
    """
    config = run.config
    handle = os.open(device_lock(config, store), os.O_RDWR | os.O_CREAT, 0o644)
    machine, told = machine_lock(config, store), ""
    try:
        while not stop():
            if not ahead_of(run, store) and _try(handle):
                if machine is None or machine.take(run.id, store.root.resolve().name):
                    yield True
                    return
                fcntl.flock(handle, fcntl.LOCK_UN)
                holder = machine.holder()
                if tell and holder != told:
                    tell(f"Waiting for the GPU, which {holder} uses.")
                    told = holder
            time.sleep(poll)
        yield False
    finally:
        if machine is not None:
            machine.give_back()
        os.close(handle)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
