"""Several processes that train one run: how they are started, find each other, and end together.

The first one, number 0, is the run's worker: it alone writes the run's folder and hears requests to stop. The others
(`follow`) read the same files, train the same networks on their part of each batch (engine/parallel.py) and write
nothing. Either the worker starts them (`iekd train --nproc N`, on this machine), or torchrun has started all of them.

They find each other in a store of torch.distributed. It also carries all messages but gradients: that the data is
loaded, with which teacher, that a process has failed and why, and that the run is over. Whatever happens, the worker
says that it is over, and nobody outlives it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from iekd import __version__, plugins
from iekd.config.methods import check_divisible
from iekd.config.run import RunConfig
from iekd.errors import TrainingError, UserError
from iekd.paths import python_path
from iekd.runs.owner import LOCAL
from iekd.runs.slots import Slot, device_name, slots
from iekd.runs.store import Run
from iekd.runs.variables import NPROC

log = logging.getLogger("iekd")
MOST = 1024
POLL = 0.2  # seconds
GRACE = 20.0  # seconds that the worker has to notice by itself that another process is gone
CAUSE = 5.0  # seconds in which the process that caused an error says so
LEAVING = 5.0  # seconds that processes of torchrun's have to hear that the run is over
KILLED_AFTER = 1.0  # seconds after which one that the worker has started is killed: it has nothing to save
SAID_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun, and whoever follows its convention
# keys of the store; of two of them each process has one, which ends in its number
RUN, LOADED, FAILED, OVER, HERE, GONE = (f"iekd/{n}" for n in ("run", "loaded", "failed", "over", "here/", "gone/"))


class Place(NamedTuple):
    """Which of several processes this one is: number `rank` of `world`; and among those of this machine."""

    rank: int
    world: int
    local_rank: int
    local_world: int


def place_here() -> Place | None:
    """The place that torchrun has given to this process; None if it was started alone.

    Raises:
        UserError: the variables that say so are damaged.
    """
    given = {name: os.environ.get(name, "") for name in SAID_BY}
    if not all(given.values()):
        return None
    local_rank, local_count = os.environ.get("LOCAL_RANK", "0"), os.environ.get("LOCAL_WORLD_SIZE", "1")
    words = (given["RANK"], given["WORLD_SIZE"], local_rank, local_count)
    if not all(word.isdecimal() for word in words) or not int(words[0]) < int(words[1]):
        raise UserError(
            f"RANK '{words[0]}' of WORLD_SIZE '{words[1]}' is no place among processes. Start them with torchrun, or "
            "unset these variables to train with one."
        )
    return Place(*map(int, words)) if int(words[1]) > 1 else None


def tasks_of_slurm() -> int:
    """How many processes srun has started beside this one, with it; 1 outside of a step of Slurm."""
    given = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    return int(given) if given.isdecimal() else 1


def nproc() -> int:
    """How many processes of this machine train a run together.

    Raises:
        UserError: the environment variable is no such number.
    """
    given = os.environ.get(NPROC, "1")
    if not (given.isdecimal() and 1 <= int(given) <= MOST):
        raise UserError(
            f"'{given}' processes cannot train a run ({NPROC}, --nproc). Give a whole number from 1 to {MOST:,}."
        )
    return int(given)


def share_run(processes: int | None) -> None:
    """Let so many processes train each run that this process, or one that it starts, trains; None: as it is.

    Raises:
        UserError: it is no such number, or torchrun has started them already.
    """
    if processes is not None:
        os.environ[NPROC] = str(processes)
    if nproc() > 1 and place_here() is not None:
        raise UserError("torchrun has started the processes already. Leave --nproc out.")


def check_processes(config: RunConfig, count: int, place: Place | None = None) -> None:
    """Raises UserError if so many processes cannot train that run, as far as it is known before it starts."""
    if count < 2:
        return
    check_divisible(config.methods)
    least = count if config.sync_bn else 2 * count
    if config.batch_size < least:
        why = "" if config.sync_bn else ", each of which needs two images for its batch norm"
        raise UserError(
            f"Batch size '{config.batch_size}' is too small for {count} processes{why}. Use {least} or more, or fewer "
            "processes.",
            "batch_size",
        )
    kind, here = device_name(config.device), count if place is None else place.local_world
    if kind == "mps":
        raise UserError("Several processes cannot share an Apple GPU. Use one, or add --device cpu.")
    if kind == "cuda":
        there = len(slots(config.device if place is None else "cuda"))
        if there < here:
            which = "" if ":" not in config.device else f" ('{config.device}' is one)"
            raise UserError(
                f"{here} processes need {here} GPUs, and there {'is' if there == 1 else 'are'} {there} here{which}. "
                "Use fewer processes, or --device cpu."
            )
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available() or (kind == "cuda" and not dist.is_nccl_available()):
        needed = "gloo" if kind == "cpu" else "gloo and NCCL"
        raise UserError(f"This torch cannot connect processes: it was built without {needed}. Use one process.")


@dataclass
class Team:
    """All processes of a run, as one of them sees it.

    store: of torch.distributed, where they meet. by_torchrun: it has started them; otherwise the worker has, which lets
    each see no GPU but its own. failure: of another process, in words; only the worker learns of it. left: set once the
    worker needs the others no more.
    """

    place: Place
    store: Any
    by_torchrun: bool = False
    failure: str | None = None
    left: threading.Event = field(default_factory=threading.Event)
    processes: Any = None  # engine Processes, once they are connected

    def device(self, config: RunConfig) -> str:
        """Where this process trains."""
        from iekd.engine.accelerate import choose_device

        kind = choose_device(config.device.partition(":")[0]).type
        return f"{kind}:{self.place.local_rank}" if kind == "cuda" and self.by_torchrun else kind

    def join(
        self, device: Any, sync_norms: bool, images: str | None, teacher: str, check_stop: Callable[[], None]
    ) -> Any:
        """Once the data is loaded: wait for the others and connect with them; returns engine Processes.

        images: what they are known by.
        teacher: which one the first process has found, for the others (teachers.as_told).
        Raises:
            TrainingError: another process has failed, or has other images or versions.
        """
        import torch
        import torch.distributed as dist

        from iekd.engine.parallel import Processes

        mine = {"version of iekd": __version__, "version of torch": torch.__version__, "set of images": images}
        about = {**mine, "kind of device": torch.device(device).type}
        self.store.set(f"{HERE}{self.place.rank}", json.dumps({**about, "machine": platform.node()}))
        if self.place.rank == 0:
            self.store.set(LOADED, teacher)
            for rank in range(1, self.place.world):
                self._compare(about, rank, check_stop)
        group = dist.PrefixStore("iekd/group", self.store)  # type: ignore[attr-defined]
        rank, count, _, local = self.place
        self.processes = Processes.join(group, rank, count, torch.device(device), sync_norms, local)
        return self.processes

    def _compare(self, about: dict[str, Any], rank: int, check_stop: Callable[[], None]) -> None:
        other = json.loads(self.wait_for(f"{HERE}{rank}", check_stop))
        for what, mine in about.items():
            if other[what] != mine:
                said = "" if what == "set of images" else f" ({other[what]} instead of {mine})"
                raise TrainingError(
                    f"Process {rank} on {other['machine']} has another {what} than process 0{said}. Give all machines "
                    "the same versions and the same files."
                )

    def wait_for(self, key: str, check_stop: Callable[[], None] = lambda: None) -> str:
        """What another process says in the store.

        Raises:
            TrainingError: another process has failed meanwhile.
        """
        while not self.store.check([key]):
            if self.failure is not None:
                raise TrainingError(self.failure)
            check_stop()
            time.sleep(POLL)
        found: bytes = self.store.get(key)
        return found.decode()

    def say_failed(self, why: str) -> None:
        """Of a process that is not the worker; the first one counts."""
        if not self.store.check([FAILED]):
            self.store.set(FAILED, f"Process {self.place.rank} of {self.place.world} failed: {why}")


@contextlib.contextmanager
def together(
    run: Run, place: Place | None, places: Sequence[Slot], abandon: Callable[[str], None]
) -> Iterator[Team | None]:
    """The worker's part: start the others, or call those that torchrun has started, and end them all; None if the
    worker trains alone.

    Args:
        places: the slots that the run has, one for each process on GPUs.
        abandon: called, from another thread, with what happened if a process is gone and this one does not notice.
            It does not return.
    Raises:
        TrainingError: another process has failed.
    """
    count = place.world if place else nproc() if run.owner == LOCAL else 1
    if count < 2:
        yield None
        return
    check_processes(run.config, count, place)
    with contextlib.ExitStack() as stack:
        children: list[subprocess.Popen[bytes]] = []
        if place is not None:
            team = Team(place, environment_store(), by_torchrun=True)
            team.store.set(RUN, str(run.path.resolve()))
        else:
            stack.enter_context(_loopback())
            folder = Path(tempfile.mkdtemp(prefix="iekd-processes-"))  # nobody else may write there
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            team = Team(Place(0, count, 0, count), file_store(folder, count))
            stack.callback(_end, children)
            for rank in range(1, count):
                children.append(_start(run, rank, count, folder, places[rank].visible if len(places) > 1 else ""))
        watcher = threading.Thread(target=_watch, args=(team, children, abandon), daemon=True)
        watcher.start()
        orderly = False
        try:
            yield team
            orderly = True
        except RuntimeError as error:  # also how torch says that a process is gone
            if said := _cause(team):
                raise TrainingError(said) from error
            raise
        finally:
            team.left.set()
            watcher.join()
            _say_over(team)
            if team.processes is not None:
                team.processes.leave(orderly)


def _cause(team: Team) -> str | None:
    """What another process has failed of, if one has."""
    deadline = time.monotonic() + CAUSE
    while team.failure is None and time.monotonic() < deadline:
        time.sleep(POLL)
    return team.failure


def _watch(team: Team, children: Sequence[subprocess.Popen[bytes]], abandon: Callable[[str], None]) -> None:
    while not team.left.wait(POLL):
        said = team.store.get(FAILED).decode() if team.store.check([FAILED]) else None
        for rank, child in enumerate(children, 1):
            if said is None and child.poll() is not None:
                said = f"Process {rank} of {team.place.world} {_ended(child.returncode)}"
        if said is not None:
            team.failure = said
            if not team.left.wait(GRACE):
                _end(children, patience=0)
                abandon(said)
            return


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}. The log may say why."
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    memory = " Perhaps memory was short: use a smaller batch size, or fewer processes." * (code == -signal.SIGKILL)
    return f"was ended by {name}.{memory}"


def _start(run: Run, rank: int, count: int, folder: Path, visible: str) -> subprocess.Popen[bytes]:
    with open(run.path / "log.txt", "ab") as output, _signals_wait():
        return subprocess.Popen(
            [
                sys.executable, "-m", "iekd.runs.follower", str(run.path), str(folder), str(rank), str(count),
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={
                **os.environ, "PYTHONPATH": python_path(), **plugins.environment(),
                **({"CUDA_VISIBLE_DEVICES": visible} if visible else {}),
            },
        )  # fmt: skip


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Within, what asks to stop is held back, here until the end and in a process that is started until it has said
    that it ignores it: Ctrl-C goes to all of a terminal's processes, and only the worker is to act on it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _say_over(team: Team) -> None:
    """Tell the others that the run is over, and wait a little until they have heard it: the store may end with this
    process."""
    with contextlib.suppress(Exception):  # the store is gone, and so are they
        team.store.set(OVER, "")
        waiting = [f"{GONE}{rank}" for rank in range(1, team.place.world) if team.by_torchrun]
        deadline = time.monotonic() + LEAVING
        while waiting and time.monotonic() < deadline and team.failure is None:
            waiting = [key for key in waiting if not team.store.check([key])]
            time.sleep(0.05)


def _end(children: Sequence[subprocess.Popen[bytes]], patience: float = KILLED_AFTER) -> None:
    deadline = time.monotonic() + patience
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        if child.poll() is None:
            child.kill()
            child.wait()


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Within, processes that are started connect within this machine only."""
    card = _loopback_card()
    ours = [name for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if card and name not in os.environ]
    os.environ.update(dict.fromkeys(ours, card or ""))
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _loopback_card() -> str | None:
    cards = psutil.net_if_addrs()
    return next((name for name, found in cards.items() if any(a.address == "127.0.0.1" for a in found)), None)


def file_store(folder: Path, count: int) -> Any:
    """The store of processes of this machine, in a folder that nobody else may write to."""
    import torch.distributed as dist

    return dist.FileStore(str(folder / "store"), count)  # type: ignore[attr-defined]


def environment_store() -> Any:
    """The store that torchrun has made, or the address that it names.

    Raises:
        TrainingError: it does not answer.
    """
    import torch.distributed as dist

    try:
        return next(dist.rendezvous("env://"))[0]  # type: ignore[attr-defined]
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"The first process at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} does not answer "
            f"({str(error).strip().splitlines()[0]}). Check the addresses that torchrun was given."
        ) from error
