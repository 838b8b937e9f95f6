"""Networks of other libraries by name: `timm:mobilenetv3_small_100`, `torchvision:resnet50`, `hf:ORG/NAME`.

A library is a file beside this one with the functions of `Library`. It is imported, and torch with it, when one of its
networks is first asked for.
"""

from __future__ import annotations

import importlib
import threading
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol, cast

from iekd.errors import UserError, first_line, unknown_name
from iekd.models import hub_configs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from iekd.models.info import ModelInfo, Pretrained
    from iekd.models.measure import Builder

HUB = "hf"  # the library of the Hub's networks, which are not listed: hub_configs.py knows those that were looked up
LIBRARIES = {"timm": "timm_networks", "torchvision": "torchvision_networks", HUB: "hub_networks"}
LISTED = ("torchvision", "timm")  # in this order: timm has ten times as many
SEPARATOR = ":"
SIDES = (224, 256, 128, 64, 32)  # of the image with which sizes are measured; most were designed for 224


class Library(Protocol):
    """What the file of a library offers; names are without the library's own."""

    def names(self) -> list[str]:
        """Every network that it can build, in the library's order."""

    def plain(self, name: str, num_classes: int) -> nn.Module:
        """The network as the library makes it, for colour images."""

    def build(self, name: str, num_classes: int, channels: int) -> nn.Module:
        """A network with random weights: images (B,channels,H,W), normalised -> Features."""

    def pretrained(self, name: str) -> Pretrained | None:
        """The weights that the library has for a network; None where it has none. Nothing is downloaded."""

    def load_pretrained(self, name: str, channels: int) -> dict[str, Tensor]:
        """Those weights, by the names that they have in what `build` gives; downloaded where that is needed."""


def names_one(name: str) -> bool:
    """Whether it is the name of a library's network, of one that exists or not."""
    return name.partition(SEPARATOR)[0] in LIBRARIES and SEPARATOR in name


def has(name: str) -> bool:
    """Whether the library that is named has such a network; of the Hub's, whether it is known on this machine."""
    if hub_configs.is_one(name):
        return hub_configs.is_known(name)
    library, _, network = name.partition(SEPARATOR)
    return network in _library(library).names()


def check(name: str) -> str:
    """Return the name of a library's network. Whether the Hub has it is not asked here, see `hub_configs.look_up`.

    Raises:
        UnknownNameError: the library has none of that name; the message has the closest.
        UserError: no repository of the Hub can have that name.
    """
    if hub_configs.is_one(name):
        return hub_configs.check_name(name)
    library, _, network = name.partition(SEPARATOR)
    if not has(name):
        architecture, dot, _ = network.partition(".")
        if library == "timm" and dot and architecture in _library(library).names():
            raise UserError(
                f"'{name}' names weights as well as a network. Write timm:{architecture} for the network, or "
                f"hf:timm/{network} for the network with these weights on the Hub."
            )
        advice = f"`iekd models --search {network[:4] or 'resnet'}` lists what there is."
        raise unknown_name("model", name, search("", library), advice)
    return name


def search(words: str, library: str = "") -> list[str]:
    """The names that contain all the words, of one library or of all."""
    wanted = words.lower().split()
    found = [f"{key}{SEPARATOR}{name}" for key in ([library] if library else LISTED) for name in _library(key).names()]
    return [name for name in found if all(word in name.lower() for word in wanted)]


def builder_of(name: str) -> Builder:
    """A function of (num_classes, channels) that builds the network of that name.

    Raises:
        UnknownNameError: see `check`.
    """
    library, _, network = check(name).partition(SEPARATOR)
    return partial(_library(library).build, network)


@lru_cache(maxsize=256)
def pretrained(name: str) -> Pretrained | None:
    """The weights that a library has for its network of that name; None where it has none.

    Raises:
        UnknownNameError: see `check`.
    """
    library, _, network = check(name).partition(SEPARATOR)
    return _library(library).pretrained(network)


def load_pretrained(name: str, channels: int) -> dict[str, Tensor]:
    """See `Library.load_pretrained`; raises whatever a library does where it cannot download."""
    library, _, network = check(name).partition(SEPARATOR)
    return _library(library).load_pretrained(network, channels)


def measured(name: str) -> ModelInfo:
    """The sizes of a library's network.

    Raises:
        UserError: it does not exist, or cannot be used as a classifier with features.
    """
    from iekd.models.measure import measure

    return measure(name, builder_of(name), SIDES)


@lru_cache(maxsize=64)
def check_side(name: str, side: int) -> None:
    """Check that a network takes images of side x side pixels.

    Raises:
        UserError: it does not, with its reason.
    """
    import torch

    problem: Exception | None = None
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), torch.no_grad(), torch.random.fork_rng(devices=[]):
                builder_of(name)(2, 3).eval()(torch.zeros(1, 3, side, side))
                return
        except UserError:
            raise
        except Exception as error:  # whatever a library raises
            problem = error
            if "meta" not in str(error):  # it is about the images; building it with numbers may take gigabytes
                break
    assert problem is not None
    raise UserError(
        f"'{name}' does not take images of {side} x {side} pixels ({first_line(problem)}). Most networks of libraries "
        "are made for 224. Set another resolution, or choose another network."
    ) from problem


def title(name: str) -> str:
    """timm:resnet18 -> resnet18 (timm); hf:timm/resnet18.a1_in1k -> timm/resnet18.a1_in1k (Hub)."""
    if hub_configs.is_one(name):
        return hub_configs.title(name)
    library, _, network = name.partition(SEPARATOR)
    return f"{network} ({library})"


@lru_cache(maxsize=4096)
def parameters(name: str) -> int:
    """Parameters of a library's network for three channels and ten classes; its shapes are made, not its numbers.

    Raises:
        UserError: it does not exist, or cannot be used as a classifier with features.
    """
    import torch

    library, _, network = check(name).partition(SEPARATOR)
    problem: Exception | None = None
    for device in ("meta", "cpu"):  # some draw their numbers in a way that needs real ones
        try:
            with torch.device(device), torch.random.fork_rng(devices=[]):
                return sum(p.numel() for p in _library(library).plain(network, 10).parameters())
        except UserError:
            raise
        except Exception as error:  # whatever a library raises
            problem = error
            if "meta" not in str(error):
                break
    assert problem is not None
    raise UserError(f"'{name}' cannot be used as a classifier ({first_line(problem)}).") from problem


def are_loaded() -> bool:
    """Whether the libraries were imported, which takes some seconds."""
    return all(f"iekd.models.{LIBRARIES[library]}" in _imported for library in LISTED)


def load_in_background() -> None:
    """Begin to import the libraries in a thread, unless that was begun before."""
    with _loading_lock:
        if not _loading:
            _loading.append(threading.Thread(target=lambda: list(map(_library, LISTED)), daemon=True))
            _loading[0].start()


_imported: set[str] = set()  # modules, once they are whole
_loading: list[threading.Thread] = []
_loading_lock = threading.Lock()


def _library(name: str) -> Library:
    module = importlib.import_module(f"iekd.models.{LIBRARIES[name]}")
    _imported.add(module.__name__)
    return cast(Library, module)
