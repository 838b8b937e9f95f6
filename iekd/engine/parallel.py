"""Several processes that train as one: each has a part of every batch, and gradients are added up over all of them.

Every process does the same in the same order: it draws the same batches, of which it reads and computes its part
(part.py), and after each backward pass all gradients of a learner are added up in one go. A loss is written so that its
sum over the processes is that of the whole batch (distill.distillers.Shares), also where parts differ in size. So all
take the same step, and their networks stay equal bit for bit. Batch norm: synced_norms.py.

torch's DistributedDataParallel is not used: it takes the plain mean over processes, of one network's forward pass,
where a step here has several networks and layers of methods, and mutual learners take turns within it.

Leaves out: how processes are started and end (runs/processes.py).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from iekd.distill.distillers import Shares
from iekd.distill.method import Method
from iekd.engine.events import Event
from iekd.engine.part import BatchShare
from iekd.engine.state import LearnerState, Snapshot
from iekd.engine.synced_norms import SyncedNorms
from iekd.errors import TrainingError
from iekd.losses.tensors import as_float32

log = logging.getLogger(__name__)
LOOK_EVERY = 0.2  # seconds between two questions that all must agree on


class TracksState(Protocol):
    """The part of a TrainingUnit that is needed here."""

    def states(self) -> dict[str, LearnerState]: ...


class Processes:
    """This process among `count`, of which it is number `rank`; torch.distributed's default group connects them.

    device: where this one computes. sync_norms: batch norm takes its statistics from all of them; otherwise each
    process has its own, and the running ones are averaged before anything is evaluated or saved. local_count: how many
    of the processes are on this machine.
    """

    def __init__(
        self, rank: int, count: int, device: torch.device, sync_norms: bool = True, local_count: int | None = None
    ) -> None:
        self.rank, self.count, self.device, self.sync_norms = rank, count, device, sync_norms
        self.local_count = count if local_count is None else local_count
        self.part = BatchShare(rank, count)
        self._synced = SyncedNorms(self)

    @classmethod
    def join(
        cls, store: Any, rank: int, count: int, device: torch.device, sync_norms: bool = True,
        local_count: int | None = None,
    ) -> Processes:  # fmt: skip
        """Connect with the others, who do the same with the same store; waits for all of them.

        Raises:
            TrainingError: they cannot be connected.
        """
        if device.type == "cuda":
            torch.cuda.set_device(device.index or 0)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, store=store, rank=rank, world_size=count)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"The {count} processes could not be connected ({str(error).strip().splitlines()[0]}). Train with one, "
                "or name the network card with GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME."
            ) from error
        return cls(rank, count, device, sync_norms, local_count)

    def leave(self, orderly: bool = True) -> None:
        """Give the connections up. orderly: nothing is under way; NCCL would wait for what is, also for a process that
        is gone, and is left as it is then."""
        if dist.is_initialized() and (orderly or self.device.type == "cpu"):
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()

    def share_of(self, count: int) -> int:
        """Of so many threads of this machine those of this process."""
        return max(1, count // self.local_count)

    def log(self, batch_size: int) -> None:
        norms = "is over all of them" if self.sync_norms else "is over its own images in each"
        log.info(
            "%d processes share each batch of %d images; batch norm %s. They train without CUDA graph, stacked seeds "
            "and torch.compile.", self.count, batch_size, norms,
        )  # fmt: skip

    def norms(self) -> contextlib.AbstractContextManager[object]:
        """Within, batch norm in training is that of these processes."""
        return self._synced if self.sync_norms else contextlib.nullcontext()

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        dist.all_reduce(values)
        return values

    def add_up_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Each gradient becomes its sum over all processes: one message for all of them."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.add_up(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, added in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(added.view(gradient.shape))

    def shares(self, method: Method, labels: Tensor, whole: tuple[int, int]) -> Shares:
        """What the images here count for.

        Args:
            labels: of the images here, as the method gets them, (b,) or (b,K).
            whole: (labelled, unlabelled) images of the whole batch.
        """
        unlabelled = whole[1] if method.unlabelled else 0
        here = len(labels) - method.unlabelled
        labelled, every = here / whole[0], len(labels) / (whole[0] + unlabelled)
        of_labels: float | Tensor = labelled
        if method.class_weights is not None:
            own = method.weight_of(labels[:here])
            of_labels = own / self.add_up(own.clone())
        first = self.part.of(whole[0]).start + self.part.of(unlabelled).start

        def gather(rows: Tensor, with_unlabelled: bool) -> Tensor:
            if not with_unlabelled:
                return self.gather(rows, self.part.of(whole[0]).start, whole[0])
            return self.gather(rows, first, whole[0] + unlabelled)

        return Shares(of_labels, labelled, every, 1 / self.count, gather)

    def gather(self, rows: Tensor, first: int, total: int) -> Tensor:
        """Every process' rows (b,...), of which these are number `first` and following of (total,...).

        For a loss that every process computes of all rows and multiplies by its share, 1 / count: the gradient that
        arrives here is then that of the whole loss.
        """
        gathered: Tensor = _Gathered.apply(as_float32(rows), first, total, self)  # type: ignore[no-untyped-call]
        return gathered

    def rows(self, own: Tensor, total: int) -> Tensor:
        """Every process' part (n,...) of `total` rows, as one (total,...), in order; without a gradient."""
        return self.placed(own, self.part.of(total).start, total)

    def placed(self, rows: Tensor, first: int, total: int) -> Tensor:
        """`gather` without a gradient. Zeros are added to each row, which changes none and needs no equal parts."""
        every = rows.new_zeros((total, *rows.shape[1:]))
        every[first : first + len(rows)] = rows
        return self.add_up(every)

    def totals(self, *numbers: float) -> list[float]:
        """Each number's sum over all processes."""
        found: list[float] = self.add_up(torch.tensor(numbers, dtype=torch.float64)).tolist()
        return found

    def agree(self, ask: Callable[[], bool]) -> Callable[[], bool]:
        """The same question for all processes, which the first one answers: a few times a second at most, in between
        it is no. All must ask equally often."""
        return _Agreed(ask, self.rank)

    def unify_norms(self, networks: Iterable[nn.Module]) -> None:
        """Where each process has batch norms of its own, average what they remember."""
        if self.sync_norms:
            return
        buffers = [b for network in networks for b in network.buffers() if b.is_floating_point()]
        if buffers:
            flat = self.add_up(torch.cat([b.reshape(-1).float() for b in buffers])) / self.count
            for buffer, mean in zip(buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True):
                buffer.copy_(mean.view(buffer.shape))

    def check_equal(self, tensors: Mapping[str, Tensor], what: str) -> None:
        """Check that all processes have the same tensors: of each, its sum.

        Args:
            what: what they are of, for the message.
        Raises:
            TrainingError: they do not.
        """
        if not tensors:
            return
        # as whole numbers, so that NaN is equal to itself
        sums = torch.stack([t.detach().cpu().double().sum() for t in tensors.values()]).view(torch.int64)
        low, high = sums.clone(), sums.clone()
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        if differing := [name for name, same in zip(tensors, (low == high).tolist(), strict=True) if not same]:
            raise TrainingError(
                f"The {self.count} processes no longer agree on {what} ('{differing[0]}'). Use machines of one kind "
                "with the same versions of iekd and torch, which read the same files."
            )

    def checked(
        self, events: Generator[Event, None, None], units: Sequence[TracksState]
    ) -> Generator[Event, None, None]:
        """The events of a stage; that all processes have the same networks is checked before and with each snapshot."""
        begun = {name: state for unit in units for name, state in unit.states().items()}
        self.check_states(begun, "the weights to begin with")
        del begun
        if self.rank:  # dropout draws by the global generator: not the same for the images of every part
            torch.manual_seed(torch.initial_seed() + self.rank)
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Snapshot):
                    self.check_states(event.states, f"the weights after step {event.step}")
                yield event

    def check_states(self, states: Mapping[str, LearnerState], what: str) -> None:
        """`check_equal` of everything that training changes."""
        tensors = {
            f"{name}/{kind}/{key}": tensor
            for name, state in states.items()
            for kind in ("weights", "momentum")
            for key, tensor in getattr(state, kind).items()
        }
        self.check_equal(tensors, what)


class _Agreed:
    def __init__(self, ask: Callable[[], bool], rank: int) -> None:
        self.ask, self.rank = ask, rank
        self.skip, self.asked, self.calls = 0, time.monotonic(), 0

    def __call__(self) -> bool:
        self.calls += 1
        if self.calls <= self.skip:
            return False
        now = time.monotonic()
        each, self.asked, self.calls = (now - self.asked) / self.calls, now, 0
        said = torch.zeros(2, dtype=torch.int64)
        if self.rank == 0:
            yes = self.ask()  # asked in vain, the next question can wait
            said = torch.tensor([yes, 0 if yes else min(1000, int(LOOK_EVERY / max(each, 1e-6)))])
        dist.broadcast(said, 0)
        answer, self.skip = said.tolist()
        return bool(answer)


class _Gathered(torch.autograd.Function):
    """See Processes.gather."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, first: int, total: int, processes: Processes) -> Tensor:
        ctx.mine, ctx.count = slice(first, first + len(rows)), processes.count
        return processes.placed(rows, first, total)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return grad[ctx.mine] * ctx.count, None, None, None


def least_images(sync_norms: bool) -> int:
    """Images that a part of a batch must have: batch norm of its own has no statistics of one."""
    return 1 if sync_norms else 2
