"""What to answer to a name that no network of ours has: the one with the prefix that was left out, or the closest."""

from __future__ import annotations

import re

from iekd.errors import UnknownNameError, closest, did_you_mean, unknown_name
from iekd.hub_names import PREFIX, named_in
from iekd.models import libraries

SEARCH = "`iekd models --search resnet` lists those of timm and torchvision."
OWN_FILE = "If it is a folder or a file of your own, give it as teacher from or student from."
LONGEST = 100  # letters of a name that is worth comparing with more than a thousand others
FILES = (".pth", ".pt", ".th", ".tar", ".bin", ".safetensors", ".onnx")  # no networks, though ORG/NAME may look so
VERY_LIKE, SHOWN = 0.8, 3  # of the closest names of libraries


def unknown_model(name: str, ours: list[str], advice: str) -> UnknownNameError:
    """An error that offers the network of that name of a library or of the Hub, or the closest one.

    The libraries are imported, which takes seconds the first time. The Hub is not asked.

    Args:
        ours: the names that are known here. advice: what to do where no network is called so.
    """
    guesses = prefixed(name) or ([] if closest(name, ours, cutoff=VERY_LIKE) else nearest(name))
    if not guesses:
        return unknown_name("model", name, ours, advice)
    more = OWN_FILE if all(guess.startswith(PREFIX) for guess in guesses) else SEARCH
    return UnknownNameError(f"Unknown model '{name}'. {did_you_mean(guesses)} {more}", "model", name)


def meant(words: str) -> list[str]:
    """The networks that a search which found none may have been for; [] if none is like it."""
    return prefixed(words.strip()) or nearest(words.strip())


def prefixed(name: str) -> list[str]:
    """The networks that are called so but for the prefix, for capitals and for signs; [] if there are none."""
    if len(name) > LONGEST or name.lower().endswith(FILES):
        return []
    if on_hub := named_in(name):
        return [on_hub]
    networks = _networks()
    plain, dot, _ = name.partition(".")
    if dot and f"timm{libraries.SEPARATOR}{plain}" in networks:  # the name of timm's weights
        return [f"{PREFIX}timm/{name}"]
    return [key for key, network in networks.items() if network == name] or [
        key for key, network in networks.items() if _letters(network) == _letters(name)
    ]


def nearest(name: str) -> list[str]:
    """Those whose names are very like it."""
    if len(name) > LONGEST:
        return []
    networks = _networks()
    near = closest(name, networks if libraries.SEPARATOR in name else set(networks.values()), SHOWN, VERY_LIKE)
    return [key for one in near for key, network in networks.items() if one in (key, network)]


def _networks() -> dict[str, str]:
    return {key: key.partition(libraries.SEPARATOR)[2] for key in libraries.search("")}


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())
