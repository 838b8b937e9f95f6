"""Model folders as timm and transformers write them: `config.json` beside `model.safetensors`.

Read without torch, timm or transformers. A network of timm is called by its name there, also where transformers has
wrapped it (TimmWrapperForImageClassification). One that only its config.json describes, a network of transformers or
one of timm with arguments of its own, is named by that file's content (hub_configs.py). The weights themselves are read
as anyone's file (weight_files.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iekd.models import hub_configs
from iekd.models.hub_configs import CONFIG, PREPROCESSOR

USUAL_POOLS = ("avg", "token")  # timm always writes how a network pools; another way would fit without a word
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
AGAIN = "Save the model again."


@dataclass(frozen=True)
class FolderConfig:
    """What a folder says of its network.

    Args:
        model: the network's name here, such as "timm:resnet18" or "hf:folder/ViTForImageClassification@SUM".
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
        UserError: it is no image classifier, one with code of its own, or `config.json` cannot be read.
    """
    path = weights.parent / CONFIG
    if weights.name not in WEIGHT_FILES or not path.is_file():
        return None
    values = hub_configs.read_object(path, f"'{path}'", AGAIN)
    if not values.get("architecture") and not values.get("architectures"):
        return None  # somebody's own list of classes, say
    extra = weights.parent / PREPROCESSOR
    processor = hub_configs.read_object(extra, f"'{extra}'", AGAIN) if extra.is_file() else {}
    hub_configs.check_config(str(weights.parent), values)
    if hub_configs.is_timm(values):
        described = found if isinstance(found := values.get("pretrained_cfg"), dict) else values
        mean, std = hub_configs.normalisation_of(f"'{path}'", described.get("mean"), described.get("std"))
        if not mean:
            numbers = processor.get("image_mean"), processor.get("image_std")
            mean, std = hub_configs.normalisation_of(f"'{extra}'", *numbers)
        side = hub_configs.side_of(described.get("input_size"), -1)
    else:
        mean, std, side = hub_configs.images_of(values, processor, f"'{extra}'")
    if hub_configs.is_timm(values) and not _has_own_arguments(values):
        name = f"timm:{str(values['architecture']).partition('.')[0]}"
    else:
        name = hub_configs.of_folder(values, str(weights.parent))
    return FolderConfig(name, mean, std, side)


def _has_own_arguments(config: dict[str, Any]) -> bool:
    """Whether a network of timm was made with other arguments than those that its name, the classes and the images
    decide, or pools in a way that is hardly any network's own."""
    given = dict(config.get("model_args") or {})
    for decided in ("num_classes", "in_chans"):
        given.pop(decided, None)
    if given.get("img_size") is not None and given["img_size"] in _sizes_of(config["architecture"]):
        del given["img_size"]
    return given.pop("global_pool", "avg") not in USUAL_POOLS or bool(given)


def _sizes_of(architecture: str) -> list[Any]:
    """How timm writes the size of images for which it makes a network where none is asked for. (timm is imported.)"""
    import timm

    known = timm.get_pretrained_cfg(architecture.partition(".")[0])
    return [] if known is None else [known.input_size[-1], list(known.input_size[-2:])]
