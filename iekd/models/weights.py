"""Weights from files of other people: read without running anything in them, then fitted to one of our networks.

The content decides how a file is read, not its name: safetensors, or what `torch.save` wrote (either format), which is
read with `weights_only=True`. Leaves out: how other people name their weights (foreign.py).
"""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iekd.errors import UserError
from iekd.models.catalog import check_model, own_models
from iekd.models.foreign import rename, shortcut_variant
from iekd.models.registry import build

Weights = dict[str, Tensor]
# where the weights are inside a checkpoint, most telling first
NESTS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "params_ema",
    "ema", "student", "teacher",
)  # fmt: skip
WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.")  # of DataParallel, compile, Lightning
COUNTER = "num_batches_tracked"  # batch norm's, which old checkpoints lack and evaluation ignores
SAVE = "Save the weights alone, with torch.save(model.state_dict(), PATH) or as .safetensors"


def read_weights(path: Path) -> Weights:
    """Name -> tensor on the CPU, unwrapped from whatever the checkpoint holds beside it, without common prefixes.

    Raises:
        UserError: no such file, not a file of weights, damaged, holding code, or without tensors. No code in it runs.
    """
    stored = _load(path)
    if not isinstance(stored, dict):
        raise UserError(f"'{path}' holds a {type(stored).__name__} without names, not a model's weights. {SAVE}.")
    state = _unwrap(stored, path)
    if state is None:
        held = ", ".join(f"'{k}'" for k in list(stored)[:4])
        raise UserError(f"There are no weights in '{path}'{f', only {held}' if held else ''}. {SAVE}.")
    return _without_wrappers(state)


def load_classifier_file(path: Path, name: str, num_classes: int, channels: int) -> tuple[nn.Module, str]:
    """A network of ours in evaluation mode with the weights of a file, and its name.

    Args:
        name: the architecture, such as "resnet56"; the answer may be its variant with other shortcuts.
        num_classes, channels: of the data set that it is to be used with.
    Raises:
        UserError: the file cannot be read, or its weights do not fit; says which and what to check.
    """
    return fit_weights(read_weights(path), name, num_classes, channels, path)


def fit_weights(state: Weights, name: str, num_classes: int, channels: int, path: Path) -> tuple[nn.Module, str]:
    """`load_classifier_file` with weights that are read already; `path` is for messages."""
    given, name = _as_ours(state, check_model(name))
    model = build(name, num_classes, channels)
    own = model.state_dict()
    missing, unexpected = _not_in(own, given), _not_in(given, own)
    if missing or unexpected:
        listed = [f"{_some(missing)} missing"] * bool(missing) + [f"{_some(unexpected)} not known"] * bool(unexpected)
        raise UserError(f"'{path}' does not fit {name}: {'; '.join(listed)}. {_hint(state, name)}")
    _check_channels(given, own, path)
    _check_classes(given, own, path)
    wrong = [k for k in own if k in given and given[k].shape != own[k].shape]
    if wrong:
        sizes = f"{wrong[0]} is {_size(given[wrong[0]])} and should be {_size(own[wrong[0]])}"
        raise UserError(f"'{path}' does not fit {name}: {sizes}. {_hint(state, name)}")
    broken = [k for k in own if k in given and not torch.isfinite(given[k]).all()]
    if broken:
        raise UserError(f"'{path}' is damaged: {broken[0]} holds values that are no numbers. Get the file again.")
    model.load_state_dict({k: given.get(k, v) for k, v in own.items()})
    return model.eval(), name


def _as_ours(state: Weights, name: str) -> tuple[Weights, str]:
    renamed = rename(state, name)
    return renamed, shortcut_variant(renamed, name)


def _load(path: Path) -> Any:
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
        return _load_safetensors(path)
    if head[:2] == b"PK" or head[:1] == b"\x80":  # torch.save since 1.6, and before
        return _load_torch(path)
    if head[257:262] == b"ustar" or head[:2] in (b"\x1f\x8b", b"BZ", b"7z", b"\xfd7"):
        raise UserError(f"'{path}' is an archive of files. Unpack it and give the file of weights inside.")
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"version https://git-lfs")):
        raise UserError(f"'{path}' is not the file itself but a page or a pointer to it. Download the file again.")
    raise UserError(f"'{path}' is not a file of weights. Give one that torch.save or safetensors wrote.")


