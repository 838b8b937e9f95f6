"""What is proposed for somebody's pictures, by their sizes and counts."""

from __future__ import annotations

import pytest

from iekd.config.presets import PRESETS
from iekd.config.run import make_config
from iekd.config.unused import unused_settings
from iekd.data import describe
from iekd.data.base import DatasetInfo
from iekd.estimate.cautions import few_steps, learned_from
from iekd.estimate.proposal import propose


def info(side: int, images: int, resolution: int = 32) -> DatasetInfo:
    return DatasetInfo("folder:/a", "a", images, 50, 2, 3, resolution, side=side)


@pytest.mark.parametrize(
    ("side", "images", "gpu", "preset", "values"),
    [
        (480, 240, False, "photos", {"resolution": 224, "batch_size": 16, "teacher": "timm:efficientnet_lite0"}),
        (480, 20_000, True, "photos", {"resolution": 224, "batch_size": 64, "teacher": "timm:resnet50"}),
        (480, 20_000, False, "photos", {"resolution": 128, "batch_size": 64}),
        (100, 20_000, False, "photos", {"resolution": 96}),
        (480, 1000, False, "photos", {"resolution": 224, "batch_size": 32}),
        (64, 500, False, "small-data", {"resolution": 64}),
        (32, 100, False, "small-data", {"batch_size": 8}),
        (28, 500, True, "small-data", {}),
        (60, 9000, True, "quick", {"resolution": 48}),
    ],
)
def test_sizes_and_counts_decide(side, images, gpu, preset, values):
    found = propose(info(side, images), gpu)
    assert found.preset == preset
    assert values.items() <= found.values.items()
    assert set(found.values) == set(values) or preset == "photos"
    begins = {found.values.get("teacher_from"), found.values.get("student_from")}
    assert begins == ({"pretrained"} if preset == "photos" else {None})
    assert found.why.endswith(".")
    assert str(side) in found.why
    assert found.command().startswith(f"--preset {preset}")
    config = make_config(preset=found.preset, dataset="folder:/a", **found.values)
    assert found.followed_by(config)
    assert not few_steps(config, learned_from(config, info(side, images))), "nothing is proposed that is warned of"
    assert not found.followed_by(make_config(dataset="folder:/a", epochs=3))


@pytest.mark.parametrize(("side", "images"), [(0, 500), (32, 9000), (40, 2000)])
def test_nothing_is_proposed_where_nothing_is_known_or_to_be_changed(side, images):
    assert propose(info(side, images), True) is None


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_nothing_that_it_leaves_without_effect(name):
    config = make_config(preset=name)
    assert not unused_settings(config)
    if name in ("photos", "small-data"):
        assert config.warm_up
        assert not config.drop_last


@pytest.mark.parametrize(
    ("dataset", "preset"),
    [
        ("torchvision:Flowers102", "photos"),
        ("torchvision:OxfordIIITPet", "photos"),
        ("cifar100", None),
        ("torchvision:SVHN", None),
    ],
)
def test_sets_of_torchvision_get_one_where_they_are_of_photographs(dataset, preset):
    found = propose(describe(dataset), False)
    assert (found and found.preset) == preset
