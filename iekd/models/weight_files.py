"""Files of weights of other people, read without running anything in them.

The content decides how a file is read, not its name: safetensors, a zip that this program offers for download, or what
`torch.save` wrote (either format), which is read with `weights_only=True`. Leaves out: which network the weights are of
(weights.py).
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import re
import types
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iekd.errors import UserError
from iekd.models.artifact import CARD, WEIGHTS, ModelCard
from iekd.models.class_names import KEYS, class_names_beside, find_class_names
from iekd.models.model_folder import FolderConfig, config_beside
from iekd.models.weight_forms import other_file, unusable_form

StateDict = dict[str, Tensor]
SELECT = "::"  # FILE::NAME means one of several networks in a file
# these hold tensors too, but none of a network
NO_NETWORK = re.compile(r"optim|sched|scaler|rng|momentum|(^|_)args$|hyper_param|^callbacks$|^loops$", re.I)
DEEPEST = 5  # dicts within dicts that are looked into
SAVE = "Save the weights alone, with torch.save(model.state_dict(), PATH) or as .safetensors"


@dataclass(frozen=True)
class Candidate:
    """One dict of tensors in a file: where it is ("" for the file itself), and name -> tensor on the CPU."""

    where: str
    state: StateDict


@dataclass(frozen=True)
class WeightFile:
    """What was found in a file.

    candidates: every dict of tensors that may be a network's; one at least.
    card: of a model that this program has saved; None for other people's files.
    class_names: in the order of the outputs, where the file or one beside it lists them; and where that was.
    config: what the folder says of the network, if timm or transformers has written it.
    """

    path: Path
    candidates: tuple[Candidate, ...]
    card: ModelCard | None = None
    class_names: tuple[str, ...] | None = None
    named_in: str = ""
    config: FolderConfig | None = None


def read_weights(path: Path, alone: bool = False) -> WeightFile:
    """Every dict of weights that a file holds. No code in it runs.

    Args:
        path: the file, or FILE::NAME for the part of that name in a file that holds several networks.
        alone: leave out what other files beside it say.

    Raises:
        UserError: no such file, not a file of weights, damaged, holding code, or without tensors.
    """
    path, selected = split_selection(path)
    stored, card = _load(path)
    if isinstance(stored, (list, tuple)) and any(isinstance(value, dict) for value in stored):
        stored = _numbered(stored)
    if not isinstance(stored, dict):
        raise UserError(f"'{path}' holds a {type(stored).__name__} without names, not a model's weights. {SAVE}.")
    candidates = tuple(_candidates(stored, path))
    if not candidates:
        held = ", ".join(f"'{k}'" for k in list(stored)[:4])
        raise UserError(f"There are no weights in '{path}'{f', only {held}' if held else ''}. {SAVE}.")
    if selected:
        chosen = tuple(_selected(candidates, selected))
        if not chosen:
            there = ", ".join(f"'{c.where}'" for c in candidates if c.where)
            holds = f"It holds {there}. " if there else ""
            raise UserError(f"There is no '{selected}' in '{path}'. {holds}Check the name.")
        candidates = chosen
    names, named_in = find_class_names({k: stored[k] for k in stored if k in KEYS}), "the file"
    if names is None and card is None and not alone and (beside := class_names_beside(path)):
        names, named_in = beside
    config = None if card or alone else config_beside(path)
    return WeightFile(path, candidates, card, card.class_names if card else names, named_in, config)


def split_selection(path: Path) -> tuple[Path, str]:
    """FILE::NAME -> (FILE, NAME); a file that is there under the whole name is meant as it is."""
    name, found, selected = str(path).rpartition(SELECT)
    return (Path(name), selected.strip()) if found and not path.exists() else (path, "")


def _selected(candidates: tuple[Candidate, ...], name: str) -> Iterator[Candidate]:
    """The tensors whose names, with those of the dicts around them, begin with `name`."""
    prefix = name.rstrip(".") + "."
    for candidate in candidates:
        full = {f"{candidate.where}.{k}" if candidate.where else k: v for k, v in candidate.state.items()}
        if inner := {k.removeprefix(prefix): v for k, v in full.items() if k.startswith(prefix)}:
            yield Candidate(name, inner)


def _candidates(
    stored: dict[Any, Any], path: Path, where: str = "", depth: int = DEEPEST
) -> Iterator[Candidate]:  # fmt: skip
    """Every dict with tensors of at least one dimension, outermost first; those of optimisers and the like apart.

    Raises:
        UserError: among the tensors are quantised or sparse ones.
    """
    if any(str(k).endswith("_packed_params") for k in stored):
        raise UserError(f"'{path}' cannot be used. {unusable_form(map(str, stored))}")
    found = {k: _tensor(v, k, path) for k, v in stored.items() if isinstance(k, str)}
    tensors = {k: tensor for k, tensor in found.items() if tensor is not None}
    if any(v.ndim > 0 for v in tensors.values()):  # an accuracy may be a tensor too
        yield Candidate(where, tensors)
    for key, value in stored.items():
        inner = _numbered(value) if isinstance(value, (list, tuple)) else value  # networks of an ensemble, say
        if depth > 1 and isinstance(key, str) and isinstance(inner, dict) and not NO_NETWORK.search(key):
            yield from _candidates(inner, path, f"{where}.{key}" if where else key, depth - 1)


def _numbered(values: Sequence[Any]) -> dict[str, Any]:
    """The dicts in a list, by their places in it."""
    return {str(i): value for i, value in enumerate(values) if isinstance(value, dict)}


def joined(candidates: Sequence[Candidate]) -> Candidate:
    """All dicts of a file as one: {"backbone": {"conv1.weight": ...}} as {"backbone.conv1.weight": ...}."""
    state = {}
    for candidate in candidates:
        words = {key.partition(".")[0] for key in candidate.state}
        wrapper = next((f"{word}." for word in ("module", "_orig_mod") if words == {word}), "")
        start = f"{candidate.where}." if candidate.where else ""
        state.update({start + key.removeprefix(wrapper): value for key, value in candidate.state.items()})
    return Candidate("", state)


def _tensor(value: Any, key: str, path: Path) -> Tensor | None:
    """A tensor, or a NumPy array of numbers as one; None for anything else."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    if not isinstance(value, Tensor) or value.device.type != "cpu":
        return None
    if value.is_quantized or value.layout != torch.strided:
        kind = "quantised" if value.is_quantized else "sparse"
        raise UserError(f"'{path}' holds {kind} weights ({key}), which cannot be used. Save them as float tensors.")
    return value.detach()


