"""Model folders as timm and transformers write them: `config.json` beside `model.safetensors`.

Read without torch, timm or transformers. Only networks of timm are built from them, also where transformers has wrapped
them (TimmWrapperForImageClassification); the weights themselves are read as anyone's file (weight_files.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iekd.errors import UserError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class FolderConfig:
    """What a folder says of its network.

    Args:
        model: the network's name here, such as "timm:resnet18".
        mean, std: per channel, of pixels scaled to 0..1; None where nothing is said. resolution: of its images.
    """

    model: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resolution: int | None = None


def weights_in(folder: Path) -> Path | None:
    """The file of weights in a folder of timm or transformers; None if it is no such folder."""
    if not (folder / CONFIG).is_file():
        return None
    return next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)


def config_beside(weights: Path) -> FolderConfig | None:
    """What the folder of a file of weights says; None if the file lies in no such folder.

    Raises:
        UserError: it is a network of transformers' own, or `config.json` cannot be read.
    """
    path = weights.parent / CONFIG
    if weights.name not in WEIGHT_FILES or not path.is_file():
        return None
    values = _object(path)
    kinds = [str(kind) for kind in values.get("architectures") or []]
    if "architecture" not in values:
        if not kinds:
            return None  # somebody's own list of classes, say
        raise UserError(
            f"'{weights.parent}' holds a {kinds[0]} of transformers, which is not built here from a folder: only "
            "networks of timm are. Save one of these, or name a network that transformers has on the Hub."
        )
    described = found if isinstance(found := values.get("pretrained_cfg"), dict) else values
    extra = weights.parent / PREPROCESSOR
    processor = _object(extra) if extra.is_file() else {}
    mean = _numbers(described.get("mean")) or _numbers(processor.get("image_mean"))
    std = _numbers(described.get("std")) or _numbers(processor.get("image_std"))
    side = (described.get("input_size") or [0])[-1]
    if not mean or not std:
        mean = std = None
    name = f"timm:{str(values['architecture']).partition('.')[0]}"
    return FolderConfig(name, mean, std, side if isinstance(side, int) and side > 0 else None)


def _object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read ({error}). Save the model again.") from None
    if not isinstance(values, dict):
        raise UserError(f"'{path}' does not describe a model. Save the model again.")
    return values


def _numbers(values: Any) -> tuple[float, ...] | None:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, (int, float)) for v in values):
        return None
    return tuple(map(float, values)) or None
