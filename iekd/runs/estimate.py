"""How much time and memory a run would take on this machine, and whether there is enough memory.

Imports torch only to ask a GPU for its free memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from iekd import data
from iekd.config.run import RunConfig
from iekd.data.base import DatasetInfo
from iekd.data.memory import free_memory
from iekd.errors import RunError
from iekd.estimate.cautions import SMALLEST_BATCH, Caution, enough_steps, learned_from
from iekd.estimate.cost import Plan, measured_seconds, plan_of, seconds
from iekd.language import _
from iekd.runs.owner import LOCAL
from iekd.runs.prepare import Prepared
from iekd.runs.probes import Probes
from iekd.runs.slots import device_name
from iekd.runs.status import FINISHED
from iekd.runs.store import Store

# factors within which estimates are expected to be right
SPREAD_MEASURED, SPREAD_OF_OTHERS, SPREAD_OF_A_GUESS = 1.4, 1.6, 2.5
LOOK_BACK = 20  # runs searched for a measured speed
MUCH_WORK = 2e12  # multiply-accumulates: a smaller run is mostly start-up, and its speed says little
# Share of the estimate that training takes at least: 0.6 to 0.9 of it were measured on a CPU (benchmarks/RESULTS.md),
# none on a GPU, where bfloat16 takes half. A run is held up only where not even this is free
AT_LEAST, AT_LEAST_ON_GPU = 0.4, 0.2


@dataclass(frozen=True)
class Shortage:
    """needed, free: bytes of memory; fitting: a batch size that fits, or 0 if none does that can be trained with."""

    needed: float
    free: float
    fitting: int

    def __str__(self) -> str:
        size = f"Batch size {self.fitting} fits." if self.fitting else f"No batch size from {SMALLEST_BATCH} on fits."
        advice = "" if self.fitting else " Use fewer students at a time, smaller models or images."
        return (
            f"The run needs about {in_words(self.needed)} of memory, and {in_words(self.free)} are free. {size}{advice}"
        )


@dataclass(frozen=True)
class Estimate:
    """seconds: of the whole run; spread: the factor within which that is expected to be right; basis: where it comes
    from, in words; short: where memory seems short."""

    plan: Plan
    seconds: float
    spread: float
    basis: str
    short: Shortage | None

    @property
    def warning(self) -> str | None:
        return None if self.short is None else str(self.short)

    @property
    def low(self) -> float:
        return self.seconds / self.spread

    @property
    def high(self) -> float:
        return self.seconds * self.spread

    @property
    def memory(self) -> str:
        return in_words(self.plan.memory)

    def cautions(self, prepared: Prepared, images: str = "images") -> list[Caution]:
        """`Prepared.cautions`, in agreement with what is said of the memory."""
        return prepared.cautions(images, None if self.short is None else self.short.fitting)

    def warnings(self, prepared: Prepared) -> list[str]:
        """What to say of the run before it starts, in sentences."""
        return [*filter(None, [self.warning]), *map(str, self.cautions(prepared))]


def estimate(config: RunConfig, store: Store, teacher_at_hand: bool, info: DatasetInfo | None = None) -> Estimate:
    """Estimate a run from what was measured on this machine.

    Args:
        teacher_at_hand: whether the run need not train its teacher.
        info: of the configuration's dataset; None: it is described here.

    Raises:
        UserError: the dataset cannot be described.
    """
    info = info or data.describe(config.dataset, config.test_fraction)
    device, plan = device_name(config.device), plan_of(config, info, teacher_at_hand)
    taken, spread, basis = expected_seconds(plan, config, info.train_images, info.test_images, store, device)
    short = None
    if device != "cuda":  # whose memory only torch can tell; the run looks when it has the GPU
        most = enough_steps(config, learned_from(config, info))
        short = shortage(config, lambda c: plan_of(c, info, teacher_at_hand).memory, free_memory(), most=most)
    return Estimate(plan, taken, spread, basis, short)


def expected_seconds(
    plan: Plan, config: RunConfig, train_images: int, test_images: int, store: Store, device: str
) -> tuple[float, float, str]:  # fmt: skip
    """Seconds of the whole run, the factor within which that is expected to be right, and where it comes from."""
    probes = Probes(store)
    speeds = probes.known(config)
    if speeds is not None:
        taken = measured_seconds(plan, config, train_images, test_images, speeds)
        if probes.disturbed(config):
            return taken, SPREAD_OF_OTHERS, _("measured on this machine while other programs used it")
        return taken, SPREAD_MEASURED, _("measured on this machine")
    speed = measured_speed(store, device)
    if speed:
        return seconds(plan, device, speed), SPREAD_OF_OTHERS, _("from the speed of an earlier run")
    return seconds(plan, device), SPREAD_OF_A_GUESS, _("a guess")


def measured_speed(store: Store, device: str) -> float | None:
    """Multiply-accumulates per second of the newest finished run on that device."""
    for run in store.list()[:LOOK_BACK]:
        report = run.report if run.status.state == FINISHED else None
        if (
            report
            and run.owner == LOCAL
            and report.get("device", "").split(":")[0] == device
            and (report["speed"] or 0) * (report.get("seconds") or 0) > MUCH_WORK
        ):
            return float(report["speed"])
    return None


def shortage(
    config: RunConfig, needed: Callable[[RunConfig], float], free: float, share: float = 1.0, most: int | None = None
) -> Shortage | None:
    """A warning that names a batch size that fits, if less than `share` of the bytes that a run needs is free.

    most: the largest batch size that may be named, where a larger one is bad for another reason.
    """
    if needed(config) * share <= free:
        return None
    size = SMALLEST_BATCH
    while size * 2 < config.batch_size:
        size *= 2
    if most is not None:
        size = min(size, most)
    while size >= SMALLEST_BATCH and needed(config.model_copy(update={"batch_size": size})) > free:
        size //= 2
    return Shortage(needed(config), free, size if SMALLEST_BATCH <= size < config.batch_size else 0)


def wait_for_room(
    config: RunConfig, needed: Callable[[RunConfig], float], device: str, stop: Callable[[], bool],
    tell: Callable[[str], None], poll: float = 2.0,
) -> None:  # fmt: skip
    """Return once there is room to train in, or when asked to stop; on a GPU, wait while others hold what is missing.

    needed: the bytes that training takes beside what is in memory already.

    Raises:
        RunError: it does not fit, and waiting would not help.
    """
    if device != "cuda":
        if short := shortage(config, needed, free_memory() + psutil.swap_memory().free, AT_LEAST):
            raise RunError(str(short))
        return
    told = False
    while True:
        free, total = gpu_memory()
        said = shortage(config, needed, free, AT_LEAST_ON_GPU)
        if said is None:
            return
        if hopeless := shortage(config, needed, total, AT_LEAST_ON_GPU):
            raise RunError(str(hopeless).replace("are free", "is all that the GPU has"))
        if stop():
            return
        if not told:
            tell(f"Waiting for other programs to free memory of the GPU. {said}")
            told = True
        time.sleep(poll)


def gpu_memory() -> tuple[float, float]:
    """Bytes of the GPU that are free, and all that it has."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return float(free), float(total)


def in_words(size: float) -> str:
    """Bytes as text: 1.2 GB, 345 MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