def _load(path: Path) -> tuple[Any, ModelCard | None]:
    """What the file holds: safetensors as a dict, else whatever torch.load gives when it may only build data."""
    if path.is_dir():
        raise UserError(f"'{path}' is a folder. Give the file of weights itself.")
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise UserError(f"There is no file '{path}'. Check the path.") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}). Check the path and its permissions.") from None
    if not head:
        raise UserError(f"'{path}' is empty. Get the file again.")
    if head[8:9] == b"{" and head[4:8] == bytes(4):  # the length of a header, then the header
        return _load_safetensors(path), None
    if head[:2] == b"PK":
        names = _checked_members(path)
        if folders := _models_in(names):
            return _load_downloaded(path, folders)
        if all(name.endswith(".npy") for name in names):
            raise UserError(f"'{path}' is an archive of NumPy arrays. {SAVE}.")
        if not any(name.endswith(("/data.pkl", "/constants.pkl")) for name in names):  # by torch.save and torch.jit
            raise _is_archive(path)
    if head[:2] == b"PK" or head[:1] == b"\x80":  # torch.save since 1.6, and before
        return _load_torch(path), None
    if head[257:262] == b"ustar" or head[:2] in (b"\x1f\x8b", b"BZ", b"7z", b"\xfd7"):
        raise _is_archive(path)
    if said := other_file(head):
        raise UserError(f"'{path}' {said}")
    raise UserError(f"'{path}' is not a file of weights. Give one that torch.save or safetensors wrote.")


def _load_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError):
        raise _damaged(path) from None


