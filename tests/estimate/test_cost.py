from __future__ import annotations

import pytest
import torch
from torch import nn

from iekd.config.run import STAGES, make_config
from iekd.estimate.cost import START_UP, make_plan, measured_seconds, seconds
from iekd.estimate.speeds import Speeds
from iekd.models.catalog import models
from iekd.models.factors import AutoEncoder


def plan(at_hand=True, train_images=1000, test_images=500, resolution=32, channels=3, classes=10, **values):
    config = make_config(**{"validation_fraction": 0, **values})
    return make_plan(config, train_images, test_images, channels, classes, resolution, at_hand)


def coder_macs(c: int, h: int) -> int:
    """Multiply-accumulates of the real encoder and decoder on one (c,h,h) feature."""
    total = 0

    def count(module, _, output):
        nonlocal total
        total += module.weight[0].numel() * output.numel()

    coder = AutoEncoder(c, c // 2).eval()
    for module in coder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        coder(torch.zeros(1, c, h, h))
    return total


def test_labels_alone_cost_three_forwards_an_image_and_one_a_test_image():
    done = plan(methods=("baseline",), teacher="none", student="resnet8", epochs=4)
    assert done.macs["students"] == 4 * models()["resnet8"].macs * (3 * 1000 + 500)
    assert done.macs["teacher"] == done.macs["auto-encoder"] == done.macs["evaluation"] == 0


def test_the_teacher_answers_each_test_image_once():
    assert plan(methods=("kd", "ft"), epochs=4).macs["evaluation"] == 500 * models()["resnet20"].macs


def test_the_auto_encoder_costs_what_the_real_one_counts():
    done = plan(methods=("ft",), teacher="resnet20", auto_encoder_epochs=2)
    assert done.macs["auto-encoder"] == 2 * 1000 * (models()["resnet20"].macs + 3 * coder_macs(64, 8))


def test_the_teacher_is_paid_once_however_many_learn():
    def teaching(seeds):
        many = plan(methods=("baseline", "kd"), seeds=seeds)
        alone = plan(methods=("baseline",), seeds=seeds)
        return many.macs["students"] - 2 * alone.macs["students"]

    assert teaching((0,)) == teaching((0, 1, 2)) == 10 * 1000 * models()["resnet20"].macs


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"epochs": 5}, {"epochs": 6}),
        ({"seeds": (0,)}, {"seeds": (0, 1)}),
        ({"methods": ("baseline",)}, {"methods": ("baseline", "ie-ft")}),
        ({"train_images": 1000}, {"train_images": 1100}),
        ({"test_images": 100}, {"test_images": 200}),
        ({"limit_train": 100}, {"limit_train": 200}),
        ({"student": "resnet8"}, {"student": "resnet14"}),
        ({"teacher": "resnet20"}, {"teacher": "resnet56"}),
        ({"auto_encoder_epochs": 5}, {"auto_encoder_epochs": 6}),
        ({"resolution": 28}, {"resolution": 32}),
        ({"at_hand": True}, {"at_hand": False}),
        ({"at_hand": False, "teacher_epochs": 5}, {"at_hand": False, "teacher_epochs": 6}),
    ],
    ids=str,
)
def test_more_of_anything_costs_more(less, more):
    assert plan(**less).total < plan(**more).total


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"batch_size": 64}, {"batch_size": 128}),
        ({"seeds": (0,)}, {"seeds": (0, 1)}),
        ({"train_images": 10_000}, {"train_images": 50_000}),
        ({"student": "resnet8"}, {"student": "resnet56"}),
        ({"channels": 1}, {"channels": 3}),
    ],
    ids=str,
)
def test_more_of_anything_needs_more_memory(less, more):
    assert plan(**less).memory < plan(**more).memory


