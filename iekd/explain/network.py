"""The networks that are explained, and the halves of an IE student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from iekd.config.methods import explores
from iekd.engine.accelerate import channels_last, whole_float32
from iekd.engine.learner import evaluation_batch_size
from iekd.errors import UserError
from iekd.explain.about import NotApplicableError
from iekd.models.artifact import ModelCard, load_model
from iekd.models.features import Features
from iekd.models.normalise import Normalise

INHERITANCE, EXPLORATION = "inheritance", "exploration"
Batch = np.ndarray  # (B,H,W,C) uint8


class Network:
    """A trained network in evaluation mode, frozen.

    Attributes:
        name: what it is called in the results, such as "teacher" or "ie-ft".
        card: its class names, in the order of its outputs, and which images it expects.
        model: images (B,C,H,W) float32, normalised -> Features.
    """

    def __init__(self, name: str, model: nn.Module, card: ModelCard, device: str | torch.device = "cpu") -> None:
        self.name, self.card, self.device = name, card, torch.device(device)
        self.model = channels_last(model.eval().requires_grad_(False), self.device)
        self.normalise = Normalise(card.mean, card.std).to(self.device)
        self.batch_size = evaluation_batch_size(self.device, card.resolution)

    def pixels(self, images: Batch) -> Tensor:
        """(B,H,W,C) uint8 -> (B,C,H,W) float32 as the network takes them."""
        normalised: Tensor = self.normalise(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(self.device))
        return normalised

    def forward(self, pixels: Tensor) -> Features:
        """Features of (B,C,H,W) float32, in full float32; gradients flow to the pixels if they want them."""
        with whole_float32(self.device, torch.float32):
            features: Features = self.model(pixels)
        return features

    def batches(self, count: int) -> list[slice]:
        """Slices that together are `count` images, of a size that suits the device."""
        return [slice(i, min(i + self.batch_size, count)) for i in range(0, count, self.batch_size)]

    @property
    def halves(self) -> dict[str, tuple[Tensor, ...]]:
        """For each half the indices of its channels in each stage that is split, the last stage last.

        Empty for a network without halves. An IE student whose card does not say its channels has natural halves: the
        first half of the last stage's channels inherits.
        """
        return self._split[0]

    @property
    def no_halves(self) -> str:
        """Why it has no halves, in a sentence; empty if it has."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[dict[str, tuple[Tensor, ...]], str]:
        if not explores(self.card.method):
            return {}, f"'{self.name}' has no halves: it was not trained with inheritance and exploration."
        try:
            _ = self.head
        except NotApplicableError as error:
            return {}, str(error)
        split = self.card.inheritance_channels or (tuple(range(self.widths[-1] // 2)),)
        exploring = [
            sorted(set(range(width)) - set(channels))
            for width, channels in zip(self.widths[-len(split) :], split, strict=True)
        ]
        if not split[-1] or not exploring[-1]:
            return {}, f"'{self.name}' has no halves: one of them has all channels of the last stage."
        halves = {INHERITANCE: split, EXPLORATION: exploring}
        return {k: tuple(torch.tensor(c, device=self.device) for c in v) for k, v in halves.items()}, ""

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(shape[0] for shape in self.shapes)

    @cached_property
    def shapes(self) -> tuple[torch.Size, ...]:
        """(c,h,w) of each stage."""
        return tuple(stage.shape[1:] for stage in self._features_of_nothing().stages)

    def need_maps(self) -> None:
        """Check that it has stages, which some diagnostics are of.

        Raises:
            NotApplicableError: it has none.
        """
        if not self.shapes:
            raise NotApplicableError(f"'{self.name}' gives no feature maps.")

    @cached_property
    def head(self) -> tuple[Tensor, Tensor]:
        """(weights (K,c), bias (K,)) of the linear layer that makes the logits from the pooled features.

        Raises:
            NotApplicableError: the logits are made in another way.
        """
        calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

        def remember(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert isinstance(module, nn.Linear)
            calls.append((module, inputs[0], output))

        hooks = [m.register_forward_hook(remember) for m in self.model.modules() if isinstance(m, nn.Linear)]
        try:
            features = self._features_of_nothing()
        finally:
            for hook in hooks:
                hook.remove()
        for linear, pooled, logits in calls:
            if pooled is features.pooled and logits is features.logits and pooled.shape[1:] == self.widths[-1:]:
                bias = torch.zeros(len(linear.weight), device=self.device) if linear.bias is None else linear.bias
                return linear.weight, bias
        raise NotApplicableError(
            f"The halves of '{self.name}' cannot be told apart: its logits are not one linear layer of the last "
            "stage's means."
        )

    def _features_of_nothing(self) -> Features:
        side, channels = self.card.resolution, self.card.channels
        with torch.no_grad():
            return self.forward(torch.zeros(1, channels, side, side, device=self.device))


@dataclass(frozen=True)
class NetworkOrHalf:
    """A network, or one half of it: its last stage with the channels of the other half silenced (set to 0).

    half: "inheritance", "exploration", or "" for the whole network.
    """

    network: Network
    half: str = ""

    @property
    def label(self) -> str:
        return f"{self.network.name} {self.half}".strip()

    def mask(self) -> Tensor:
        """(c,) float32, 1 for the channels of the last stage that it has and 0 for those that are silenced."""
        if not self.half:
            return torch.ones(self.network.widths[-1], device=self.network.device)
        mask = torch.zeros(self.network.widths[-1], device=self.network.device)
        mask[self.network.halves[self.half][-1]] = 1
        return mask

    def logits(self, features: Features) -> Tensor:
        """(B,K) of the network's features. Both halves' logits add up to the whole network's, plus the bias once more.

        Raises:
            NotApplicableError: it is a half, and the network has no linear head.
        """
        if not self.half:
            return features.logits
        weight, bias = self.network.head
        return (features.pooled * self.mask()) @ weight.T + bias

    def probabilities(self, pixels: Tensor) -> Tensor:
        """(B,K) of (B,C,H,W) float32, without gradients."""
        with torch.inference_mode():
            return self.logits(self.network.forward(pixels)).softmax(-1)


def parts_of(networks: Sequence[Network]) -> list[NetworkOrHalf]:
    """Every network followed by its halves."""
    return [NetworkOrHalf(network, half) for network in networks for half in ("", *network.halves)]


def open_networks(folders: Mapping[str, Path], device: str | torch.device = "cpu") -> list[Network]:
    """The saved networks of some folders by the names that they get.

    Raises:
        UserError: a folder has no usable model, or the networks are not for the same images and classes.
    """
    networks = [Network(name, *load_model(folder), device) for name, folder in folders.items()]
    first = networks[0]
    for other in networks[1:]:
        if other.card.class_names != first.card.class_names:
            raise UserError(
                f"'{other.name}' and '{first.name}' do not know the same classes ({len(other.card.class_names)} and "
                f"{len(first.card.class_names)}), so they cannot be explained side by side. Explain them one by one."
            )
        if _images_of(other.card) != _images_of(first.card):
            raise UserError(
                f"'{other.name}' and '{first.name}' expect different images ({_images_of(other.card)} and "
                f"{_images_of(first.card)}). Explain them one by one."
            )
    return networks


def _images_of(card: ModelCard) -> str:
    kind = {1: "grey", 3: "colour"}[card.channels]
    white = "" if card.white is None else f", white at {card.white:g}"
    return f"{kind}, {card.resolution} x {card.resolution}, {card.fit}{white}"
