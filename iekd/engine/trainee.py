"""What takes part in lock-step: a learner, a stack of learners, or the auto-encoders.

A step has three parts. `prepare` and `report` are the host's: they count, set the rate and read the sums now and then.
`compute` between them only queues work for the device: it makes no decision that depends on a value, so that it can be
recorded once and replayed (`accelerate.Recorded`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union

import torch
from torch import Tensor, nn

from iekd.config.run import RunConfig
from iekd.distill.targets import TeacherOutput
from iekd.engine.metrics import Diverged, Metrics
from iekd.engine.optimizer import SGD, Rate
from iekd.engine.state import State
from iekd.errors import TrainingError

Row = Union[Metrics, Diverged]


def keeps_numbers(config: RunConfig, device: torch.device) -> bool:
    """Whether the numbers of a step (rate, strength) live on the device, where a recorded step reads them."""
    return device.type == "cuda" and not config.eager


def make_optimizer(
    parameters: Sequence[Tensor], lr: float, config: RunConfig, device: torch.device, **values: Any
) -> SGD:
    """SGD; one fused kernel where the rate lives on the device."""
    if keeps_numbers(config, device):
        return SGD(parameters, torch.tensor(lr, device=device), fused=True, **values)
    return SGD(parameters, lr, **values)


class Trainee:
    """Base: counts steps, keeps the rate, sums what is reported. Subclasses give `compute`, and `evaluate` if judged.

    names: one row of metrics for each. report_every: steps between rows.
    diverged: those of them whose numbers are finite no more; the others do not feel it.
    """

    advice = "Lower the learning rate or the weights of the method, then start again."  # to whom all have diverged

    def __init__(
        self, names: tuple[str, ...], stage: str, device: torch.device, optimizer: SGD, rate: Rate,
        *, epochs: int, steps_per_epoch: int, report_every: int,
    ) -> None:  # fmt: skip
        self.names, self.stage, self.device = names, stage, device
        self.optimizer, self.rate = optimizer, rate
        self.steps_per_epoch, self.report_every = steps_per_epoch, report_every
        self.total_steps = epochs * steps_per_epoch
        self.steps = 0
        self.diverged: dict[str, Diverged] = {}
        self.answers: dict[str, Tensor] = {}  # see State
        self._keys: tuple[str, ...] = ()
        self._sums: Tensor | None = None  # (values, names) float32, always at one place in memory
        self._summed = 0

    def step(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> Iterator[Row]:
        """One whole step on images (B,C,H,W) uint8 and labels (B,); yields rows every `report_every` steps."""
        self.prepare()
        self.compute(images, labels, teacher)
        yield from self.report()

    def prepare(self) -> None:
        """Before each step: mode and rate."""
        if self.steps % self.steps_per_epoch == 0:
            self.train_mode()
        set_value(vars(self.optimizer), "lr", self.rate(self.steps))

    def compute(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> None:
        """Forward, loss, backward, optimiser and sums, without waiting for the device."""
        raise NotImplementedError

    def report(self) -> Iterator[Row]:
        """After each step: count it; now and then, rows with the means since the last ones."""
        self.advance()
        self._summed += 1
        if self.steps % self.report_every == 0 or self.steps % self.steps_per_epoch == 0:
            rate = self.rate(self.steps)
            for name, values in zip(self.names, self._means(), strict=True):
                if name in self.diverged:
                    continue
                if all(map(math.isfinite, values.values())):
                    yield self._row(name, "train", {**values, "lr": rate})
                else:
                    yield self._give_up(name, self.trouble(name, values["loss"]))

    def evaluate(self, images: Tensor, labels: Tensor) -> None:
        """Answer some of the held-out images (B,C,H,W) uint8, labels (B,), until `end_of_split`."""
        raise NotImplementedError

    def end_of_split(self, kind: str) -> list[Row]:
        """Rows on all held-out images since the last one."""
        raise NotImplementedError

    def networks(self) -> dict[str, nn.Module]:
        """What it trains: part -> network."""
        raise NotImplementedError

    def train_mode(self) -> None:
        for network in self.networks().values():
            network.train()

    def states(self) -> dict[str, State]:
        """Everything that `restore` needs, by name; to be asked for after a whole step."""
        (sums,) = self.sums()
        return {self.names[0]: self.state(self.momentum(), sums, self._summed)}

    def state(self, momentum: Mapping[str, Tensor], sums: Mapping[str, Tensor], summed: int) -> State:
        weights = {f"{part}.{n}": t for part, net in self.networks().items() for n, t in net.state_dict().items()}
        numbers = {**self.numbers(), "summed": summed}
        return State(_copies(weights), _copies(momentum), _copies(sums), numbers, _copies(self.answers))

    def sums(self) -> list[dict[str, Tensor]]:
        """For each name, what was summed since the last row: key -> (1,)."""
        if self._sums is None:
            return [{} for _ in self.names]
        return [
            {key: row[i : i + 1] for key, row in zip(self._keys, self._sums, strict=True)}
            for i in range(len(self.names))
        ]

    def put_sums(self, states: Sequence[State]) -> None:
        """Go on with the sums of `states`, one for each name."""
        self._summed = int(states[0].numbers["summed"])
        if not states[0].sums:
            return
        self._keys = tuple(states[0].sums)
        rows = [torch.cat([state.sums[key] for state in states]) for key in self._keys]
        self._sums = torch.stack(rows).to(self.device)

    def momentum(self) -> dict[str, Tensor]:
        """The optimiser's buffer of each parameter that has one."""
        buffers = self.optimizer.buffers
        return {name: buffers[p] for name, p in self._parameters().items() if p in buffers}

    def numbers(self) -> dict[str, Any]:
        gone = self.diverged.get(self.names[0])
        return {"steps": self.steps, **({"diverged": [gone.step, gone.message]} if gone else {})}

    def restore(self, states: Mapping[str, State]) -> None:
        """Go on from these states, bit for bit on a CPU.

        Raises:
            TrainingError: they are of other learners or networks.
        """
        try:
            state = states[self.names[0]]
            for part, network in self.networks().items():
                own = {name: t for name, t in state.weights.items() if name.startswith(f"{part}.")}
                network.load_state_dict({name[len(part) + 1 :]: t for name, t in own.items()})
            for name, parameter in self._parameters().items():
                if name in state.momentum:
                    self.optimizer.put_momentum(parameter, state.momentum[name])
            self.answers = {kind: said.to(self.device) for kind, said in state.answers.items()}
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

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {f"{part}.{n}": p for part, net in self.networks().items() for n, p in net.named_parameters()}

    def advance(self) -> None:
        self.steps += 1

    def trouble(self, name: str, loss: float) -> str:
        """What is said where a mean is not finite."""
        return f"The loss of '{name}' became {loss} at step {self.steps}."

    def _give_up(self, name: str, message: str) -> Diverged:
        self.diverged[name] = Diverged(self.stage, name, self.steps, message)
        return self.diverged[name]

    def _add(self, values: dict[str, Tensor]) -> None:
        """Sum values, each a scalar or one number per name."""
        rows = torch.stack([v.float().expand(len(self.names)) for v in values.values()])
        if self._sums is None:
            self._keys, self._sums = tuple(values), torch.zeros_like(rows)
        self._sums += rows

    def _means(self) -> list[dict[str, float]]:
        """Means since the last call, per name: the one place in training that waits for the device."""
        assert self._sums is not None
        means = (self._sums.cpu().double() / self._summed).T  # (names, values); Apple's GPUs have no double
        self._sums.zero_()
        self._summed = 0
        return [dict(zip(self._keys, row.tolist(), strict=True)) for row in means]

    def _row(self, name: str, kind: str, values: dict[str, float]) -> Metrics:
        return Metrics(self.stage, name, kind, self.steps / self.steps_per_epoch, self.steps, values)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}


def set_value(holder: dict[str, object], key: str, value: float) -> None:
    """Set a number, in place where it lives on the device: a recorded step reads it from there."""
    if isinstance(holder[key], Tensor):
        holder[key].fill_(value)  # type: ignore[attr-defined]
    else:
        holder[key] = value
