"""Presets: settings that belong together, such as those of a paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Values that belong together; whatever else is given wins over them. title: on the page; text: what it is for."""

    title: str
    text: str
    values: dict[str, Any]


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
}  # fmt: skip
