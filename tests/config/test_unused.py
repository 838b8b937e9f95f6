"""What is said to have no effect has none, and what has one is never said to have none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from iekd import data
from iekd.config.methods import METHODS, MethodSettings
from iekd.config.presets import PRESETS
from iekd.config.run import RunConfig, make_config
from iekd.config.unused import unused_settings
from iekd.engine.events import TrainedModel
from iekd.engine.experiment import Experiment
from iekd.engine.metrics import Metrics
from iekd.models.registry import build

OTHER_VALUES = {
    "milestones": (0.3, 0.6), "inheritance_share": 0.25, "channel_split": "random", "distance": "cosine",
    "ie_stages": "all", "inheritance_weight": 3.0, "exploration_weight": 2.0, "auto_encoder": False,
    "auto_encoder_epochs": 1, "temperature": 2.0, "kd_weight": 0.4, "attention_weight": 30.0, "factor_weight": 30.0,
    "overhaul_weight": 3.0, "mutual_weight": 3.0, "peer": "resnet8x4", "dkd_target_weight": 3.0,
    "dkd_other_weight": 3.0, "dist_weight": 3.0, "weight_schedule": "decay",
}  # fmt: skip
OTHER_VALUES |= {name: 3.0 for name in MethodSettings.model_fields if name not in OTHER_VALUES}
SAME_ANYHOW = {  # used, and yet the value above is what the method does by itself
    ("ie-at", "ie_stages"), ("ie-od", "ie_stages"),
}  # fmt: skip


@pytest.fixture(scope="module")
def losses(picture_folder):
    """`losses(method, **values)`: what one student's first epochs look like."""
    few = data.load(f"folder:{picture_folder}", resolution=8)
    few = replace(few, test=few.test.take(np.arange(3)))  # nobody looks at its accuracy
    torch.manual_seed(0)
    teacher = TrainedModel(build("resnet8", len(few.class_names)), *few.statistics)

    def run(method: str, **values) -> list[dict[str, float]]:
        config = config_of(method, dataset=few.name, **values)
        events = Experiment(config, few, teacher if config.needs_teacher else None).events()
        return [e.values for e in events if isinstance(e, Metrics) and e.stage == "students" and e.kind == "train"]

    return run


def config_of(method: str, **values) -> RunConfig:
    usual = {
        "methods": (method,), "teacher": "resnet8", "student": "resnet8", "epochs": 2, "auto_encoder_epochs": 2,
        "batch_size": 16, "limit_train": 32, "resolution": 8, "validation_fraction": 0.0, "device": "cpu",
        "precision": "fp32", "eager": True,
    }  # fmt: skip
    return make_config(**{**usual, **values})


@pytest.mark.parametrize("method", [*METHODS, "ie-ft+kd", "dml+kd"])
def test_a_setting_is_unused_exactly_where_training_is_the_same_without_it(losses, method):
    usual = losses(method)
    said = {name for name in OTHER_VALUES if name in unused_settings(config_of(method, **{name: OTHER_VALUES[name]}))}
    assert losses(method, **{name: OTHER_VALUES[name] for name in said}) == usual  # together: one training, not twenty
    used = {name for name in OTHER_VALUES if name not in said and (method, name) not in SAME_ANYHOW}
    assert [name for name in used if losses(method, **{name: OTHER_VALUES[name]}) == usual] == []


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_settings_at_their_defaults_are_not_reported(preset, method):
    assert unused_settings(make_config(preset, methods=(method,))) == {}
    assert unused_settings(make_config(methods=(method,))) == {}


@pytest.mark.parametrize(
    ("values", "unused"),
    [
        ({"methods": "baseline,kd", "temperature": 2}, []),
        ({"methods": "baseline", "temperature": 2, "kd_weight": 0.5}, ["kd_weight", "temperature"]),
        ({"milestones": "0.4"}, ["milestones"]),
        # values of presets, which nobody has chosen
        ({"warm_up": 0.1}, ["warm_up"]),
        ({"milestones": "0.625,0.75,0.875"}, ["milestones"]),
        ({"teacher": "none", "methods": "baseline", "teacher_epochs": 20}, ["teacher_epochs"]),
        ({"preset": "paper", "epochs": 5, "schedule": "cosine", "lr": 0.02}, []),
        ({"milestones": "0.4", "schedule": "multi-step"}, []),
        ({"auto_encoder": False, "auto_encoder_epochs": 7}, ["auto_encoder_epochs"]),
        ({"methods": "ft,ie-at", "factor_weight": 3, "attention_weight": 3}, ["attention_weight"]),
        ({"teacher": "none", "methods": "baseline", "teacher_epochs": 7}, ["teacher_epochs"]),
        ({"teacher_from": "run:one", "teacher_epochs": 7}, []),  # it may be of other classes, and is fine-tuned then
        ({"teacher_from": "train", "teacher_backbone": 0.5}, ["teacher_backbone"]),
        ({"teacher_epochs": 7}, []),
        ({"test_fraction": 0.4}, ["test_fraction"]),
    ],
    ids=str,
)
def test_settings_that_depend_on_others(values, unused):
    found = unused_settings(make_config(**values))
    assert sorted(found) == unused
    assert all(found.values())
