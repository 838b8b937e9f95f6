"""Networks of image classifiers on the Hugging Face Hub, `hf:ORG/NAME`: what their config.json says. No torch here.

Only config.json is needed to build one with random weights. `look_up` asks the Hub for it, where a run is prepared;
everything after that uses what is on this machine: the configurations that `remember` was given by a run's folder or a
saved model, and huggingface_hub's cache. A name that was looked up ends in @COMMIT, so it means the same for ever.

The config.json of a model folder is known in the same way, as hf:folder/KIND@SUM, where SUM is made from its content.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from iekd import __version__
from iekd.errors import UserError
from iekd.hub_errors import HubError, error_sentence, status_of
from iekd.hub_names import COMMIT, PREFIX, Repository, download_command, parse_repository

log = logging.getLogger(__name__)
Config = dict[str, Any]
Numbers = tuple[float, ...]
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"  # of transformers: how images are prepared
LARGEST = 2**20  # bytes of a config.json: names of a hundred thousand classes
AGAIN = 300.0  # seconds after which a name without a commit is looked up again
FILES = "networks.json"  # of a run's folder: the configurations of its networks, by name
DESCRIBED = "folder/"  # stands for the organisation where a config.json came from a model folder
COMPUTED = ("num_batches_tracked", "relative_position_index", "position_ids")  # tensors that files may leave out
WRAPPER = "timm_wrapper"  # transformers' name for a network of timm
CLASSIFIERS = ("ForImageClassification", "ForImageClassificationWithTeacher")  # how transformers' classes end
ARCHITECTURE = re.compile(r"\w[\w.-]*", re.ASCII)
SHOWN = 8  # digits of a commit
SIDE = 224  # of images where nothing is said

_known: dict[str, Config] = {}
_pinned: dict[str, tuple[float, str]] = {}  # name -> when it was looked up, the name with its commit


def is_one(name: str | None) -> bool:
    """Whether it is the name of a network on the Hub, of one that exists or not."""
    return bool(name) and str(name).startswith(PREFIX)


def check_name(name: str) -> str:
    """The name as it is written here: hf:ORG/NAME or hf:ORG/NAME@REVISION. Nothing is looked up.

    Raises:
        UserError: no repository can have it.
    """
    return f"{PREFIX}{parse_repository(name)}"


def title(name: str) -> str:
    """hf:timm/resnet18.a1_in1k@0123... -> timm/resnet18.a1_in1k (Hub); hf:folder/KIND@0123... -> KIND (folder)."""
    plain = name.removeprefix(PREFIX).partition("@")[0]
    return f"{plain.removeprefix(DESCRIBED)} (folder)" if is_of_folder(name) else f"{plain} (Hub)"


def without_commit(name: str) -> str:
    """hf:timm/resnet18.a1_in1k@0123... -> hf:timm/resnet18.a1_in1k, for tables and sentences; other names stay."""
    return name.partition("@")[0] if is_one(name) else name


def with_short_commit(name: str) -> str:
    """hf:timm/resnet18.a1_in1k@0123456789... -> hf:timm/resnet18.a1_in1k@01234567, where revisions are told apart."""
    plain, at, revision = name.partition("@")
    return f"{plain}{at}{revision[:SHOWN] if COMMIT.fullmatch(revision) else revision}"


def is_of_folder(name: str) -> bool:
    """Whether it is the name of a network that a model folder describes."""
    return name.startswith(PREFIX + DESCRIBED) and bool(COMMIT.fullmatch(name.partition("@")[2]))


def of_folder(config: Config, where: str) -> str:
    """The name of the network that the config.json of a folder describes; it is known from now on.

    Raises:
        UserError: it is not an image classifier that can be built here; where: the folder, for the message.
    """
    kind = check_config(where, config).get("architecture") or config["architectures"][0]
    total = hashlib.sha1(json.dumps(config, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
    name = check_name(f"{DESCRIBED}{str(kind).partition('.')[0]}@{total}")
    remember({name: config})
    return name


def remember(configs: dict[str, Any]) -> None:
    """Configurations by name that came with a run or a saved model; those that are known already stay."""
    for name, config in configs.items():
        if is_one(name) and isinstance(config, dict):
            _known.setdefault(name, config)


def of_these(names: Iterable[str | None], sources: Iterable[str | None] = ()) -> dict[str, Config]:
    """The configurations of those among `names` that are networks on the Hub, to be stored beside what uses them.

    sources: where weights come from; those of networks that have not been looked up yet are left out.
    """
    known = (source for source in sources if is_one(source) and is_known(str(source)))
    return {str(name): config_of(str(name)) for name in (*names, *known) if is_one(name)}


def is_known(name: str) -> bool:
    """Whether its configuration is on this machine."""
    return _on_this_machine(name) is not None


def is_described_here(name: str) -> bool:
    """Whether this machine has all that is said of a network's weights, so that the Hub need not be asked: the
    configuration of a commit and, for one of transformers, how images are prepared.

    Raises:
        UserError: the configuration cannot be used.
    """
    source = parse_repository(name)
    config = _on_this_machine(name) if COMMIT.fullmatch(source.revision or "") else None
    if config is None or is_timm(config):
        return config is not None
    return _cached(source, PREPROCESSOR) is not None or _is_absent(source, PREPROCESSOR)


def config_of(name: str) -> Config:
    """The configuration of a network that was looked up before.

    Raises:
        UserError: it is not on this machine.
    """
    found = _on_this_machine(name)
    if found is None and is_of_folder(name):
        raise UserError(
            f"The network '{name}' is described by the config.json of a folder that has not been read here. Give the "
            "folder as teacher from or student from, and leave the network out."
        )
    if found is None:
        raise UserError(f"The network '{name}' has not been looked up on the Hub yet. Start a run with it first.")
    return found


def look_up(name: str) -> str:
    """Ask the Hub for a network's config.json and check that it is an image classifier that can be built here.

    Without the Hub, the copy in huggingface_hub's cache counts.

    Returns:
        The name with the commit.
    Raises:
        UserError: the Hub cannot be reached, or it has no such repository; or it is not an image classifier, or one
            with code of its own.
    """
    name = check_name(name)
    when, pinned = _pinned.get(name, (0.0, ""))
    source = parse_repository(name)
    if is_of_folder(name) or (COMMIT.fullmatch(source.revision or "") and is_known(name)):
        check_config(name, config_of(name))
        return name
    if pinned and time.monotonic() - when < AGAIN:
        return pinned
    path = download(name, CONFIG)
    pinned = f"{PREFIX}{source.repo}@{path.parent.name}"  # the cache has a folder for each commit
    config = check_config(name, _read(path, name))
    _known[name] = _known[pinned] = config
    _pinned[name] = (time.monotonic(), pinned)
    return pinned


def download(name: str, file: str) -> Path:
    """A file of the repository, from huggingface_hub's cache where it is there.

    Raises:
        HubError: it cannot be had; one sentence.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    source = parse_repository(name)
    absent = HubError(f"'{source}' on the Hub has no {file}, so it cannot be used as a network.")
    if COMMIT.fullmatch(source.revision or "") and _is_absent(source, file):
        raise absent
    try:
        found = hf_hub_download(
            source.repo, file, revision=source.revision, library_name="iekd", library_version=__version__
        )
    except EntryNotFoundError as error:
        if not isinstance(error, LocalEntryNotFoundError):
            raise absent from None
        raise HubError(
            f"{error_sentence(error, source.repo)} '{file}' of '{name}' is not on this machine. "
            f"{advice_on_folder(name)}"
        ) from None
    except Exception as error:
        why, status, cached = error_sentence(error, source.repo), status_of(error), _cached(source, file)
        if cached is None or not (status is None or status >= 500 or status == 429):  # it has answered with a no
            raise HubError(why) from None
        log.warning("%s Using the copy of '%s' that is on this machine.", why, name)
        return cached
    return Path(found)


