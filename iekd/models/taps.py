"""Makes any classifier give Features: finds its stages by one forward pass and listens to them afterwards.

Stages are found by shape, so nothing is known here of any family. A network of convolutions is a chain of blocks, and a
stage ends with the last block before the map becomes smaller. A network of tokens repeats one block, and four of its
repetitions at equal distances are taken.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.fx
from torch import Tensor, nn

from iekd.models.features import Classifier, Features
from iekd.models.stage_ends import StageEnd, find_ends

STAGES = 4  # that are compared at most
SMALLER = 0.75  # a map whose side is at most this part of another's belongs to the next stage
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Taps:
    """Names of modules: the ends of the stages, and the last linear layer, whose input is `pooled`.

    head: "" if the network ends with something else; `pooled` is then the mean of the last stage's pixels.
    maps: whether all stages are known to be maps (B,c,h,w) as they are, which torch.fx cannot see.
    """

    stages: tuple[str, ...]
    head: str
    maps: bool = field(default=False, compare=False)


NO_MAPS = Taps((), "")  # of a network without any; its `pooled` are the logits


def within(key: str) -> str:
    """What a tensor of a library's network is called in ours."""
    return key if key.startswith("network.") else f"network.{key}"


class Listening(Classifier):
    """A classifier that notes what modules of `network`, its only child, get or give during a forward pass.

    It keeps that only until the forward pass ends, so one network must not be used by two threads at a time; a copy
    listens to itself.
    """

    def __init__(self, network: nn.Module, ends: tuple[StageEnd, ...] | None = None) -> None:
        """ends: of the stages (`stage_ends.find_ends`), if they are known."""
        super().__init__()
        self.network: Any = network
        self.ends = ends
        self._given: dict[str, Tensor] = {}
        for end in ends or ():
            if end.activation:
                cast(
                    nn.ReLU, network.get_submodule(end.activation)
                ).inplace = False  # what it gets is needed afterwards
                self._listen(end.activation, gets=True)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Weights may also have the library's own names, as those of earlier versions of this program do."""
        for key in [key for key in state_dict if key.startswith(prefix)]:
            if (now := f"{prefix}{within(key.removeprefix(prefix))}") != key:
                state_dict[now] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def stage_norms(self) -> list[nn.BatchNorm2d] | None:
        return [self.network.get_submodule(end.norm) for end in self.ends] if self.ends else None

    def _listen(self, name: str, gets: bool) -> None:
        """gets: note a module's input, else its output."""
        module, listener = self.network.get_submodule(name), _Listener(self, f"{'>' * gets}{name}")
        # bound methods, which a copy of the network binds to the copy
        if gets:
            module.register_forward_pre_hook(listener.input)
        else:
            module.register_forward_hook(listener.output)

    def _of(self, name: str, gets: bool, logits: Any) -> Any:
        """What a module got or gave in the forward pass that ended in `logits`."""
        if isinstance(logits, torch.fx.Proxy):  # modules of torch itself are not called while torch.fx traces
            return self._traced(name, gets, logits)
        key = f"{'>' * gets}{name}"
        if key not in self._given:
            raise RuntimeError(f"'{name}' was not called")
        return self._given[key]

    def _traced(self, name: str, gets: bool, logits: torch.fx.Proxy) -> Any:
        key = f"{'>' * gets}{name}"
        if key in self._given:
            return self._given[key]
        called = [n for n in logits.node.graph.nodes if n.op == "call_module" and f".{n.target}".endswith(f".{name}")]
        if not called:
            raise RuntimeError(f"torch.fx cannot listen to '{name}'")
        return torch.fx.Proxy(called[-1].args[0] if gets else called[-1], logits.tracer)

    def _before(self, stages: tuple[Tensor, ...], logits: Any) -> tuple[Tensor, ...] | None:
        """The stage ends before the activation."""
        if self.ends is None:
            return None
        pairs = zip(self.ends, stages, strict=True)
        return tuple(self._of(end.activation, True, logits) if end.activation else stage for end, stage in pairs)


