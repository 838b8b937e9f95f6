"""What a run computes on, for its status: a GPU with its memory and utilisation, or the threads of the processor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from iekd.runs.status import Status

log = logging.getLogger("iekd")


class Machine:
    """Writes into a status what its run computes on. Cheap enough for every write of the status."""

    def __init__(self, device: Any, threads: Callable[[], int], cuda: Any = None) -> None:
        """device: a torch.device. threads: how many compute on a processor now. cuda: instead of torch.cuda."""
        import torch

        self.device, self.threads, self.cuda = device, threads, cuda or torch.cuda
        self.tells_utilisation = True
        self.name, self.memory = "", None
        if device.type == "cuda":
            found = self.cuda.get_device_properties(device)
            self.name, self.memory = str(found.name), int(found.total_memory)

    def note(self, status: Status) -> None:
        """Set the fields of the status that are about the machine, all of them: it may be another one than before."""
        status.gpu, status.gpu_memory = self.name, self.memory
        status.gpu_memory_used = status.gpu_utilisation = status.threads = None
        if self.device.type == "cuda":
            status.gpu_memory_used = int(self.cuda.memory_reserved(self.device))
            status.gpu_utilisation = self._utilisation()
        elif self.device.type == "cpu":
            status.threads = self.threads()

    def _utilisation(self) -> int | None:
        """Percent of the last moments in which the GPU computed anything; None where nothing tells it."""
        if not self.tells_utilisation:
            return None
        try:
            return int(self.cuda.utilization(self.device))
        except Exception as error:  # without the driver's library, or the right to ask, each in its own way
            self.tells_utilisation = False
            log.debug("The GPU's utilisation is not shown: %s", error)
            return None

    def __str__(self) -> str:
        if self.memory is not None:
            return f"{self.device}: {self.name}, {self.memory / 2**30:.1f} GiB"
        return f"{self.device}, {self.threads()} threads" if self.device.type == "cpu" else str(self.device)
