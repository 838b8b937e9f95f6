"""`iekd doctor`: whether this machine can train and store runs, and what to do if it cannot."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from iekd import __version__
from iekd.data import decoded_cache
from iekd.data.memory import free_memory
from iekd.errors import UserError
from iekd.models.shipped import shipped_models
from iekd.paths import cache_dir, checkpoints_dir, unpacked_dir
from iekd.runs.slots import device_name
from iekd.runs.status import LOST
from iekd.runs.store import Store
from iekd.runs.trash import KEPT, TRASH, deletions
from iekd.runs.uploads import unused, uploads_dir

FINE, NOTE, TROUBLE = "fine", "note", "trouble"
PYTHON, TORCH = ((3, 10), (3, 14)), (2, 8)
LEAST_DISK, LEAST_MEMORY = 2e9, 1.5e9  # bytes
HALF_WRITTEN = (".*.part", ".*.deleted", ".copy-*", ".sending-*")
OLD = 3600.0  # seconds after which no process is still writing it


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. state: fine, note or trouble; remedy: what to do, empty where nothing is."""

    name: str
    state: str
    found: str
    remedy: str = ""


def examine(runs_dir: Path) -> list[Finding]:
    """Look at everything; a look that fails is itself a finding."""
    looks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("versions", _versions), ("devices", _devices), ("memory", _memory),
        ("runs folder", lambda: _folder("runs folder", Store(runs_dir).root, "--runs-dir")),
        ("download folder", lambda: _folder("download folder", cache_dir(), "IEKD_CACHE_DIR")),
        ("shipped models", _models), ("runs", lambda: _runs(Store(runs_dir))),
    ]  # fmt: skip
    found: list[Finding] = []
    for name, look in looks:
        try:
            found.extend(look())
        except (OSError, UserError, ImportError, RuntimeError) as error:
            found.append(Finding(name, TROUBLE, str(error).strip().splitlines()[0]))
    return found


def leftovers(store: Store) -> list[Path]:
    """What killed processes left half written or half deleted, deleted runs in the trash for over an hour, and uploaded
    images that no run uses any more."""
    folders = (store.root, uploads_dir(store), unpacked_dir(), decoded_cache.folder())
    found = (path for folder in folders for pattern in HALF_WRITTEN for path in folder.glob(pattern))
    deleted = [store.root / TRASH / d.name for d in deletions(store) if time.time() - d.at > KEPT]
    return sorted([*(path for path in found if time.time() - path.stat().st_mtime > OLD), *deleted, *unused(store)])


def clean(store: Store) -> list[Path]:
    """Remove the leftovers; returns what they were."""
    gone = leftovers(store)
    for path in gone:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return gone


def _versions() -> Iterator[Finding]:
    first, last = PYTHON
    supported = first <= sys.version_info[:2] <= last
    yield Finding(
        "Python", FINE if supported else TROUBLE, platform.python_version(),
        "" if supported else f"Use Python {first[0]}.{first[1]} to {last[0]}.{last[1]}.",
    )  # fmt: skip
    yield Finding("iekd", FINE, __version__)
    for name in ("torch", "torchvision", "gradio", "safetensors"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, TROUBLE, "not installed", "Run: make run, or: pip install -r requirements.txt")
            continue
        old = name == "torch" and tuple(map(int, version.split(".")[:2])) < TORCH
        yield Finding(name, TROUBLE if old else FINE, version, f"Install torch {TORCH[0]}.{TORCH[1]} or newer." * old)


def _devices() -> Iterator[Finding]:
    import torch

    from iekd.data.control_groups import cores
    from iekd.engine.accelerate import choose_device, choose_precision

    device = choose_device("auto")
    kind = torch.cuda.get_device_name() if device.type == "cuda" else f"{cores()} CPU cores"
    if device.type == "cuda" and (count := torch.cuda.device_count()) > 1:
        kind = f"{count} GPUs, the first is {kind}"
    if device.type == "mps":
        kind = "Apple GPU"
    precision = "bf16" if choose_precision("auto", device) == torch.bfloat16 else "fp32"
    yield Finding("device", FINE, f"{device.type}: {kind}, {precision}")
    if device_name("auto") != device.type:
        yield Finding(
            "GPU driver", TROUBLE, f"there is a {device_name('auto')} device, but torch cannot use it",
            "Install the torch that fits the driver (nvidia-smi shows its CUDA version), or train with --device cpu.",
        )  # fmt: skip


def _memory() -> Iterator[Finding]:
    free = free_memory()
    yield Finding(
        "memory", FINE if free > LEAST_MEMORY else TROUBLE, f"{free / 1e9:.1f} GB free",
        "" if free > LEAST_MEMORY else "End other programs; the default run needs about 1.5 GB.",
    )  # fmt: skip


def _folder(name: str, path: Path, option: str) -> Iterator[Finding]:
    """Whether it can be written, and how much room there is."""
    there = path
    while not there.exists():
        there = there.parent
    probe = there / f".doctor-{time.time_ns()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        yield Finding(name, TROUBLE, f"'{path}' cannot be written ({error.strerror})", f"Choose another with {option}.")
        return
    free = shutil.disk_usage(there).free
    enough = free > LEAST_DISK
    yield Finding(
        name, FINE if enough else TROUBLE, f"'{path}', {free / 1e9:.1f} GB free",
        "" if enough else f"Free some space, or choose another with {option}.",
    )  # fmt: skip


def _models() -> Iterator[Finding]:
    found = shipped_models()
    here = f"{len(found)} in '{checkpoints_dir()}'"
    yield Finding("shipped models", FINE if found else NOTE, here, "" if found else "Teachers are trained by the runs.")


def _runs(store: Store) -> Iterator[Finding]:
    runs = store.list()
    damaged, lost = [], []
    for run in runs:
        try:
            _ = run.config
        except UserError:
            damaged.append(run.id)
            continue
        if run.status.state == LOST:
            lost.append(run.id)
    yield Finding("runs", FINE, f"{len(runs)}, {sum(run.alive() for run in runs)} of them alive")
    if lost:
        remedy = f"Resume with: iekd runs resume {lost[0]}"
        yield Finding("lost runs", NOTE, ", ".join(lost), remedy)
    if damaged:
        yield Finding("damaged runs", NOTE, ", ".join(damaged), f"Delete with: iekd runs delete {damaged[0]}")
    if rest := leftovers(store):
        yield Finding("leftovers", NOTE, ", ".join(path.name for path in rest), "Remove with: iekd doctor --clean")