def _checked_members(path: Path) -> set[str]:
    """The names in a zip. torch.load does not compare checksums, and would read damaged weights as if they were right.

    Raises:
        UserError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            stored = [member for member in members if member.compress_type == zipfile.ZIP_STORED]
            written = any(member.CRC for member in stored)  # torch can be told to leave them out
            if written and sum(member.file_size for member in stored) <= path.stat().st_size:  # else they overlap
                for member in stored:
                    with archive.open(member) as content:
                        while content.read(2**20):
                            pass
            return {member.filename for member in members}
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError):
        raise _damaged(path) from None


def _models_in(names: set[str]) -> list[str]:
    """The folders of a zip that hold a model as this program saves it; none in what torch has written."""
    folders = [name.removesuffix(WEIGHTS) for name in names if name == WEIGHTS or name.endswith(f"/{WEIGHTS}")]
    return sorted(folder for folder in folders if folder + CARD in names)


def _load_downloaded(path: Path, folders: list[str]) -> tuple[StateDict, ModelCard]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if len(folders) > 1:
        named = ", ".join(folder.rstrip("/") for folder in folders)
        raise UserError(f"'{path}' holds several models ({named}). Unpack it and give the folder of one.")
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = [archive.getinfo(folders[0] + name) for name in (WEIGHTS, CARD)]
            if any(about.file_size > 2 * max(about.compress_size, 2**20) for about in sizes):  # weights hardly shrink
                raise UserError(f"'{path}' unpacks to far more than it holds; it is refused. Get the file again.")
            card = ModelCard.from_json(json.loads(archive.read(folders[0] + CARD)), path)
            return load(archive.read(folders[0] + WEIGHTS)), card
    except UserError:
        raise
    except (zipfile.BadZipFile, SafetensorError, OSError, ValueError, RuntimeError, NotImplementedError):
        raise _damaged(path) from None


def _load_torch(path: Path) -> Any:
    try:
        # an open file, because torch.load takes names that end in .safetensors at their word
        with open(path, "rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way: KeyError, IndexError, EOFError, ...
        reason = str(error)
    if "TorchScript" in reason:
        raise UserError(f"'{path}' is a TorchScript program, not just weights, and is refused. {SAVE}.")
    named = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", reason)
    if named or re.search(r"unrecognized function|Can only (?:create|build)", reason):
        what = "a whole pickled model" if _holds_a_model(path) else "code"
        example = f" ({named[1]})" if named else ""
        raise UserError(
            f"'{path}' holds {what}{example}, not just weights; it is refused, and nothing of it ran. {SAVE}."
        )
    if "Unsupported operand" in reason:
        raise UserError(
            f"'{path}' is a pickle of a kind that may hold code; it is refused, and nothing of it ran. {SAVE}."
        )
    raise _damaged(path)


def _harmless() -> list[Any]:
    """What public checkpoints hold beside weights, and weights_only refuses: NumPy numbers and arrays (the best
    accuracy, a history, the state of random numbers), the training's options, dates and paths.

    Building a number or an array copies bytes, or objects that had to be harmless too; a namespace only keeps
    attributes; a pure path is text, and nothing is opened.
    """
    scalar, array = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
    kinds = [type(np.dtype(code)) for code in "?bhilqBHILQefdg"]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # before NumPy 2, and since
    paths = [
        (pure, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")  # Python 3.13 writes the second
        for pure, names in (
            (pathlib.PurePosixPath, ("PosixPath", "PurePosixPath")),
            (pathlib.PureWindowsPath, ("WindowsPath", "PureWindowsPath")),
        )
        for name in names
    ]
    numbers = [(made, f"{m}.{name}") for m in modules for made, name in ((scalar, "scalar"), (array, "_reconstruct"))]
    dates = [datetime.datetime, datetime.date, datetime.timedelta]
    kept = [argparse.Namespace, types.SimpleNamespace, frozenset]
    return [*numbers, np.ndarray, np.dtype, *dict.fromkeys(kinds), *paths, *dates, *kept]


def _holds_a_model(path: Path) -> bool:
    """A whole pickled network names the classes of its layers (torch stores pickles uncompressed)."""
    with open(path, "rb") as file:
        return b"torch.nn.modules" in file.read()


def _is_archive(path: Path) -> UserError:
    return UserError(f"'{path}' is an archive of files. Unpack it and give the file of weights inside.")


def _damaged(path: Path) -> UserError:
    return UserError(f"'{path}' is damaged or not complete, so it cannot be read. Get the file again.")
