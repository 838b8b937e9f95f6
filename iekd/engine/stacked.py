"""Seeds of one method as one network: their weights stacked, one kernel where each seed would have launched its own.

`torch.func` maps the step of one learner over the stack: convolutions become grouped ones, and the batch norms of one
place a single one with channels for each member. The learners' own tensors are views into the stack, so each of them
can be evaluated and saved at any time as if it had been trained alone.
"""

from __future__ import annotations

import copy
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from iekd.distill.method import Method, StepOutput
from iekd.distill.targets import TeacherOutput
from iekd.engine.accelerate import autocast, compile_or_not
from iekd.engine.learner import Learner
from iekd.engine.mutual import MutualLearner
from iekd.engine.optimizer import REMEMBERED, STEP, clip, memory_of, put_memory, remembered_as, student_optimizer
from iekd.engine.scoring import batch_accuracy
from iekd.engine.state import LearnerState
from iekd.engine.training_unit import News, Row, TrainingUnit, memory_in
from iekd.errors import first_line
from iekd.losses.tensors import larger_share

log = logging.getLogger(__name__)


def stack_seeds(learners: Sequence[Learner], compiled: bool = False) -> list[TrainingUnit]:
    """The learners, with those of one method stacked. Mutual learners stay apart: two networks take turns in them.

    compiled: let torch.compile fuse a stack's forward and backward pass, where it can.
    """
    groups: dict[str, list[Learner]] = defaultdict(list)
    for learner in learners:
        groups[learner.name if isinstance(learner, MutualLearner) else learner.method.name].append(learner)
    return [Stack(group, compiled) if len(group) > 1 else group[0] for group in groups.values()]


