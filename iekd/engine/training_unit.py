"""The unit of lock-step training: a learner, a stack of learners, or the auto-encoders.

A step has three phases. `prepare` and `report` run on the host: they count steps, set the learning rate, and every few
steps read the summed metrics. `compute` between them only queues work for the device: none of its decisions depends on
a tensor's value, so that it can be recorded once and replayed (`accelerate.Recorded`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iekd.distill.targets import TeacherOutput
from iekd.engine.metrics import Diverged, Metrics, Predicted, Stepped, Watched
from iekd.engine.optimizer import REMEMBERED, Rate, memory_of, put_memory, remembered_as, set_rate
from iekd.engine.state import LearnerState
from iekd.errors import TrainingError

if TYPE_CHECKING:
    from iekd.engine.parallel import Processes

Row = Union[Metrics, Watched, Diverged]
News = Union[Row, Stepped, Predicted]
NEWS_EVERY = 1.0  # seconds between signs of life where rows take longer


class TrainingUnit:
    """Base class: counts steps, sets the learning rate, sums metrics.

    Subclasses implement `compute` and `networks`, and `evaluate` and `end_of_split` if they are evaluated.

    names: of its learners; each has rows of metrics of its own. report_every: steps between rows.
    diverged: its learners whose loss or predictions became NaN or infinite; the others are not affected.
    """

    advice = (  # when all have diverged
        "Lower the learning rate or the weights of the method, or give precision fp32 if it was bf16; then start again."
    )

    def __init__(
        self, names: tuple[str, ...], stage: str, device: torch.device, optimizer: Optimizer, rate: Rate,
        *, epochs: int, steps_per_epoch: int, report_every: int,
    ) -> None:  # fmt: skip
        self.names, self.stage, self.device = names, stage, device
        self.optimizer, self.rate = optimizer, rate
        self.steps_per_epoch, self.report_every = steps_per_epoch, report_every
        self.total_steps = epochs * steps_per_epoch
        self.steps = 0
        self.diverged: dict[str, Diverged] = {}
        self.stopped: set[str] = set()  # of its learners, those that have stopped early and keep their best weights
        self.predictions: dict[str, Tensor] = {}  # see LearnerState
        self._keys: tuple[str, ...] = ()
        self._sums: Tensor | None = None  # (values, names) float32; updated in place for a recorded step
        self._summed = 0
        self._told = time.monotonic()
        self.processes: Processes | None = None  # see `work_among`

    def work_among(self, processes: Processes | None, whole: Callable[[int], tuple[int, int]]) -> None:
        """Let it be trained by several processes, each of which gets a part of every batch (parallel.py).

        whole: how many labelled and unlabelled images the whole batch has that is next after so many steps.
        """
        self.processes, self.whole = processes, whole

    def step(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> Iterator[News]:
        """One whole step on images (B,C,H,W) uint8 and labels (B,); yields rows every `report_every` steps."""
        self.prepare()
        self.compute(images, labels, teacher)
        yield from self.report()

    def prepare(self) -> None:
        """Before each step: training mode and learning rate."""
        if self.steps % self.steps_per_epoch == 0:
            self.train_mode()
        set_rate(self.optimizer, self.rate(self.steps))

    def compute(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> None:
        """Forward, loss, backward, optimiser and summed metrics, without waiting for the device.

        Args:
            images: (B,C,H,W) uint8. labels: (B,). teacher: its output for the same images; None if nobody needs it.
        """
        raise NotImplementedError

    def report(self) -> Iterator[News]:
        """After each step: count it; every `report_every` steps, yield rows with the means since the last ones."""
        self.advance()
        self._summed += 1
        if time.monotonic() - self._told > NEWS_EVERY:
            self._told = time.monotonic()
            yield Stepped(self.stage, self.steps)
        if self.steps % self.report_every == 0 or self.steps % self.steps_per_epoch == 0:
            rate = self.rate(self.steps)
            for name, values in zip(self.names, self._means(), strict=True):
                if name in self.diverged or name in self.stopped:
                    continue
                if all(map(math.isfinite, values.values())):
                    yield self._row(name, "train", {**values, "lr": rate})
                else:
                    yield self._mark_diverged(name, self.divergence_message(name, values["loss"]))

    def evaluate(self, images: Tensor, labels: Tensor) -> None:
        """Score one batch of held-out images (B,C,H,W) uint8, labels (B,); `end_of_split` reports all of them."""
        raise NotImplementedError

    def end_of_split(self, kind: str) -> list[Row]:
        """Rows for the held-out images that `evaluate` was given since the last call."""
        raise NotImplementedError

    def networks(self) -> dict[str, nn.Module]:
        """The networks that it trains, by name: "model", "method", ..."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether none of its learners has anything left to learn."""
        return all(name in self.diverged or name in self.stopped for name in self.names)

    def train_mode(self) -> None:
        for network in self.networks().values():
            network.train()

    def states(self) -> dict[str, LearnerState]:
        """Everything that `restore` needs, by learner; call it only between two steps."""
        self.unify_norms()
        (sums,) = self.sums()
        return {self.names[0]: self.state(self.momentum(), sums, self._summed)}

    def state(self, momentum: Mapping[str, Tensor], sums: Mapping[str, Tensor], summed: int) -> LearnerState:
        weights = {f"{name}.{n}": t for name, net in self.networks().items() for n, t in net.state_dict().items()}
        numbers = {**self.numbers(), "summed": summed}
        return LearnerState(_copies(weights), _copies(momentum), _copies(sums), numbers, _copies(self.predictions))

    def sums(self) -> list[dict[str, Tensor]]:
        """For each name, the sums since the last row: key -> (1,)."""
        if self._sums is None:
            return [{} for _ in self.names]
        return [
            {key: row[i : i + 1] for key, row in zip(self._keys, self._sums, strict=True)}
            for i in range(len(self.names))
        ]

    def put_sums(self, states: Sequence[LearnerState]) -> None:
        """Continue with the sums of `states`, one state for each name."""
        self._summed = int(states[0].numbers["summed"])
        if not states[0].sums:
            return
        self._keys = tuple(states[0].sums)
        rows = [torch.cat([state.sums[key] for state in states]) for key in self._keys]
        self._sums = torch.stack(rows).to(self.device)

    def momentum(self) -> dict[str, Tensor]:
        """What the optimiser remembers of each parameter; see LearnerState."""
        memory = memory_of(self.optimizer)
        return {
            remembered_as(name, kind): tensor
            for name, p in self._parameters().items()
            for kind, tensor in memory.get(p, {}).items()
        }

    def numbers(self) -> dict[str, Any]:
        diverged = self.diverged.get(self.names[0])
        found: dict[str, Any] = {"steps": self.steps}
        if diverged:
            found["diverged"] = [diverged.step, diverged.message]
        if self.names[0] in self.stopped:
            found["stopped"] = True
        return found

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Continue from these states, bit for bit on a CPU.

        Raises:
            TrainingError: they belong to other learners or networks.
        """
        try:
            state = states[self.names[0]]
            for name, network in self.networks().items():
                own = {key: t for key, t in state.weights.items() if key.startswith(f"{name}.")}
                network.load_state_dict({key[len(name) + 1 :]: t for key, t in own.items()})
            for name, parameter in self._parameters().items():
                for kind in REMEMBERED:
                    if (value := memory_in(state, name, kind)) is not None:
                        put_memory(self.optimizer, parameter, kind, value)
            self.predictions = {kind: predicted.to(self.device) for kind, predicted in state.predictions.items()}
            self.restore_numbers(state.numbers)
            self.put_sums([state])
            self.train_mode()
        except (KeyError, TypeError, RuntimeError) as error:  # missing, or of other shapes
            reason = str(error).strip().splitlines()[0]
            raise TrainingError(
                f"The checkpoint does not fit '{self.names[0]}' ({reason}). "
                "It may be of another version of iekd: start a new run."
            ) from None

    def restore_numbers(self, numbers: Mapping[str, Any]) -> None:
        self.steps = int(numbers["steps"])
        if "diverged" in numbers:
            self.diverged[self.names[0]] = Diverged(self.stage, self.names[0], *numbers["diverged"])
        if numbers.get("stopped"):
            self.stopped.add(self.names[0])

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {f"{name}.{n}": p for name, net in self.networks().items() for n, p in net.named_parameters()}

    def advance(self) -> None:
        self.steps += 1
        if self.steps % self.steps_per_epoch == 0:
            self.unify_norms()

    def unify_norms(self) -> None:
        """Before anything is evaluated or saved: all processes have the same."""
        if self.processes is not None:
            self.processes.unify_norms(self.networks().values())

    def norms(self) -> contextlib.AbstractContextManager[object]:
        """Around a forward and backward pass: batch norm of all processes together."""
        return contextlib.nullcontext() if self.processes is None else self.processes.norms()

    def divergence_message(self, name: str, loss: float) -> str:
        """The message when a mean is NaN or infinite."""
        return f"The loss of '{name}' became {loss} at step {self.steps}."

    def _mark_diverged(self, name: str, message: str) -> Diverged:
        self.diverged[name] = Diverged(self.stage, name, self.steps, message)
        return self.diverged[name]

    def _add(self, values: dict[str, Tensor]) -> None:
        """Sum values, each a scalar or one number per name; of several processes, each has its share of the value."""
        rows = torch.stack([v.float().expand(len(self.names)) for v in values.values()])
        if self.processes is not None:
            rows = self.processes.add_up(rows)
        if self._sums is None:
            self._keys, self._sums = tuple(values), torch.zeros_like(rows)
        self._sums += rows

    def _means(self) -> list[dict[str, float]]:
        """Means since the last call, per learner. The only place in training that waits for the device."""
        assert self._sums is not None
        means = (self._sums.cpu().double() / self._summed).T  # (names, values); Apple's GPUs have no double
        self._sums.zero_()
        self._summed = 0
        return [dict(zip(self._keys, row.tolist(), strict=True)) for row in means]

    def _row(self, name: str, kind: str, values: dict[str, float]) -> Metrics:
        return Metrics(self.stage, name, kind, self.steps / self.steps_per_epoch, self.steps, values)


def memory_in(state: LearnerState, name: str, kind: str) -> Tensor | None:
    """What the optimiser remembered of a parameter; earlier versions called those of torchvision's networks otherwise
    (taps.py)."""
    former = name.replace(".network.", ".", 1)
    return state.momentum.get(remembered_as(name, kind), state.momentum.get(remembered_as(former, kind)))


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