def advice_on_folder(name: str) -> str:
    """How to bring a network to a machine that does not reach the Hub, in sentences.

    The folder is a network of its own (`of_folder`), or one of timm. Beside the name on the Hub it would be refused.
    """
    command = download_command(str(parse_repository(name)), "--local-dir network")
    return (
        f"A machine with a connection fetches it with `{command}`: copy that folder here, give its path as teacher "
        "from, student from or more teachers from, and name no network for it. Where one has to be named (on the page, "
        "or for a further teacher), name any: the refusal says which it is."
    )


def is_timm(config: Config) -> bool:
    """Whether timm builds it; else transformers does."""
    return "architecture" in config


def check_config(name: str, config: Config) -> Config:
    """Return `config` if it is that of an image classifier that can be built without code of others.

    Raises:
        UserError: it is not.
    """
    if "auto_map" in config or "custom_pipelines" in config:
        raise UserError(f"'{name}' brings code of its own (auto_map), which is never run here. Choose another network.")
    if not isinstance(config.get("model_args") or {}, dict):
        raise UserError(f"'{name}' is refused: the model_args in its {CONFIG} are no object.")
    # transformers would hand the arguments of a wrapper to timm unread; with a name of timm's it is built here
    if is_timm(config) or config.get("model_type") == WRAPPER:
        if isinstance(config.get("architecture"), str) and ARCHITECTURE.fullmatch(config["architecture"]):
            return config
        raise UserError(f"'{name}' is refused: the architecture in its {CONFIG} is no name of a network of timm.")
    architectures = config.get("architectures") or []
    kind = next((str(one) for one in architectures if str(one).endswith(CLASSIFIERS)), "")
    if isinstance(config.get("model_type"), str) and kind:
        return config
    what = f"is a {architectures[0]}" if architectures else "does not say what network it is"
    raise UserError(
        f"'{name}' {what}, not an image classifier of timm or transformers. Choose a repository whose task is image "
        "classification."
    )


