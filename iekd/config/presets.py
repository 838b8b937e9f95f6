"""Presets: settings that belong together, such as those of a paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Values that belong together; whatever else is given wins over them. title: on the page; text: what it is for.

    one_seed: whether the page's card trains one seed, because a run takes long.
    """

    title: str
    text: str
    values: dict[str, Any]
    one_seed: bool = False


PRESETS = {
    "quick": Preset("Quick", "a demonstration in minutes: ten epochs of one rising and falling cycle", {}),
    "paper": Preset(
        "Paper",
        "Huang et al. 2021: 160 epochs, learning rate divided by 10 at 80 and 120, batch 128, no validation split",
        {
            "epochs": 160, "teacher_epochs": 160, "auto_encoder_epochs": 30, "batch_size": 128, "lr": 0.1,
            "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "schedule": "multi-step",
            "milestones": (0.5, 0.75), "validation_fraction": 0.0,
        },
    ),
    "crd": Preset(
        "CRD benchmark",
        "the CIFAR-100 benchmark of Tian et al. 2020: 240 epochs, learning rate 0.05, divided at 150, 180 and 210, "
        "batch 64, no validation split",
        {
            "epochs": 240, "teacher_epochs": 240, "auto_encoder_epochs": 30, "batch_size": 64, "lr": 0.05,
            "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "schedule": "multi-step",
            "milestones": (0.625, 0.75, 0.875), "validation_fraction": 0.0,
        },
    ),
    "photos": Preset(
        "Photos",
        "photographs at 224 pixels, best with pretrained weights, which you choose with teacher and student: AdamW, "
        "a cosine with warm-up, crops from the original pictures, 20 epochs",
        {
            "resolution": 224, "epochs": 20, "teacher_epochs": 20, "auto_encoder_epochs": 10, "batch_size": 32,
            "optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.05, "schedule": "cosine", "warm_up": 0.1,
            "clip_norm": 1.0, "label_smoothing": 0.1, "drop_last": False, "augmentation": "resized-crop",
        },
        one_seed=True,
    ),
    "small-data": Preset(
        "Small data",
        "a few hundred images: 60 epochs of small batches, a cosine with warm-up, distorted images",
        {
            "epochs": 60, "teacher_epochs": 60, "auto_encoder_epochs": 20, "batch_size": 32, "lr": 0.05,
            "schedule": "cosine", "warm_up": 0.05, "label_smoothing": 0.1, "drop_last": False,
            "auto_augment": "trivialaugment",
        },
    ),
}  # fmt: skip
