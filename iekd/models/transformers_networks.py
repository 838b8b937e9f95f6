"""The image classifiers of transformers, as networks that give Features. The package is an extra."""

from __future__ import annotations

import importlib
import inspect
import json
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from iekd.errors import UserError
from iekd.hub_errors import HubError
from iekd.models import hub_configs
from iekd.models.hub_configs import COMPUTED, PREPROCESSOR, SIDE, Config, Numbers
from iekd.models.taps import SMALLER, STAGES, Tapped, Taps, as_map

LEFT_OUT = (  # of a config.json: what is about somebody's weights or files, or decided here
    "architectures", "model_type", "auto_map", "_name_or_path", "transformers_version", "dtype", "torch_dtype",
    "quantization_config", "_attn_implementation", "attn_implementation", "problem_type", "id2label", "label2id",
    "num_labels", "use_pretrained_backbone",
)  # fmt: skip


class TransformersNetwork(Tapped):
    """A network of transformers: images (B,C,H,W) -> Features, whose stages are hidden states.

    Of those with one size of map, such as a vision transformer's, four at equal distances; else the last of each size,
    four at most. Tokens come as maps (B,c,h,w). One that gives no maps has no stages.
    """

    def __init__(self, network: nn.Module, head: str, chosen: tuple[int, ...]) -> None:
        """head: the linear layer that gives the logits; "" where none does, as with the mean of two. chosen: numbers of
        hidden states."""
        super().__init__(network, Taps((), head))
        self.chosen = chosen
        self.any_size = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        self.side = _side(network.config)

    def forward(self, images: Tensor) -> Any:
        from iekd.models.features import Features

        self._given.clear()
        # positions are learnt for one size; others are interpolated
        more = {"interpolate_pos_encoding": True} if self.any_size and images.shape[-1] != self.side else {}
        given = self.network(pixel_values=images, output_hidden_states=True, return_dict=True, **more)
        maps = tuple(as_map(given.hidden_states[number]) for number in self.chosen)
        if self.taps.head:
            pooled = self._of(self.taps.head, True, given.logits).flatten(1)
        else:
            pooled = maps[-1].mean((2, 3)) if maps else given.logits
        self._given.clear()
        return Features(given.logits, maps, None, pooled)


def build_network(config: Config, num_classes: int, channels: int) -> TransformersNetwork:
    """The network of a config.json with random weights.

    Raises:
        UserError: transformers is not installed, or has no such network.
    """
    head, chosen = _places(json.dumps(config, sort_keys=True))
    return TransformersNetwork(_create(config, num_classes, channels), head, chosen)


def converted(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as transformers stores them by the names of `network`, one of ours: it renames what older versions of it
    have called otherwise.

    Raises:
        UserError: some are missing, or have other shapes; transformers would draw them at random.
    """
    inner: Any = network.network
    said = _transformers().utils.logging
    loudness = said.get_verbosity()
    said.set_verbosity(said.CRITICAL)  # what it says of missing weights is said below
    try:
        loaded, about = type(inner).from_pretrained(
            None, config=inner.config, state_dict=dict(state), output_loading_info=True, ignore_mismatched_sizes=True
        )
    finally:
        said.set_verbosity(loudness)
    shapes = sorted(str(key[0] if isinstance(key, tuple) else key) for key in about["mismatched_keys"])
    missing = sorted(key for key in about["missing_keys"] if not key.endswith(COMPUTED))
    for keys, what in ((missing, "is missing"), (shapes, "has another shape")):
        if keys:
            raise UserError(f"The weights do not fit the config.json: {keys[0]} {what}.")
    return {f"network.{key}": value.detach() for key, value in loaded.state_dict().items()}


def images_of(name: str, config: Config) -> tuple[Numbers | None, Numbers | None, int]:
    """(mean, std, side) of the images that the weights expect, by preprocessor_config.json; None where it is silent."""
    try:
        said = hub_configs.read_file(name, PREPROCESSOR)
    except HubError as error:
        if "has no" not in str(error):
            raise
        said = {}
    return hub_configs.images_of(config, said, f"the {PREPROCESSOR} of '{name}'")


def _create(config: Config, num_classes: int, channels: int) -> nn.Module:
    auto = _transformers()
    values = {key: value for key, value in config.items() if key not in LEFT_OUT}
    settings = auto.AutoConfig.for_model(config["model_type"], **values)
    settings.architectures = list(map(str, config.get("architectures") or ()))  # DeiT and others have several
    settings.num_labels, settings.num_channels = num_classes, channels
    try:
        network: nn.Module = auto.AutoModelForImageClassification.from_config(settings, trust_remote_code=False)
    except ValueError as error:
        if "Unrecognized configuration" in str(error):
            raise UserError(f"transformers has no image classifier '{config['model_type']}'.") from None
        raise
    return network


@lru_cache(maxsize=16)
def _places(config: str) -> tuple[str, tuple[int, ...]]:
    """(name of the linear layer that gives the logits, numbers of the hidden states that end a stage), found without
    computing anything."""
    with torch.device("meta"), torch.no_grad(), torch.random.fork_rng(devices=[]):
        network = _create(json.loads(config), 10, 3).eval()
        side, scores = _side(network.config) or SIDE, dict[str, Tensor]()
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear) and module.out_features == 10:
                module.register_forward_hook(lambda _, __, output, name=name: scores.update({name: output}))
        given = network(pixel_values=torch.zeros(1, 3, side, side), output_hidden_states=True, return_dict=True)
    head = next((name for name, output in scores.items() if output is given.logits), "")
    states = given.hidden_states or ()
    if any(state.ndim not in (3, 4) for state in states):
        return head, ()
    sides = [max(as_map(state).shape[2:]) for state in states]
    count = len(sides)
    if len(set(sides)) == 1 and count > STAGES:  # the first is the embedding, before any block
        return head, tuple(round((count - 1) * (i + 1) / STAGES) for i in range(STAGES))
    ends: list[int] = []
    for number, map_side in enumerate(sides):
        if ends and map_side > SMALLER * sides[ends[-1]]:
            ends.pop()
        ends.append(number)
    return head, tuple(ends[-STAGES:])


def _side(settings: Any) -> int:
    """Side of the images that a configuration says; 0 where it says none."""
    size = getattr(settings, "image_size", None) or 0
    return int(size[0] if isinstance(size, (list, tuple)) else size)


def _transformers() -> Any:
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise UserError(
            "This network is built by the package transformers, which is not installed. Install it with "
            "pip install 'iekd[transformers]'."
        ) from None
    transformers.utils.logging.disable_progress_bar()
    return transformers
