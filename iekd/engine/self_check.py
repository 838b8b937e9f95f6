"""Before a stage trains with an accelerated step, that step is compared with the plain one on the same batches.

A recorded step may read stale inputs or leave out a part, and stacked seeds may use a kernel that has a bug. If the two
differ by more than rounding, the stage trains without that acceleration. Afterwards everything is as before (weights,
momentum, statistics, sums, counters, random numbers), so the check does not change the results of training.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Generator, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from iekd.engine.accelerate import Recorded, Work
from iekd.engine.batches import TrainingBatches
from iekd.engine.learner import Learner
from iekd.engine.metrics import FellBack
from iekd.engine.optimizer import FIRST, MOMENTUM, STEP, decay_of, kind_of, memory_of, remembered_as
from iekd.engine.stacked import Stack
from iekd.engine.state import LearnerState
from iekd.engine.training_unit import TrainingUnit

log = logging.getLogger(__name__)

States = dict[str, LearnerState]  # of all learners, by name
Pair = tuple[Tensor, Tensor]  # images (B,C,H,W) uint8, labels (B,)

STEPS = 3  # that are compared; from the second on a recorded step gets a batch that it was not recorded with
# How much of the change that a step makes may be different. A step that is left out, or that saw another batch, differs
# by about the whole change; two ways to compute in one precision by rounding, which deep networks multiply. Measured:
# rounding to bfloat16 moves a gradient by up to a quarter, to TF32's ten bits by up to a tenth (benchmarks/RESULTS.md).
FLOAT32, TF32, BFLOAT16 = 0.02, 0.3, 0.7
EPSILON = 2.0**-21  # of a tensor: what is smaller has no digits in float32 to compare


def checked(
    units: Sequence[TrainingUnit], step: Work, graph: bool, batches: TrainingBatches, epoch: int, skip: int
) -> Generator[FellBack, None, Work]:
    """The step to train with: accelerated as far as that agrees with the plain step; a FellBack for what does not.

    Seeds that should not be stacked train one by one from then on.

    step: of all units, without what the host does before and after it. graph: it is to be recorded.
    epoch, skip: the batch that is next.
    """
    stacks = [unit for unit in units if isinstance(unit, Stack) and not unit.one_by_one]
    if not graph and not stacks:
        return step
    drawn = _draw(batches, epoch, skip)
    flat = _with_members(units)
    counts = [unit.steps for unit in flat]
    states = [_states(units)]
    learners = [unit for unit in flat if isinstance(unit, Learner)]
    with _plain(stacks, learners):
        for number, batch in enumerate(drawn):
            _do(units, step, batch, number, counts)
            states.append(_states(units))
    tolerance = _tolerance(flat)
    while graph or stacks:
        way = " of ".join(["a recorded step"] * graph + ["stacked seeds"] * bool(stacks))
        work = Recorded(step) if graph else step
        for _ in range(Recorded.WARM_UP if graph else 0):
            _put_back(units, states[0], counts)
            _do(units, work, drawn[0], 0, counts)
        found = None
        for number, batch in enumerate(drawn):
            _put_back(units, states[number], counts)
            _do(units, work, batch, number, counts)
            found = found or _difference(states[number], states[number + 1], _states(units), flat, tolerance)
        _put_back(units, states[0], counts)
        if found is None:
            if not (isinstance(work, Recorded) and work.failed):  # that is said already
                log.info("Compared with the plain step: %s agrees.", way)
            for stack in stacks:
                for learner in stack.members if not stack.one_by_one else ():
                    learner.optimizer.zero_grad()  # frees the memory of the plain steps
                    learner.optimizer.state.clear()
            return work
        del work  # and the memory of its recording
        message = f"It differs from the plain step: {way} ({found}). Training goes on without it."
        log.warning("%s", message)
        yield FellBack(units[0].stage, message)
        graph = graph and bool(stacks)  # stacking may be what is wrong
        for stack in stacks:
            stack.one_by_one = True
        stacks = []
    for learner in learners:
        learner.output = learner._output
    return step


def _draw(batches: TrainingBatches, epoch: int, skip: int) -> list[Pair]:
    """The next batches; where an epoch has too few, those of the following ones too. A recorded step needs batches of
    one size: the smaller one that an epoch may end with is passed over."""
    drawn: list[Pair] = []
    while len(drawn) < STEPS:
        with contextlib.closing(batches.epoch(epoch, skip)) as pairs:
            drawn += islice(pairs, STEPS - len(drawn))
        most = max(len(labels) for _, labels in drawn)
        drawn = [pair for pair in drawn if len(pair[1]) == most]
        epoch, skip = epoch + 1, 0
    return drawn


def _with_members(units: Sequence[TrainingUnit]) -> list[TrainingUnit]:
    """Everything with counters and an optimiser of its own: the units, their members, their peers."""
    return [
        one
        for unit in units
        for one in (unit, *getattr(unit, "members", ()), *filter(None, [getattr(unit, "peer", None)]))
    ]


def _states(units: Sequence[TrainingUnit]) -> States:
    return {name: state for unit in units for name, state in unit.states().items()}


def _do(units: Sequence[TrainingUnit], step: Work, batch: Pair, number: int, counts: Sequence[int]) -> None:
    """A step as if at some other point of the training, so that the rate and the strength differ each time."""
    device = units[0].device
    for unit, count in zip(_with_members(units), counts, strict=True):
        unit.steps = (count + number * max(1, unit.total_steps // STEPS)) % unit.total_steps
    for unit in units:
        unit.prepare()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        step(*batch)


@contextlib.contextmanager
def _plain(stacks: Sequence[Stack], learners: Sequence[Learner]) -> Iterator[None]:
    """Within, seeds are not stacked and nothing is compiled."""
    before = [(learner.output, learner.tried) for learner in learners]
    for stack in stacks:
        stack.one_by_one = True
    for learner in learners:
        learner.output = learner._output
    try:
        yield
    finally:
        for stack in stacks:
            stack.one_by_one = False
        for learner, (output, tried) in zip(learners, before, strict=True):
            learner.output, learner.tried = output, tried  # whether the compiler's backward pass works is still open


@torch.no_grad()
def _put_back(units: Sequence[TrainingUnit], states: States, counts: Sequence[int]) -> None:
    """These states, in place: a recorded step finds everything where it was. No momentum is momentum of zero."""
    for unit, count in zip(_with_members(units), counts, strict=True):
        unit.steps = count
        memory = memory_of(unit.optimizer)
        if isinstance(unit, Stack):  # its weights are its members'
            rows = [states[name] for name in unit.names]
            for name, parameter in unit.parameters.items():
                for i, state in enumerate(rows):
                    _put_memory(memory.get(parameter, {}), name, state, i)
        else:
            rows = [states[unit.names[0]]]
            for part, network in unit.networks().items():
                for name, tensor in network.state_dict().items():
                    tensor.copy_(rows[0].weights[f"{part}.{name}"])
                for name, parameter in network.named_parameters():
                    _put_memory(memory.get(parameter, {}), f"{part}.{name}", rows[0])
        for sums, state in zip(unit.sums(), rows, strict=True):
            for key, total in sums.items():
                total.copy_(state.sums[key]) if key in state.sums else total.zero_()


def _put_memory(buffers: dict[str, Tensor], name: str, state: LearnerState, member: int | None = None) -> None:
    """What an optimiser remembers of a parameter, by kind, in place. Nothing is remembered as zero."""
    for kind, buffer in buffers.items():
        value = state.momentum.get(remembered_as(name, kind))
        place = buffer if member is None or kind == STEP else buffer[member]
        place.zero_() if value is None else place.copy_(value)


def _tolerance(units: Sequence[TrainingUnit]) -> float:
    if any(getattr(unit, "precision", None) == torch.bfloat16 for unit in units):
        return BFLOAT16
    return TF32 if units[0].device.type == "cuda" and torch.backends.cudnn.allow_tf32 else FLOAT32


def _difference(
    before: States, plain: States, other: States, units: Sequence[TrainingUnit], tolerance: float
) -> str | None:  # fmt: skip
    """What differs between two outcomes of one step, in words; None where nothing does.

    Each learner's networks are compared as wholes: single tensors may have a gradient of nothing but rounding, such as
    a convolution's bias before a batch norm.
    """
    gone = {name for unit in units for name in (*unit.diverged, *unit.stopped)}
    momenta = {name: decay_of(unit.optimizer) for unit in units for name in unit.names}
    for name in plain.keys() - gone:
        was, right, given = before[name], plain[name], other[name]
        groups: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for key, tensor in right.weights.items():
            kind = "statistics" if "running_" in key else f"weights of '{key.split('.')[0]}'"
            if tensor.is_floating_point():
                groups.setdefault(kind, []).append((was.weights[key], tensor, given.weights[key]))
            elif not torch.equal(tensor, given.weights[key]):
                return f"'{name}': {key}"
        for key, tensor in right.momentum.items():
            if kind_of(key) not in (MOMENTUM, FIRST):
                continue
            decayed = was.momentum.get(key, torch.zeros(())) * momenta[name]
            kind = f"gradient of '{key.split('.')[0]}'"
            groups.setdefault(kind, []).append((decayed, tensor, given.momentum.get(key, decayed)))
        if "loss" in right.sums:  # a peer reports none
            none = torch.zeros(1)
            groups["loss"] = [(was.sums.get("loss", none), right.sums["loss"], given.sums.get("loss", none))]
        for kind, tensors in groups.items():
            # AdamW's first steps are as long for a gradient of rounding as for any other, and such a gradient may have
            # either sign: of its weights only how far they go is compared, and of each gradient all
            only_size = kind.startswith("weights") and any(kind_of(key) == FIRST for key in right.momentum)
            share = _share_of_size(tensors) if only_size else _share(tensors)
            if share > tolerance:
                return f"'{name}': {kind} differ by {share:.0%} of the step"
    return None


def _share(tensors: Sequence[tuple[Tensor, Tensor, Tensor]]) -> float:
    """How much of the change from the first to the second the third lacks; rounding of the tensors is left out.

    Zero where the second is not finite: the plain step diverges too.
    """
    change = _norm([right - was for was, right, _ in tensors])
    error = _norm([given - right for _, right, given in tensors])
    size = EPSILON * _norm([right for _, right, _ in tensors])
    if not math.isfinite(change):
        return 0.0
    lacking = max(0.0, error - size) if math.isfinite(error) else math.inf
    return lacking / change if change else lacking and math.inf


def _share_of_size(tensors: Sequence[tuple[Tensor, Tensor, Tensor]]) -> float:
    """As `_share`, but of how large the change is, wherever it leads."""
    change = _norm([right - was for was, right, _ in tensors])
    given = _norm([given - was for was, _, given in tensors])
    if not math.isfinite(change):
        return 0.0
    error = abs(change - given)
    return error / change if change else error and math.inf


def _norm(tensors: Sequence[Tensor]) -> float:
    return torch.stack([t.double().square().sum() for t in tensors]).sum().sqrt().item()
