"""What is proposed for somebody's pictures, by their sizes and counts."""

from __future__ import annotations

import httpx
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from iekd.config.presets import PRESETS
from iekd.config.run import make_config
from iekd.config.unused import unused_settings
from iekd.data import describe
from iekd.data.base import DatasetInfo
from iekd.estimate import proposal
from iekd.estimate.cautions import few_steps, learned_from
from iekd.estimate.proposal import propose
from iekd.models import libraries, pretrained


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    """A Hub that can be reached, as far as is known, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(pretrained, "_unanswered", [])


OF_PHOTOS = {
    "dataset": "folder:/a", "resolution": 224, "batch_size": 16, "teacher": "timm:efficientnet_lite0",
    "student": "timm:mobilenetv3_small_100",
}  # fmt: skip


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


def test_weights_that_have_to_be_downloaded_are_said_with_their_size(monkeypatch):
    assert "Their weights, 29 MB, are downloaded" in propose(info(480, 240), False).why
    monkeypatch.setattr(proposal, "is_here", lambda repo: "lite0" in repo)
    assert "Their weights, 10 MB, are downloaded" in propose(info(480, 240), False).why
    monkeypatch.setattr(proposal, "is_here", lambda repo: True)
    assert "downloaded" not in propose(info(480, 240), False).why


@pytest.mark.parametrize(("images", "preset"), [(240, "small-data"), (9000, "quick")])
def test_offline_nothing_is_proposed_that_needs_a_download(images, preset, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = propose(info(480, images), False)
    assert (found.preset, found.values["resolution"]) == (preset, 64)
    assert "teacher_from" not in found.values
    assert found.why.endswith("their weights are neither on this machine nor can they be downloaded now.")
    same = propose(info(480, images, 64), False)
    assert same.why.endswith("nor can they be downloaded now."), "also if it changes nothing"
    own = make_config(preset="photos", teacher_from="/a/teacher.pth", student_from="/a/student.pth", **OF_PHOTOS)
    found = propose(info(480, 240), False, own)
    assert found.followed_by(own), "its weights are not the Hub's"
    monkeypatch.setattr(pretrained, "_in_cache", lambda repo: "there")
    assert propose(info(480, images), False).preset == "photos"


def test_a_hub_that_did_not_answer_counts_as_out_of_reach_for_a_while(monkeypatch):
    def fail(repo):
        raise ConnectionError("no route")

    monkeypatch.setattr(pretrained, "_ask_hub", fail)
    assert pretrained._why_unreachable("ann/pets", "", -1) == "no route"
    assert propose(info(480, 240), False).preset == "small-data"
    with monkeypatch.context() as patch:
        patch.setattr(pretrained, "AWAY", -1.0)
        assert propose(info(480, 240), False).preset == "photos"

    def refuse(repo):
        raise RepositoryNotFoundError("404", response=httpx.Response(404, request=httpx.Request("HEAD", "http://hub")))

    monkeypatch.setattr(pretrained, "_ask_hub", refuse)
    assert pretrained._why_unreachable("ann/pets", "", -2)
    assert propose(info(480, 240), False).preset == "photos", "it has answered"


def test_the_weights_are_timms():
    for network, (repo, megabytes) in proposal.WEIGHTS.items():
        assert libraries.pretrained(network).repo == repo
        assert libraries.parameters(network) * 4e-6 <= megabytes


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