class Stack(TrainingUnit):
    """Learners of one method and architecture with different weights, trained at once.

    Gives what they would give one by one, up to the rounding of the kernels; rows are theirs, one each. Where the first
    step cannot be mapped (an operation that torch.func does not know) they do train one by one, with a line in the log.
    """

    def __init__(self, members: Sequence[Learner], compiled: bool = False) -> None:
        """members: fresh learners; their weights move into the stack."""
        self.members, first = list(members), members[0]
        self.pairs = [_Network(learner.model, learner.method) for learner in members]
        self.parameters = _stacked([dict(n.named_parameters()) for n in self.pairs])
        self.buffers = _stacked([dict(n.named_buffers()) for n in self.pairs])
        # its tensors are never used: the stack's are put in their place. The compiler knows torch.func's rules only
        self.network = self.pairs[0] if compiled else _mappable(self.pairs[0])
        super().__init__(
            tuple(learner.name for learner in members), first.stage, first.device,
            student_optimizer(list(self.parameters.values()), first.config, first.device, stacked=True), first.rate,
            epochs=first.total_steps // first.steps_per_epoch, steps_per_epoch=first.steps_per_epoch,
            report_every=first.report_every,
        )  # fmt: skip
        for learner in self.members:
            learner.diverged, learner.stopped = self.diverged, self.stopped  # whoever notices
        self.output = compile_or_not(self._output) if compiled else self._output
        self.tried = False  # whether a step has worked
        self.one_by_one = False

    def prepare(self) -> None:
        super().prepare()
        for learner in self.members if self.one_by_one else self.members[:1]:
            learner.prepare()
        for learner in self.members[1:]:
            learner.prepare_average()
        self.network.method.strength = self.members[0].method.strength  # no tensor of the stack

    def compute(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> None:
        if not self.one_by_one:
            before = {} if self.tried else {name: buffer.clone() for name, buffer in self.buffers.items()}
            try:
                self._compute(images, labels, teacher)
                self.tried = True
                return
            except Exception as error:  # networks of libraries may fail in any way
                if self.tried:
                    raise
                log.warning("Seeds cannot be stacked (%s); they train one by one.", first_line(error))
                self.one_by_one = True
                self.optimizer.zero_grad()
                for name, buffer in before.items():
                    self.buffers[name].copy_(buffer)
                for learner in self.members:
                    learner.prepare()
        for learner in self.members:
            learner.compute(images, labels, teacher)

    def _compute(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> None:
        images, labels, teacher = self.members[0].method.seen(images, labels, teacher)
        with autocast(self.device, self.members[0].precision):
            output = self.output(images, labels, teacher)
        self.optimizer.zero_grad()
        output.loss.sum().backward()  # type: ignore[no-untyped-call]  # no member's loss depends on another's weights
        if clip_norm := self.members[0].config.clip_norm:
            clip(list(self.parameters.values()), clip_norm, len(self.members))
        self.optimizer.step()
        for learner in self.members:
            learner.follow()
        logits = output.logits.detach()  # (N,B,K)
        correct = batch_accuracy(logits, larger_share(labels[: logits.shape[1]]))  # (N,)
        self._add({"loss": output.loss.detach(), **output.terms, "accuracy": correct})

    def _output(self, images: Tensor, labels: Tensor, teacher: TeacherOutput | None) -> StepOutput:
        """Every member's logits and loss: (N,B,K) and (N,)."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], pixels: Tensor) -> StepOutput:
            output: StepOutput = functional_call(self.network, (parameters, buffers), (pixels, teacher, labels))
            return output

        pixels = self.members[0].normalise(images)
        return torch.vmap(one, in_dims=(0, 0, None))(self.parameters, self.buffers, pixels)  # type: ignore[no-any-return]

    def report(self) -> Iterator[News]:
        if not self.one_by_one:
            yield from super().report()
            return
        for learner in self.members:
            yield from learner.report()
        self.steps += 1

    def states(self) -> dict[str, LearnerState]:
        if self.one_by_one:
            return {name: state for learner in self.members for name, state in learner.states().items()}
        memory, sums = memory_of(self.optimizer), self.sums()

        def of_member(i: int) -> dict[str, Tensor]:
            return {
                remembered_as(name, kind): tensor if kind == STEP else tensor[i]  # all have done as many steps
                for name, p in self.parameters.items()
                for kind, tensor in memory.get(p, {}).items()
            }

        return {
            learner.name: learner.state(of_member(i), sums[i], self._summed) for i, learner in enumerate(self.members)
        }

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        for learner in self.members:
            learner.restore(states)  # into the stack, of which its tensors are views
        for name, parameter in self.parameters.items():
            for kind in REMEMBERED:
                found = [memory_in(states[learner.name], name, kind) for learner in self.members]
                tensors = [tensor for tensor in found if tensor is not None]
                if len(tensors) == len(self.members):
                    put_memory(self.optimizer, parameter, kind, tensors[0] if kind == STEP else torch.stack(tensors))
        self.put_sums([states[learner.name] for learner in self.members])
        self.steps = self.members[0].steps

    def advance(self) -> None:
        self.steps += 1
        for learner in self.members:
            learner.advance()

    def evaluate(self, images: Tensor, labels: Tensor) -> None:
        for learner in self.members:
            learner.evaluate(images, labels)

    def end_of_split(self, kind: str) -> list[Row]:
        return [row for learner in self.members for row in learner.end_of_split(kind)]

    def train_mode(self) -> None:
        for learner in self.members:
            learner.train_mode()


class _Network(nn.Module):
    """Student and method as one module: images (B,C,H,W) float -> StepOutput."""

    def __init__(self, model: nn.Module, method: Method) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, pixels: Tensor, teacher: TeacherOutput | None, labels: Tensor) -> StepOutput:
        output: StepOutput = self.method(self.model(pixels), teacher, labels)
        return output


class _MappedNorm(torch.autograd.Function):
    """Batch norm in training that torch.func maps over members as one of all their channels.

    Its own rule for batch norm cannot be used on CUDA: with channels_last images it fails where cuDNN would compute,
    and elsewhere scales and shifts in further operations of their own.
    """

    generate_vmap_rule = False

    @staticmethod
    def forward(*_: Any) -> Tensor:
        raise NotImplementedError("This batch norm is for mapped networks only.")

    @staticmethod
    def setup_context(*_: Any) -> None:
        pass

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[int | None], x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor,
        momentum: float, eps: float,
    ) -> tuple[Tensor, int]:  # fmt: skip
        """x (B,C,H,W) with N members at in_dims[0], or the same for all; weight ... var (N,C), of which mean and var
        are changed in place."""
        n = info.batch_size
        x = x.unsqueeze(1).expand(-1, n, *x.shape[1:]) if in_dims[0] is None else x.movedim(in_dims[0], 1)
        mean, var, weight, bias = (t.flatten() for t in (mean, var, weight, bias))  # views: the stack is contiguous
        y = nn.functional.batch_norm(x.flatten(1, 2), mean, var, weight, bias, True, momentum, eps)
        return y.view(y.shape[0], n, -1, *y.shape[2:]), 1


class _Norm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        values = (self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps)
        y: Tensor = _MappedNorm.apply(x, *values)  # type: ignore[no-untyped-call]
        return y


def _mappable(network: _Network) -> _Network:
    """A copy in training mode whose batch norms can be mapped."""
    network = copy.deepcopy(network).train()
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _Norm
    return network


def _stacked(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """name -> (N,...) of N equal sets of tensors, which become views into it."""
    stacks = {}
    for name, first in states[0].items():
        stack = torch.stack([state[name].detach() for state in states])
        for member, state in zip(stack, states, strict=True):
            state[name].data = member
        stacks[name] = nn.Parameter(stack) if isinstance(first, nn.Parameter) else stack
    return stacks