class Tapped(Listening):
    """A classifier (B,C,H,W) -> logits (B,K) as one that gives Features.

    Args of forward:
        images: (B,C,H,W) float32, normalised.
    Returns:
        Features: the network's own logits (B,K), one map (B,c,h,w) for each stage, and the pooled input (B,c) of its
        last layer.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))
    >>> features = Tapped(network, Taps(stages=("1",), head="3"))(torch.randn(2, 3, 8, 8))
    >>> features.logits.shape, features.stages[0].shape, features.pooled.shape
    (torch.Size([2, 10]), torch.Size([2, 8, 4, 4]), torch.Size([2, 128]))
    """

    def __init__(self, network: nn.Module, taps: Taps, ends: tuple[StageEnd, ...] | None = None) -> None:
        """Args:
            network: the classifier, which is listened to from now on, and not copied.
            taps: the names of its stages and of its last layer, as `find_taps` gives them, or by hand.
            ends: see Listening.
        Raises:
            ValueError: a tap is no module of the network.
        """
        modules = dict(network.named_modules())
        if unknown := [name for name in (*taps.stages, taps.head) if name and name not in modules]:
            raise ValueError(f"the network has no module '{unknown[0]}'")
        super().__init__(network, ends)
        self.taps = taps
        for name in taps.stages:
            self._listen(name, gets=False)
        if taps.head:
            self._listen(taps.head, gets=True)

    def forward(self, images: Tensor) -> Features:
        self._given.clear()
        logits = self.network(images)
        stages = tuple(self._of(name, False, logits) for name in self.taps.stages)
        if not (self.taps.maps and isinstance(logits, torch.fx.Proxy)):
            stages = tuple(map(as_map, stages))
        if self.taps.head:
            pooled = self._of(self.taps.head, True, logits)
        elif stages:
            pooled = stages[-1].mean((2, 3))
        else:
            pooled = logits
        before = self._before(stages, logits)
        self._given.clear()
        return Features(logits, stages, before, pooled)

    def released(self) -> nn.Module:
        """The network as it was before it was tapped, with the weights that it has now; this object is used up."""
        for module in self.network.modules():
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                for number in [
                    n for n, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), _Listener)
                ]:
                    del hooks[number]
        network: nn.Module = self.network
        return network


@dataclass
class _Listener:
    """Notes what one module gets or gives."""

    owner: Listening
    key: str

    def output(self, _: nn.Module, __: Any, given: Any) -> None:
        self.owner._given[self.key] = given

    def input(self, _: nn.Module, given: tuple[Any, ...]) -> None:
        self.owner._given[self.key] = given[0]


def as_map(given: Tensor) -> Tensor:
    """A map (B,c,h,w) of what a module gives: that, channels last (B,h,w,c), or tokens (B,n,c) with some class tokens
    before those of the pixels.

    Raises:
        ValueError: neither.
    """
    if given.ndim == 4:
        square, last = given.shape[2] == given.shape[3], given.shape[1] == given.shape[2]
        return given.permute(0, 3, 1, 2) if last and not square else given
    if given.ndim == 3:
        side = math.isqrt(given.shape[1])
        pixels = given[:, given.shape[1] - side * side :]
        return pixels.transpose(1, 2).reshape(len(given), -1, side, side)
    raise ValueError(f"what a stage gives, {tuple(given.shape)}, is no map")


