"""What suits somebody's own pictures: a preset, a resolution, a batch size and a pair, by their sizes and counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from iekd.config.presets import PRESETS
from iekd.config.run import RunConfig
from iekd.data.base import DatasetInfo
from iekd.estimate.cautions import largest_batch, learned_from
from iekd.models.pretrained import hub_is_away, is_here
from iekd.models.source import PRETRAINED
from iekd.plural import counted

PHOTO = 96  # pixels of the shorter side from which on pictures are photographs
USUAL = 224  # pixels that most pretrained networks were trained with
STRIDE = 32  # of those networks: a side is a multiple of it
SMALL_SIDES = (32, 48, 64)  # that the small networks of the literature are used with
FEW = 2000  # training images
MANY_FOR_CPU, SIDE_FOR_CPU = 5000, 128
BEGINS = ("teacher_from", "student_from")
MATTERS = ("optimizer", "augmentation", "auto_augment")  # of a preset; epochs and the like are a matter of time
PAIRS = {  # teacher and student for photographs, by whether there is a GPU
    True: ("timm:resnet50", "timm:mobilenetv3_small_100"),
    False: ("timm:efficientnet_lite0", "timm:mobilenetv3_small_100"),
}

WEIGHTS = {  # of those networks: timm's usual repository on the Hub, and megabytes
    "timm:resnet50": ("timm/resnet50.a1_in1k", 102),
    "timm:efficientnet_lite0": ("timm/efficientnet_lite0.ra_in1k", 19),
    "timm:mobilenetv3_small_100": ("timm/mobilenetv3_small_100.lamb_in1k", 10),
}


@dataclass(frozen=True)
class Proposal:
    """preset: its name. values: settings beside those of the preset. why: one sentence, and one on the weights."""

    preset: str
    values: dict[str, Any]
    why: str

    def settings(self) -> dict[str, Any]:
        """All of it, the preset's values too."""
        return {**PRESETS[self.preset].values, **self.values}

    def followed_by(self, config: RunConfig) -> bool:
        """Whether a configuration has what matters of it: its own values, and how the preset trains."""
        matters = self.settings().keys() & {*self.values, *MATTERS} - {*BEGINS}  # weights may come from elsewhere
        return all(getattr(config, name) == self.settings()[name] for name in matters)

    def command(self) -> str:
        """The options of `iekd train`."""
        options = (f"--{name.replace('_', '-')} {value}" for name, value in self.values.items())
        return " ".join([f"--preset {self.preset}", *options])


def propose(info: DatasetInfo, gpu: bool, config: RunConfig | None = None) -> Proposal | None:
    """What to train on these pictures with; None where nothing is known of their files, or the usual settings suit
    them. Pretrained networks are not proposed where their weights are known to be out of reach.

    config: what is to be trained so far; if it follows the proposal for photographs, its weights come from elsewhere.
    """
    if not info.side:
        return None
    if info.side < PHOTO:
        return _for_small_networks(info)
    photos, missing = _for_photographs(info, gpu)
    if not missing or not hub_is_away() or (config is not None and photos.followed_by(config)):
        return photos
    without = (
        "Networks that have learned from other photographs would do better, but their weights are neither on this "
        "machine nor can they be downloaded now."
    )
    small = _for_small_networks(info)
    return Proposal("quick", {}, without) if small is None else replace(small, why=f"{small.why} {without}")


def _for_photographs(info: DatasetInfo, gpu: bool) -> tuple[Proposal, list[str]]:
    """And the repositories of its weights that are not on this machine."""
    missing = [repo for network in PAIRS[gpu] if not is_here(repo := WEIGHTS[network][0])]
    side = min(USUAL, info.side // STRIDE * STRIDE)
    slow = not gpu and info.train_images > MANY_FOR_CPU and side > SIDE_FOR_CPU
    side = SIDE_FOR_CPU if slow else side
    teacher, student = PAIRS[gpu]
    values = {"resolution": side, "batch_size": batch_size("photos", 32 if info.train_images < FEW else 64, info),
              "teacher": teacher, "student": student, **dict.fromkeys(BEGINS, PRETRAINED)}  # fmt: skip
    less = ", fewer than they have because there is no GPU here" if slow else ""
    why = (
        f"The pictures are photographs, {_about(info)}: networks that have learned from other photographs tell them "
        f"apart at {side} pixels{less}, and {_images(info)} fill batches of {values['batch_size']}."
    )
    if missing:
        size = sum(megabytes for repo, megabytes in WEIGHTS.values() if repo in missing)
        why += f" Their weights, {size} MB, are downloaded when the run starts."
    return Proposal("photos", values, why), missing


def _for_small_networks(info: DatasetInfo) -> Proposal | None:
    """For networks that begin with random weights; None where the usual settings suit them."""
    side = max(known for known in SMALL_SIDES if known <= max(info.side, SMALL_SIDES[0]))
    wanted = {} if side == info.resolution else {"resolution": side}
    if info.train_images < FEW:
        usual = PRESETS["small-data"].values["batch_size"]
        size = batch_size("small-data", usual, info)
        wanted |= {} if size == usual else {"batch_size": size}
        why = (
            f"There are only {_images(info)}, {_about(info)}: smaller batches, more epochs and distorted images make "
            "more of them."
        )
        return Proposal("small-data", wanted, why)
    if not wanted:
        return None
    why = f"The pictures are {_about(info)}: at {info.resolution} pixels detail would be lost."
    return Proposal("quick", wanted, why)


def _images(info: DatasetInfo) -> str:
    return counted(info.train_images, "training image")


def _about(info: DatasetInfo) -> str:
    return f"about {info.side} pixels on their shorter side"


def batch_size(preset: str, wanted: int, info: DatasetInfo) -> int:
    """The wanted one, or less where that makes too few steps an epoch."""
    learned = learned_from(RunConfig(**{**PRESETS[preset].values, "dataset": info.name}), info)
    return min(wanted, largest_batch(learned))
