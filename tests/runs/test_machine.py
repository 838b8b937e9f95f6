"""What a run's status says of the machine that it trains on, with an invented GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from iekd.runs.machine import Machine
from iekd.runs.status import Status


class FakeCuda:
    """The part of torch.cuda that is asked. utilization: what it answers, or raises."""

    def __init__(self, utilization: Any) -> None:
        self.answer, self.asked = utilization, 0

    def get_device_properties(self, device: Any) -> Any:
        return SimpleNamespace(name="Fast", total_memory=8 * 2**30)

    def memory_reserved(self, device: Any) -> int:
        return 2**30

    def utilization(self, device: Any) -> int:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return int(self.answer)


GPU, CPU = SimpleNamespace(type="cuda"), SimpleNamespace(type="cpu")


def told(machine: Machine, status: Status) -> tuple[Any, ...]:
    machine.note(status)
    return status.gpu, status.gpu_memory, status.gpu_memory_used, status.gpu_utilisation, status.threads


def test_a_gpu_has_a_name_memory_and_utilisation() -> None:
    assert told(Machine(GPU, lambda: 4, FakeCuda(87)), Status()) == ("Fast", 8 * 2**30, 2**30, 87, None)


@pytest.mark.parametrize("error", [ModuleNotFoundError("pynvml"), RuntimeError("driver"), OSError("denied")])
def test_without_the_library_utilisation_is_left_out_and_not_asked_for_again(error: Exception) -> None:
    cuda = FakeCuda(error)
    machine, status = Machine(GPU, lambda: 4, cuda), Status()
    for _ in range(2):
        assert told(machine, status) == ("Fast", 8 * 2**30, 2**30, None, None)
    assert cuda.asked == 1


def test_a_run_that_goes_on_elsewhere_tells_of_that_machine_and_threads_may_change() -> None:
    status, counts = Status(), iter((4, 2))
    told(Machine(GPU, lambda: 4, FakeCuda(87)), status)
    machine = Machine(CPU, lambda: next(counts))
    assert told(machine, status) == ("", None, None, None, 4)
    assert told(machine, status)[-1] == 2
