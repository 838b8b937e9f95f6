"""Pretrained weights of other libraries: which a network has, whether they are at hand, and how to load them.

A library's file (see libraries.py) says what weights its networks have, and downloads them into the library's usual
cache. Here is what is the same for all: the refusals, and the question, asked before a run starts, whether the weights
are in the cache or can be downloaded.
"""

from __future__ import annotations

import math
import os
import time
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from iekd.errors import UserError, first_line
from iekd.hub_errors import status_of
from iekd.hub_names import download_command
from iekd.models import hub_configs, libraries
from iekd.models.info import IMAGENET, Pretrained

if TYPE_CHECKING:
    from torch import Tensor

FILES = ("model.safetensors", "pytorch_model.bin")  # of a repository on the Hub, in the order in which timm asks
PATIENCE = 5.0  # seconds for an answer to whether there is something to download
AWAY = 120.0  # seconds for which the Hub counts as out of reach after it did not answer
REMEMBERED = 60.0  # seconds that such an answer is not asked for again: the page asks whenever its form changes


_unanswered: list[float] = []  # when the Hub did not answer, if that was the last that was heard of it


def pretrained(name: str) -> Pretrained:
    """The weights that the library of a network has for it.

    Raises:
        UserError: there are none.
    """
    found = libraries.pretrained(name) if libraries.names_one(name) else None
    if found is not None:
        return found
    if libraries.names_one(name):
        why = f"{name.partition(libraries.SEPARATOR)[0]} has no weights for this network"
    else:
        why = "only networks of timm and torchvision have some, such as timm:resnet18"
    raise UserError(f"There are no pretrained weights for {name}: {why}. Give a file of weights, or another network.")


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation that a library's network expects where its weights do not say: those of the library's own
    weights, else ImageNet's. None for a network that is no library's."""
    if not libraries.names_one(name):
        return None
    found = libraries.pretrained(name)
    return IMAGENET if found is None else (found.mean, found.std)


def for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One number per channel: the mean of three for grey images, a single one for each colour."""
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels


def check_at_hand(name: str, found: Pretrained) -> None:
    """Check that weights are in the cache or can be downloaded; nothing is downloaded.

    Raises:
        UserError: neither.
    """
    if _is_cached(found):
        return
    if problem := _why_unreachable(found.repo, found.url, int(time.monotonic() / REMEMBERED)):
        raise missing(name, found, problem)


def missing(name: str, found: Pretrained, problem: str) -> UserError:
    """What to say where weights cannot be had."""
    said = (
        f"The pretrained weights of {name} ({found.title}) are not on this machine and cannot be downloaded "
        f"({problem}). Connect this machine to the network once"
    )
    if hub_configs.is_one(name):  # the file alone will not do: what it is of stands in the config.json beside it
        return UserError(f"{said}, or begin with random weights. {hub_configs.advice_on_folder(name)}")
    fetch = f"fetch {found.url}"
    if found.repo:
        fetch = f"fetch it with `{download_command(found.repo, f'{FILES[0]} --local-dir weights')}`"
    return UserError(
        f"{said}; or {fetch} on a machine with a connection, copy the file here and give its path instead of "
        "'pretrained'; or begin with random weights."
    )


def is_here(repo: str) -> bool:
    """Whether weights of a repository on the Hub are in its cache; no library is imported for that."""
    return _in_cache(repo) is not None


def hub_is_away() -> bool:
    """Whether the Hub is known to be out of reach: it is switched off, or did not answer this process within the last
    minutes. It is not asked."""
    from huggingface_hub import constants

    lately = time.monotonic() - max(_unanswered, default=-math.inf) < AWAY
    return bool(constants.HF_HUB_OFFLINE) or lately


def load(name: str, channels: int) -> dict[str, Tensor]:
    """The weights by the names of `registry.build`'s network, downloaded if they are not in the cache. For images of
    one channel, timm adds up the first layer's weights for red, green and blue.

    Raises:
        UserError: they cannot be downloaded or read.
    """
    found = pretrained(name)
    check_at_hand(name, found)  # which answers within seconds; a download tries again for most of a minute
    try:
        return libraries.load_pretrained(name, channels)
    except UserError:
        raise
    except Exception as error:  # whatever a library or its way to download raises
        if not _is_cached(found):
            raise missing(name, found, _in_words(error, bool(found.repo))) from error
        raise UserError(
            f"The pretrained weights of {name} ({found.title}) cannot be read ({first_line(error)}). Delete them from "
            "the library's cache, and try again."
        ) from error


def file_on_hub(found: Pretrained) -> Path:
    """The file of weights that are on the Hub, in its cache; downloaded if it is not there.

    Raises:
        Exception: whatever huggingface_hub raises where it cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if cached := _in_cache_of_hub(found):  # without asking whether there is a newer one: the network may be away
        return cached
    repo, _, revision = found.repo.partition("@")
    try:
        return Path(hf_hub_download(repo, FILES[0], revision=revision or None))
    except EntryNotFoundError:
        return Path(hf_hub_download(repo, FILES[1], revision=revision or None))


def _in_cache_of_hub(found: Pretrained) -> Path | None:
    return _in_cache(found.repo)


def _in_cache(name: str) -> Path | None:
    """name: of a repository on the Hub, with "@revision" after it where one is meant."""
    from huggingface_hub import try_to_load_from_cache

    repo, _, revision = name.partition("@")
    paths = (try_to_load_from_cache(repo, file, revision=revision or None) for file in FILES)
    return next((Path(path) for path in paths if isinstance(path, str)), None)


def _is_cached(found: Pretrained) -> bool:
    if found.repo:
        return _in_cache_of_hub(found) is not None
    import torch.hub

    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(found.url).path).name).is_file()


@lru_cache(maxsize=64)
def _why_unreachable(repo: str, url: str, minute: int) -> str:
    """Why there is nothing to download, in a few words; "" where there is. minute: for how long that is remembered."""
    try:
        if repo:
            _ask_hub(repo)
        else:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
                pass
    except Exception as error:  # of urllib, of huggingface_hub, and of whatever that speaks through
        if repo:  # a refusal is an answer too
            _unanswered[:] = [time.monotonic()] if status_of(error) is None else []
        return _in_words(error, bool(repo))
    if repo:
        _unanswered.clear()
    return ""


def _ask_hub(repo: str) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = repo.partition("@")
    for number, file in enumerate(FILES):
        try:
            get_hf_file_metadata(hf_hub_url(name, file, revision=revision or None), timeout=PATIENCE)
            return
        except EntryNotFoundError:
            if number == len(FILES) - 1:
                raise


def _in_words(error: BaseException, of_hub: bool) -> str:
    """of_hub: whether the weights are on the Hub. torchvision's are not, and HF_HUB_OFFLINE does not keep them away."""
    off = os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE")
    if of_hub and (off or type(error).__name__ == "OfflineModeIsEnabled"):
        return "the Hub is switched off by HF_HUB_OFFLINE"
    reason = getattr(error, "reason", None)  # of urllib's errors
    return first_line(reason if isinstance(reason, BaseException) else error).rstrip(".")
