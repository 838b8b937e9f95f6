"""Anybody's module as a network that gives Features: checked, tapped, and released again after training.

Leaves out: how stages are found and listened to, which is taps.py.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iekd.errors import UserError, first_line, unknown_name
from iekd.models.features import Features
from iekd.models.taps import NO_MAPS, Tapped, Taps, find_taps


@dataclass(frozen=True)
class OwnNetwork:
    """What was found out about a module: how it is tapped, and what its Features are like.

    taps: None for a module that returns Features itself.
    widths: channels of its stages; () for one without maps, and then `problem` says why.
    before_activation: whether it also gives its maps before the activation.
    """

    taps: Taps | None
    classes: int
    widths: tuple[int, ...]
    before_activation: bool
    problem: str = ""

    def wrapped(self, module: nn.Module) -> nn.Module:
        """A copy of a module, images (B,C,H,W) -> Features."""
        module = copied(module)
        return module if self.taps is None else Tapped(module, self.taps)


def copied(module: nn.Module) -> nn.Module:
    """A copy with weights of its own.

    Raises:
        UserError: it cannot be copied.
    """
    try:
        return copy.deepcopy(module)
    except Exception as error:  # whatever somebody else's module raises
        raise UserError(
            f"{type(module).__name__} cannot be copied ({first_line(error)}), and the module that you give is not "
            "changed. Give a function that builds it, or remove what copy.deepcopy cannot copy."
        ) from error


def released(network: nn.Module) -> nn.Module:
    """The plain module of what `OwnNetwork.wrapped` gave, in evaluation mode."""
    return (network.released() if isinstance(network, Tapped) else network).eval()


def examine(module: nn.Module, images: Tensor, role: str, stages: Sequence[str] | None = None) -> OwnNetwork:
    """Run a module once, in evaluation mode, and find its stages.

    Args:
        module: images (B,C,H,W) -> logits (B,K), or Features. It is not changed.
        images: some of those that it will get, (B,C,H,W), on the CPU.
        role: what to call it in messages, such as "teacher".
        stages: names of the modules whose outputs are the stages, first to last; None to find them.

    Raises:
        UserError: it cannot be run, returns something else, or has no module of such a name.
    """
    network = copied(module).cpu().eval()
    images = images[:2]
    given = _run(network, images, role)
    if isinstance(given, Features):
        if stages is not None:
            raise UserError(f"The {role} returns Features, which name its stages already. Leave {role}_stages out.")
        return _measured(None, given, role)
    if not isinstance(given, Tensor):
        raise UserError(
            f"The {role} returns a {type(given).__name__}, not its logits, a tensor (B, K). Give a module whose "
            "forward returns only these, or iekd.Features."
        )
    _check_logits(given, len(images), role)
    if role == "student":
        _check_training(network, images)
    taps, problem = NO_MAPS, ""
    try:
        if images.shape[2] != images.shape[3]:
            raise ValueError(f"images of {images.shape[2]} x {images.shape[3]} pixels are not square")
        taps = find_taps(network, images[:1])
    except Exception as error:  # whatever somebody else's module raises on a single image
        problem = first_line(error)
    if stages is not None:
        modules = dict(network.named_modules())
        for name in stages:
            if not name or name not in modules:
                raise unknown_name(f"module of the {role}", name, [n for n in modules if n])
        taps, problem = Taps(tuple(stages), taps.head), ""
        if not stages:
            problem = f"{role}_stages names none"
    tapped = Tapped(network, taps)
    try:
        features = tapped(images)
    except (ValueError, KeyError, AttributeError, RuntimeError) as error:
        if stages is not None:
            raise UserError(
                f"The {role}_stages {', '.join(stages)} cannot be used ({first_line(error)}). Name modules that are "
                "called once in the forward pass and give a map (B, channels, h, w) or tokens (B, n, channels)."
            ) from error
        return OwnNetwork(NO_MAPS, given.shape[1], (), False, first_line(error))
    return _measured(taps, features, role, problem)


@torch.no_grad()
def _run(network: nn.Module, images: Tensor, role: str) -> object:
    try:
        return network(images)
    except Exception as error:  # whatever somebody else's module raises
        shape = " x ".join(map(str, images.shape[1:]))
        raise UserError(
            f"The {role} cannot be run on images of {shape} ({type(error).__name__}: {first_line(error)}). Give one "
            "that takes what your loaders give."
        ) from error


def _check_training(network: nn.Module, images: Tensor) -> None:
    """Refuse a student that gives something else than its logits while it is trained, as those with second heads do."""
    if len(images) < 2:  # batch norm may need more
        return
    with torch.random.fork_rng(devices=[]):  # dropout draws random numbers
        given = _run(copied(network).train(), images, "student")
    if not isinstance(given, Tensor):
        raise UserError(
            f"The student returns a {type(given).__name__} while it is trained, and its logits otherwise. Give one "
            "that always returns these alone; for torchvision's googlenet and inception_v3, set aux_logits=False."
        )


def _check_logits(logits: Tensor, count: int, role: str) -> None:
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        raise UserError(
            f"The {role} gives logits {tuple(logits.shape)} for {count} images; they must be ({count}, K) for K "
            "classes, two or more."
        )


def _measured(taps: Taps | None, features: Features, role: str, problem: str = "") -> OwnNetwork:
    _check_logits(features.logits, len(features.logits), role)
    if wrong := [stage for stage in features.stages if stage.ndim != 4]:
        raise UserError(f"The {role} gives a stage {tuple(wrong[0].shape)}; stages must be maps (B, channels, h, w).")
    widths = tuple(int(stage.shape[1]) for stage in features.stages)
    before = features.pre_activations is not None
    return OwnNetwork(taps, int(features.logits.shape[1]), widths, before, problem if not widths else "")