def _load_safetensors(path: Path) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError):
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
    """What public checkpoints hold beside weights, and weights_only refuses: NumPy numbers (the best accuracy) and the
    training's options.

    Building a number copies bytes, and NumPy refuses to build objects this way; a Namespace only keeps attributes.
    """
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(code)) for code in "?bhilqBHILQefdg"]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # before NumPy 2, and since
    return [*((scalar, f"{m}.scalar") for m in modules), np.dtype, *dict.fromkeys(kinds), argparse.Namespace]


def _holds_a_model(path: Path) -> bool:
    """A whole pickled network names the classes of its layers (torch stores pickles uncompressed)."""
    with open(path, "rb") as file:
        return b"torch.nn.modules" in file.read()


def _damaged(path: Path) -> UserError:
    return UserError(f"'{path}' is damaged or not complete, so it cannot be read. Get the file again.")


def _unwrap(stored: dict[Any, Any], path: Path, depth: int = 4) -> Weights | None:
    """The weights in a checkpoint: under a usual name, side by side with whatever else, or the only ones there are."""
    if depth == 0:
        return None
    named = {}
    for key in NESTS:
        if isinstance(inner := stored.get(key), dict) and (state := _unwrap(inner, path, depth - 1)):
            named[key] = state
    if named.keys() == {"student", "teacher"}:
        raise UserError(f"'{path}' holds two networks, 'student' and 'teacher'. Save the one you mean to a file alone.")
    if named:
        return next(iter(named.values()))
    tensors = {k: v.detach() for k, v in stored.items() if isinstance(k, str) and _is_plain(v)}
    if any(v.ndim > 0 for v in tensors.values()):  # an accuracy may be a tensor too
        return tensors
    others = [v for v in stored.values() if isinstance(v, dict)]
    states = [s for s in others if any(isinstance(k, str) and _is_plain(v) for k, v in s.items())]
    return _unwrap(states[0], path, depth - 1) if len(states) == 1 else None


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _without_wrappers(state: Weights) -> Weights:
    """Without the prefixes that all names share because the network was wrapped."""
    while wrapper := next((w for w in WRAPPERS if all(k.startswith(w) for k in state)), None):
        state = {k.removeprefix(wrapper): v for k, v in state.items()}
    return state


def _not_in(these: Weights, others: Weights) -> list[str]:
    return [k for k in these if k not in others and not k.endswith(COUNTER)]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _check_channels(given: Weights, own: Weights, path: Path) -> None:
    """The first convolution sees the pictures."""
    first = next(k for k, v in own.items() if v.ndim == 4)
    found, needed = given[first].shape, own[first].shape
    if len(found) == 4 and found[0] == needed[0] and found[1] != needed[1]:
        kinds = {1: "grey", 3: "colour"}
        was = kinds.get(found[1], f"{found[1]}-channel")
        remedy = "save the pictures in colour (RGB)" if found[1] == 3 else "another file"
        raise UserError(
            f"'{path}' was trained on {was} pictures ({found[1]} channels), but those of the data set are "
            f"{kinds.get(needed[1])} ({needed[1]}). Choose a data set of {was} pictures, or {remedy}."
        )


def _check_classes(given: Weights, own: Weights, path: Path) -> None:
    """The last matrix has a row for each class."""
    last = [k for k, v in own.items() if v.ndim == 2][-1]
    found, needed = given[last].shape, own[last].shape
    if found[1:] == needed[1:] and found[0] != needed[0]:
        raise UserError(
            f"'{path}' knows {found[0]} classes, but the data set has {needed[0]}. "
            "Choose the data set that it was trained on, or another file."
        )


def _hint(state: Weights, name: str) -> str:
    """What to check; names the network that the weights do fit, if it is one of ours."""
    for other in own_models():
        given, found = _as_ours(state, other)
        with torch.device("meta"):  # shapes without weights
            own = build(found, 2, 3).state_dict()
        if found == name or _not_in(own, given) or _not_in(given, own):
            continue
        if sum(given[k].shape != own[k].shape for k in own if k in given) <= 3:  # those of channels and classes
            return f"Its weights are those of {found}; is the model right?"
    return "Is the model the one that the file was made with?"