def find_taps(network: nn.Module, images: Tensor) -> Taps:
    """Where the stages of a classifier end and what its last layer is.

    Args:
        images: (1,C,H,W), on the network's device; square. Their content does not matter.
    Raises:
        ValueError: the network gives no maps of features.
    """
    with _listening(network) as calls, torch.no_grad():
        logits = network.eval()(images)
    linear = [call for call in calls if isinstance(network.get_submodule(call.name), nn.Linear)]
    head = linear[-1].name if linear and linear[-1].shape == tuple(logits.shape) else ""
    chain = _chain(network, {call.name for call in calls})
    times = Counter(call.name for call in calls)
    # a module that is used at several places, such as the only ReLU, gives the maps of the last one when it is tapped
    blocks = [
        call
        for call in calls
        if call.name in chain and call.side > 1 and times[call.name] == 1 and not _adapts(network, call.name)
    ]
    if not head:
        blocks = _without_scores(network, blocks, logits.shape[1])
    ends = _ends_of_stages(blocks)
    if len(ends) < 2:  # the first convolution of a network of tokens, at most
        ends = _repeated(network, [call for call in calls if len(call.shape) == 3]) or ends
    if not ends:
        raise ValueError("no module gives maps (B,c,h,w) or tokens (B,n,c)")
    stages = tuple(ends[-STAGES:])
    shapes = [call.shape for call in calls if call.name in stages]
    return Taps(stages, head, all(len(shape) == 4 and shape[2] == shape[3] for shape in shapes))


def tapped_ends(network: nn.Module, taps: Taps, images: Tensor) -> tuple[StageEnd, ...] | None:
    """The ends of the stages at `taps`; None if they are not in batch norms."""
    given: dict[str, Tensor] = {}

    def run() -> list[Tensor]:
        network.eval()(images)
        return [given[name] for name in taps.stages]

    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: given.update({name: output}))
        for name in taps.stages
    ]
    try:
        return find_ends(network, run)
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class _Call:
    """One module's output in the order in which they came. side: of the map that it is; 0 for none."""

    name: str
    shape: tuple[int, ...]
    side: int


@contextmanager
def _listening(network: nn.Module) -> Iterator[list[_Call]]:
    calls: list[_Call] = []

    def listener(name: str) -> Callable[..., None]:
        def note(_: nn.Module, __: Any, given: Any) -> None:
            if isinstance(given, Tensor) and given.ndim > 1 and len(given) == 1:  # windows have a batch of their own
                height, width = as_map(given).shape[2:] if given.ndim == 4 else (0, 1)
                calls.append(_Call(name, tuple(given.shape), height if height == width else 0))

        return note

    hooks = [module.register_forward_hook(listener(name)) for name, module in network.named_modules() if name]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _adapts(network: nn.Module, name: str) -> bool:
    """Whether a module makes maps of one size of all, before the head."""
    return isinstance(network.get_submodule(name), nn.AdaptiveAvgPool2d)


def _without_scores(network: nn.Module, blocks: list[_Call], classes: int) -> list[_Call]:
    """The blocks before a last convolution that gives a map of scores, whose mean are the logits."""
    convolutions = [n for n, call in enumerate(blocks) if isinstance(network.get_submodule(call.name), nn.Conv2d)]
    if convolutions and blocks[convolutions[-1]].shape[1] == classes:
        return blocks[: convolutions[-1]]
    return blocks


def _chain(network: nn.Module, called: set[str]) -> set[str]:
    """The modules that follow each other on the way of an image: children of the network, and of its containers."""
    found, waiting = set[str](), [(name, child) for name, child in network.named_children()]
    while waiting:
        name, module = waiting.pop()
        if type(module) in CONTAINERS or name not in called:
            waiting += [(f"{name}.{child}", inner) for child, inner in module.named_children()]
        else:
            found.add(name)
    return found


def _ends_of_stages(blocks: list[_Call]) -> list[str]:
    """The last block before each that makes the map smaller, and the last of all."""
    ends: list[_Call] = []
    for call in blocks:
        if ends and call.side > SMALLER * ends[-1].side:
            ends.pop()
        ends.append(call)
    return [call.name for call in ends]


def _repeated(network: nn.Module, tokens: list[_Call]) -> list[str]:
    """Of the block that a network of tokens repeats most, four at equal distances."""
    shape = tokens[-1].shape if tokens else ()
    kinds = Counter(type(network.get_submodule(call.name)) for call in tokens if call.shape == shape)
    for kind, count in kinds.most_common():
        names = [c.name for c in tokens if type(network.get_submodule(c.name)) is kind]
        if count >= STAGES and any(network.get_submodule(names[0]).children()):
            return [names[round(count * (i + 1) / STAGES) - 1] for i in range(STAGES)]
    return []
