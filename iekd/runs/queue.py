"""The queue of this machine: one run per slot (slots.py), that is per GPU, first come first served.

Every waiting worker looks for itself, so the queue needs no server: the oldest living queued run that may use a slot
trains there next, once the kernel gives it the slot's lock. Order holds within one folder of runs; on a GPU that
several folders or users share (devices.py), the first to ask once it is free has it. A run whose teacher another run is
training lets later ones go before it (shared_teacher.py). Runs of other launchers are queued by those (owner.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from iekd.config.run import RunConfig
from iekd.errors import RunError
from iekd.runs.devices import DeviceLock
from iekd.runs.files import read_json, write_json
from iekd.runs.locks import fcntl
from iekd.runs.owner import LOCAL
from iekd.runs.slots import Slot, check_device, device_name, slots
from iekd.runs.status import QUEUED, Status
from iekd.runs.store import Run, Store


def ahead_of(run: Run, store: Store) -> list[Run]:
    """Living queued runs that may use one of its slots and came earlier, oldest first.

    For a run of another launcher, what that launcher says; none if the store does not know it.
    """
    if run.owner != LOCAL:
        owner = store.owners.get(run.owner)
        ids = owner.ahead_of(run.id) if owner else ()
        known = {other.id: other for other in store.list()}  # one may have been deleted since
        return [known[other] for other in ids if other in known]
    mine, before = frozenset(slots(run.config.device)), (queued_at(run), run.id)
    waiting = []
    for other in store.list():
        try:
            if other.id == run.id or mine.isdisjoint(slots(other.config.device)):
                continue
        except RunError:  # a damaged folder does not delay other runs
            continue
        status = other.status
        queued = status.state == QUEUED and not status.yields and other.owner == LOCAL
        if queued and (queued_at(other), other.id) < before:
            waiting.append(other)
    return sorted(waiting, key=lambda other: (queued_at(other), other.id))


def ahead_of_new(config: RunConfig, store: Store) -> list[Run]:
    """The live runs of this machine that a run started now would wait for: those that train, then those queued; none
    where a slot is left for it."""
    mine, training, queued = slots(config.device), list[Run](), list[Run]()
    names, busy = {slot.name for slot in mine}, set[str]()
    for run in sorted(store.list(), key=lambda run: (queued_at(run), run.id)):
        try:
            status = run.status
            if run.owner != LOCAL or not status.live:
                continue
            if status.state == QUEUED:
                queued += [run] * (not set(mine).isdisjoint(slots(run.config.device)))
            elif taken := names & slots_of(run, status):
                training.append(run)
                busy |= taken
        except RunError:  # a damaged folder does not delay other runs
            continue
    return [*training, *queued] if len(busy) + len(queued) >= len(mine) else []


def slots_of(run: Run, status: Status) -> set[str]:
    """The names of the slots that a run trains at; workers of older versions used the first of their kind."""
    return set(status.slot.split(",")) if status.slot else {device_name(run.config.device)}


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


def slot_lock(slot: Slot, store: Store) -> Path:
    """The file whose lock says that a run of this folder has the slot; older versions use only this one."""
    locks = store.root / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return locks / (slot.lock if slot.renumbered and slot.lock else slot.name)


def machine_lock(slot: Slot, store: Store) -> DeviceLock | None:
    """The lock of the GPU for the whole machine; None for the CPU, see devices.py."""
    return DeviceLock(slot.lock, store.root / ".locks" / "machine") if slot.lock else None


def device_free(config: RunConfig, store: Store) -> bool:
    """Whether there is a slot for it that nobody has at the moment, and on the CPU nobody else either: two would
    disturb each other."""
    free = [_free(slot, store) for slot in slots(config.device)]
    return all(free) if device_name(config.device) == "cpu" else any(free)


def _free(slot: Slot, store: Store) -> bool:
    with open(slot_lock(slot, store), "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    machine = machine_lock(slot, store)
    return machine is None or not machine.busy()


@contextmanager
def device_turn(
    run: Run, store: Store, stop: Callable[[], bool], poll: float = 0.5, tell: Callable[[str], None] | None = None,
    ready: Callable[[], bool] = lambda: True,
) -> Iterator[Slot | None]:  # fmt: skip
    """Wait for one of the run's slots; yields it while it is held, or None if `stop()` came first.

    Args:
        tell: called with a sentence when runs of other folders have the GPUs, and when that changes.
        ready: whether the run could train now; asked when it has a slot, which others may have otherwise.
    Raises:
        UserError: this machine has no such device.
    """
    places = [(slot, machine_lock(slot, store)) for slot in slots(run.config.device)]
    if not places:
        check_device(run.config.device)
    told = ""
    with ExitStack() as held:
        files = {slot: os.open(slot_lock(slot, store), os.O_RDWR | os.O_CREAT, 0o644) for slot, _ in places}
        for handle in files.values():
            held.callback(os.close, handle)
        while not stop():
            wanted = {slot for other in ahead_of(run, store) for slot in slots(other.config.device)}
            holders = []
            for slot, machine in places:
                if slot in wanted or not _try(files[slot]):
                    continue
                if machine is not None and not machine.take(run.id, store.root.resolve().name):
                    holders.append(machine.holder())
                elif ready():
                    try:
                        yield slot
                    finally:
                        if machine is not None:
                            machine.give_back()
                    return
                elif machine is not None:
                    machine.give_back()
                fcntl.flock(files[slot], fcntl.LOCK_UN)
            said = _busy(holders, len(places)) if holders else told
            if tell and said != told:
                tell(said)
                told = said
            time.sleep(poll)
        yield None


@contextmanager
def several_slots(
    run: Run, store: Store, stop: Callable[[], bool], count: int, tell: Callable[[str], None],
    ready: Callable[[], bool], poll: float = 0.5,
) -> Iterator[tuple[Slot, ...] | None]:  # fmt: skip
    """As `device_turn`, for `count` slots at once. It holds none while it waits for others: two runs that wait for each
    other's would never train."""
    check_device(device := run.config.device)
    told = False
    while not stop():
        with ExitStack() as held:
            taken = () if ahead_of(run, store) else _take(slots(device), count, run, store, held)
            if len(taken) == count and ready():
                yield taken
                return
        if not told:
            tell(f"Waiting for {count} GPUs at once.")
            told = True
        time.sleep(poll)
    yield None


def _take(places: tuple[Slot, ...], count: int, run: Run, store: Store, held: ExitStack) -> tuple[Slot, ...]:
    """The free ones of some slots, `count` at most, which are given back with `held`."""
    taken: list[Slot] = []
    for slot in places:
        if len(taken) == count:
            break
        handle = os.open(slot_lock(slot, store), os.O_RDWR | os.O_CREAT, 0o644)
        held.callback(os.close, handle)
        machine = machine_lock(slot, store)
        if not _try(handle):
            continue
        if machine is not None:
            if not machine.take(run.id, store.root.resolve().name):
                continue
            held.callback(machine.give_back)
        taken.append(slot)
    return tuple(taken)


def _busy(holders: list[str], gpus: int) -> str:
    which = "the GPU" if gpus == 1 else f"one of {gpus} GPUs"
    return f"Waiting for {which}, which {' and '.join(holders)} {'uses' if len(holders) == 1 else 'use'}."


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