@pytest.mark.parametrize("at_hand", [True, False])
def test_a_batch_holds_no_more_images_than_are_learned_from(at_hand):
    """A run on a handful of images is not refused for the memory of a batch that it cannot fill."""
    few = {"train_images": 60, "validation_fraction": 0.1, "at_hand": at_hand}
    assert plan(batch_size=4096, **few).memory == plan(batch_size=54, **few).memory > plan(batch_size=32, **few).memory


def test_a_teacher_at_hand_costs_nothing_to_train():
    assert plan(at_hand=True).macs["teacher"] == 0 < plan(at_hand=False).macs["teacher"]


def test_a_limit_above_the_data_changes_nothing():
    assert plan(limit_train=5000) == plan()


def test_stages_are_those_of_a_run():
    assert tuple(plan().macs) == STAGES


def test_time_follows_a_measured_speed():
    done = plan()
    fast, slow = seconds(done, "cpu", 2e9), seconds(done, "cpu", 1e9)
    assert slow - fast == pytest.approx(done.total / 2e9)
    assert seconds(done, "cpu") > 0
    assert seconds(done, "cuda") < seconds(done, "cpu")


def test_held_out_images_are_evaluated_and_not_trained_on():
    done = plan(methods=("baseline",), teacher="none", student="resnet8", epochs=4, validation_fraction=0.1)
    assert done.macs["students"] == 4 * models()["resnet8"].macs * (3 * 900 + 100 + 500)


def test_a_peer_is_paid_for_too():
    """It learns (three forwards' worth), is evaluated, and the student answers it once more."""
    alone = plan(methods=("baseline",), teacher="none", student="resnet8", epochs=2)
    two = plan(methods=("dml",), teacher="none", student="resnet8", peer="resnet14", epochs=2)
    small, large = models()["resnet8"].macs, models()["resnet14"].macs
    assert two.macs["students"] - alone.macs["students"] == 2 * (1000 * (3 * large + small) + 500 * large)
    assert two.memory > alone.memory


def test_a_folders_images_take_no_more_memory_than_they_may(tmp_path):
    def memory(**values):
        return plan(train_images=10**6, test_images=10**5, **values).memory

    folder, images = f"folder:{tmp_path}", 1.1e6 * 3 * 32 * 32
    kept = memory(dataset=folder)
    assert memory(dataset=folder, image_memory=0.2) == pytest.approx(kept - images + 0.2e9)
    assert memory(dataset=folder, image_memory=50) == kept
    assert memory(image_memory=0.2) == memory(), "a named dataset is in memory"


def test_measured_seconds_are_the_sum_of_what_was_measured():
    config = make_config(
        methods=("ft", "ie-ft"), seeds=(0, 1), epochs=4, auto_encoder_epochs=3, validation_fraction=0.1
    )
    speeds = Speeds("cpu", "fp32", 1e-3, 2e-3, 5e-4, 6e-3)
    done = make_plan(config, 1000, 500, 1, 10, 28, teacher_at_hand=True)
    students = 4 * (900 * 6e-3 + 4 * 600 * 5e-4)
    last = done.macs["evaluation"] / done.macs["students"] * students
    expected = START_UP + students + 3 * 900 * 3e-3 + last
    assert measured_seconds(done, config, 1000, 500, speeds) == pytest.approx(expected)


def test_a_teacher_that_is_trained_first_takes_time_at_the_measured_speed():
    config = make_config(teacher_epochs=10)
    speeds = Speeds("cpu", "fp32", 1e-3, 2e-3, 5e-4, 6e-3)
    trained, given = (
        measured_seconds(make_plan(config, 1000, 500, 1, 10, 28, teacher_at_hand=hand), config, 1000, 500, speeds)
        for hand in (False, True)
    )
    faster = Speeds("cpu", "fp32", 1e-3, 2e-3, 2.5e-4, 3e-3)
    again = make_plan(config, 1000, 500, 1, 10, 28, teacher_at_hand=False)
    assert trained > given
    assert measured_seconds(again, config, 1000, 500, faster) < trained
