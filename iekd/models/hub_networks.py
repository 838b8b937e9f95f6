"""The networks on the Hub (hub_configs.py), built by timm or transformers; and their trained weights."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from iekd.errors import UserError, first_line
from iekd.hub_errors import HubError
from iekd.hub_names import PREFIX
from iekd.models import hub_configs
from iekd.models.features import Classifier
from iekd.models.hub_configs import COMPUTED, Config
from iekd.models.info import IMAGENET, Pretrained

SAFE = "model.safetensors"
PICKLED = "pytorch_model.bin"


def names() -> list[str]:
    """None: what the Hub has is not listed here."""
    return []


def plain(name: str, num_classes: int) -> nn.Module:
    """See `libraries.Library.plain`."""
    return build(name, num_classes, 3)


def build(name: str, num_classes: int, channels: int) -> Classifier:
    """The network of ORG/NAME or ORG/NAME@REVISION with random weights.

    Raises:
        UserError: it has not been looked up, or the library that builds it is missing or does not know it.
    """
    full = f"{PREFIX}{name}"
    config = hub_configs.check_config(full, hub_configs.config_of(full))  # a run's folder may come from anywhere
    try:
        return _built(config, num_classes, channels)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # whatever a library raises for a configuration that it does not understand
        raise UserError(
            f"'{full}' cannot be built from its config.json ({first_line(error)}). Choose another network."
        ) from error


def pretrained(name: str) -> Pretrained | None:
    """The trained weights of ORG/NAME or ORG/NAME@REVISION, as its config.json describes them; mean and deviation of a
    network of transformers are in another small file. None for what a folder describes: its weights are a file.

    Raises:
        UserError: the Hub cannot be reached, or it has no such network.
    """
    pinned = hub_configs.look_up(f"{PREFIX}{name}")
    if hub_configs.is_of_folder(pinned):
        return None
    config, repo = hub_configs.config_of(pinned), pinned.removeprefix(PREFIX)
    if hub_configs.is_timm(config):
        about = _about_timm(config)
        where = f"the {hub_configs.CONFIG} of '{pinned}'"
        mean, std = hub_configs.normalisation_of(where, about.get("mean"), about.get("std"))
        side = hub_configs.side_of(about.get("input_size"), -1) or hub_configs.SIDE
        said = (config.get("num_classes"), about.get("num_classes"), 1000)
        classes = int(next(count for count in said if count is not None))  # 0: without a classifier
    else:
        from iekd.models.transformers_networks import images_of

        classes = _classes(config)
        mean, std, side = images_of(pinned, config)
    return Pretrained(repo.partition("@")[0], classes, side, mean or IMAGENET[0], std or IMAGENET[1], repo)


def load_pretrained(name: str, channels: int) -> dict[str, Tensor]:
    """These weights by the names that they have in what `build` gives, of all the network's classes, downloaded or from
    the cache: safetensors where there are, else a pickle that may only build tensors.

    channels: of the images; a first layer for colour is as it was trained, see start.py.

    Raises:
        UserError: they cannot be had, hold code, or do not fit the network.
    """
    pinned = hub_configs.look_up(f"{PREFIX}{name}")
    config, state = hub_configs.config_of(pinned), _weights(pinned)
    own = _channels(_about_timm(config)) if hub_configs.is_timm(config) else config.get("num_channels")
    about = pretrained(name)
    assert about is not None  # else nobody asks for its weights
    network = build(pinned.removeprefix(PREFIX), about.classes or 1, int(own or 3))
    if hub_configs.is_timm(config):
        state = {f"network.{key}": value for key, value in state.items()}
    else:
        from iekd.models.transformers_networks import converted

        state = converted(network, state)
    _check_fits(pinned, network, state, headless=not about.classes)
    return state


def of_folder(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in a model folder by the names that they have in what `build` gives for its network.

    Raises:
        UserError: they do not fit its config.json.
    """
    config = hub_configs.config_of(name)
    if hub_configs.is_timm(config):
        return state
    from iekd.models.transformers_networks import converted

    return converted(build(name.removeprefix(PREFIX), _classes(config), int(config.get("num_channels") or 3)), state)


def _about_timm(config: Config) -> Config:
    found = config.get("pretrained_cfg") or config
    return found if isinstance(found, dict) else config


def _channels(about: Config) -> int:
    size = about.get("input_size")
    return (hub_configs.side_of(size) if isinstance(size, (list, tuple)) else None) or 3


def _built(config: Config, num_classes: int, channels: int) -> Classifier:
    if not hub_configs.is_timm(config):
        from iekd.models.transformers_networks import build_network

        return build_network(config, num_classes, channels)
    from iekd.models import timm_networks

    architecture = config["architecture"].partition(".")[0]  # what follows a dot are weights
    if architecture not in timm_networks.names():
        raise UserError(f"Its config.json asks for '{architecture}', which is not in this timm. Install a newer one.")
    return timm_networks.build(architecture, num_classes, channels, _arguments(config.get("model_args")))


def _arguments(given: Any) -> dict[str, Any]:
    """What a repository of timm says about how its network is built; nothing that loads files.

    Raises:
        UserError: it says more than that.
    """
    import timm

    arguments: dict[str, Any] = dict(given or {})
    for decided in ("num_classes", "in_chans"):
        arguments.pop(decided, None)
    refused = [key for key in arguments if key in inspect.signature(timm.create_model).parameters]
    if refused:
        raise UserError(f"Its config.json sets '{refused[0]}' in model_args, which is refused. Choose another network.")
    return arguments


def _weights(name: str) -> dict[str, Tensor]:
    from iekd.models.weight_files import read_weights

    try:
        path = hub_configs.download(name, SAFE)
    except HubError as missing:
        if "has no" not in str(missing):
            raise
        try:
            path = hub_configs.download(name, PICKLED)
        except HubError as error:
            raise (missing if "has no" in str(error) else error) from None
    state: dict[str, Tensor] = read_weights(path, alone=True).candidates[0].state
    return state


def _classes(config: Config) -> int:
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) and labels else int(config.get("num_labels") or 2)


def _check_fits(name: str, network: nn.Module, state: dict[str, Tensor], headless: bool) -> None:
    """Raises UserError where weights are missing or have other shapes; counters of batch norms may be missing.

    headless: the weights are without a classifier.
    """
    head = {id(one) for one in network.get_submodule("network").get_classifier().parameters()} if headless else set()  # type: ignore[operator]
    of_head = {key for key, one in network.named_parameters() if id(one) in head}
    for key, own in network.state_dict().items():
        if key in of_head:
            continue
        given = state.get(key)
        if given is None and own.ndim and not key.endswith(COMPUTED):
            raise UserError(f"The weights of '{name}' do not fit its config.json: {key} is missing.")
        if given is not None and given.shape != own.shape:
            raise UserError(f"The weights of '{name}' do not fit its config.json: {key} has another shape.")
        if given is not None and given.is_floating_point() and not torch.isfinite(given).all():
            raise UserError(f"The weights of '{name}' are damaged: {key} holds values that are not numbers.")
