"""The places of this machine at which one run at a time trains, told without importing torch: each GPU, or the CPU.

The CPU is one place, unless IEKD_CPU_SLOTS says how many runs may share it.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from iekd.errors import RunError, UserError
from iekd.runs.gpus import gpus
from iekd.runs.variables import CPU_SLOTS
from iekd.space import on_zero_gpu

DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap", "/dev/kfd")  # NVIDIA's: usual, WSL, Jetson; and AMD's


@dataclass(frozen=True)
class Slot:
    """A place for one run.

    kind: "cuda", "mps" or "cpu". index: among those of its kind. lock: the name of the lock for the whole machine; None
    for the CPU, which has none (devices.py). visible: what CUDA_VISIBLE_DEVICES has to be so that CUDA sees this GPU
    alone; "" where there is no other. renumbered: CUDA_VISIBLE_DEVICES gives it another number than it has elsewhere.
    """

    kind: str
    index: int = 0
    lock: str | None = None
    visible: str = ""
    renumbered: bool = False

    @property
    def name(self) -> str:
        """ "cuda:1"; those of older versions, which knew one of each kind, are "cuda", "mps" and "cpu"."""
        return f"{self.kind}:{self.index}" if self.index else self.kind

    def use(self) -> None:
        """Let this process, which must not have used CUDA yet, and those that it starts see no GPU but this one.

        Raises:
            RunError: it has.
        """
        if not self.visible or os.environ.get("CUDA_VISIBLE_DEVICES") == self.visible:
            return
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            raise RunError(
                f"This process already uses a GPU, and this run's is {self.name}. Train it in another process."
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = self.visible


def device_name(requested: str) -> str:
    """The kind of device that a run will use: "cuda", "mps" or "cpu"."""
    if requested != "auto":
        return requested.partition(":")[0]
    if on_zero_gpu() or os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # none is to be used
        return "cpu"
    if any(Path(path).exists() for path in DRIVERS):
        return "cuda"
    return "mps" if platform.system() == "Darwin" and platform.machine() == "arm64" else "cpu"


def slots(requested: str) -> tuple[Slot, ...]:
    """Where a run that asks for that device may train; none if this machine has no such GPU."""
    kind = device_name(requested)
    if kind == "cpu":
        return tuple(Slot("cpu", index) for index in range(cpu_slots()))
    if kind == "mps":
        return (Slot("mps", lock="mps"),)
    found = gpus()
    every = tuple(
        Slot(
            "cuda", i, f"gpu-{gpu.uuid}" if gpu.uuid else Slot("cuda", i).name, gpu.entry if len(found) > 1 else "",
            gpu.entry != str(i),
        )
        for i, gpu in enumerate(found)
    )  # fmt: skip
    _, _, index = requested.partition(":")
    return every[int(index) : int(index) + 1] if index else every


def cpu_slots(given: str = "") -> int:
    """How many runs may share the CPU.

    given: the number, in place of that of the environment variable.
    Raises:
        UserError: it is no such number.
    """
    given = given or os.environ.get(CPU_SLOTS, "1")
    most = os.cpu_count() or 1
    if not (given.isdecimal() and 1 <= int(given) <= most):
        raise UserError(
            f"'{given}' runs cannot share the CPU ({CPU_SLOTS}, --cpu-slots). Give a number from 1 to {most}, the "
            "number of its cores."
        )
    return int(given)


def check_device(requested: str) -> None:
    """Raises UserError if the device that a run asks for is certainly not on this machine."""
    kind, there = device_name(requested), device_name("auto")
    if kind in ("cuda", "mps") and kind != there:
        raise UserError(f"Device '{requested}' was asked for, but there is none here. Choose 'auto' or 'cpu'.")
    if not slots(requested):
        last = len(gpus()) - 1
        known = f"GPUs are 'cuda:0' to 'cuda:{last}'" if last else "only GPU is 'cuda:0'"
        raise UserError(
            f"Device '{requested}' was asked for, but this machine's {known}. Choose one of them, or 'auto'."
        )