def read_object(path: Path, whose: str, remedy: str = "Choose another network.") -> Config:
    """What a JSON file says. whose: what to call it in the message, which ends with the remedy.

    Raises:
        UserError: it is no JSON object.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{whose} cannot be read ({error}). {remedy}") from None
    return values


def read_file(name: str, file: str) -> Config:
    """What a JSON file of the repository says.

    Raises:
        UserError: it cannot be had (HubError), or is no JSON object.
    """
    return _read(download(name, file), name, file)


def normalisation_of(where: str, mean: Any, std: Any) -> tuple[Numbers, Numbers] | tuple[None, None]:
    """Mean and standard deviation of pixels scaled to 0..1, per channel or one number for all, as a file gives them;
    None where it gives neither. where: the file, for the message.

    Raises:
        UserError: they are of pixels from 0 to 255, impossible, or only one is given.
    """
    if all(values is None or values in ([], ()) for values in (mean, std)):
        return None, None
    found = []
    for what, values, may_be_0 in (("mean", mean, True), ("standard deviation", std, False)):
        each = values if isinstance(values, (list, tuple)) else (values,)
        if not each or not all(isinstance(v, (int, float)) and 0 <= v <= 1 and (v or may_be_0) for v in each):
            rule = "from 0 to 1" if may_be_0 else "above 0, up to 1"
            raise UserError(
                f"The {what} {json.dumps(values)[:60]} in {where} cannot be used: it has to be of pixel values scaled "
                f"to 0 to 1, so {rule}. Correct it there, or choose another network."
            )
        found.append(tuple(map(float, each)))
    return found[0], found[1]


def side_of(size: Any, place: int = 0) -> int | None:
    """A side in pixels, where what a file says is one, or a list with one at this place."""
    if isinstance(size, (list, tuple)):
        size = size[place] if size else None
    return size if isinstance(size, int) and size > 0 else None


def images_of(config: Config, processor: Config, where: str) -> tuple[Numbers | None, Numbers | None, int]:
    """(mean, std, side) of the images that a network of transformers expects, by its config.json and its
    preprocessor_config.json; None for numbers where both are silent. where: the second file, for the message.

    Raises:
        UserError: the numbers cannot be, or the images would have to be prepared in a way that is not known here.
    """
    if processor.get("do_flip_channel_order"):
        raise UserError(
            "Its preprocessor_config.json exchanges red and blue (do_flip_channel_order), which is not done here: its "
            "predictions would be wrong. Choose another network."
        )
    size = processor.get("crop_size") if processor.get("do_center_crop", True) else None
    size = size or processor.get("size") or config.get("image_size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    side = side_of(size) or SIDE
    if processor.get("do_normalize") is False:
        return (0.0,), (1.0,), side
    return *normalisation_of(where, processor.get("image_mean"), processor.get("image_std")), side


def _on_this_machine(name: str) -> Config | None:
    if name not in _known:
        found = _cached(parse_repository(name), CONFIG)
        if found is None:
            return None
        _known[name] = check_config(name, _read(found, name))
    return _known[name]


def _cached(source: Repository, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, file, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def _is_absent(source: Repository, file: str) -> bool:
    """Whether the Hub has said that it has no such file; the cache remembers that for each commit."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    return try_to_load_from_cache(source.repo, file, revision=source.revision) is _CACHED_NO_EXIST


def _read(path: Path, name: str, file: str = CONFIG) -> Config:
    """Raises UserError if it is no JSON object, or a very large one."""
    if path.stat().st_size > LARGEST:
        raise UserError(f"The {file} of '{name}' has more than {LARGEST:,} bytes. Choose another network.")
    return read_object(path, f"The {file} of '{name}'")
