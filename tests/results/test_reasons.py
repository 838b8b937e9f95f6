"""The advice under a poor result names what was found, not always the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from iekd import data
from iekd.config.run import make_config
from iekd.data.base import Dataset, Split
from iekd.results.reasons import find_reasons, mirror_each_other
from iekd.results.report import remarks


def arrows(count: int, seed: int) -> Split:
    """Arrows to the left (0) and to the right (1), and circles' stand-ins that look the same mirrored (2)."""
    rng, images, labels = np.random.default_rng(seed), [], []
    for i in range(count):
        image = rng.integers(0, 40, (16, 16, 1))
        top = rng.integers(5, 9)
        if i % 3 == 2:
            image[top - 3 : top + 4, 6:10] = 220
        else:
            image[top, 3:13] = 220
            for k in range(4):  # the head
                column = 3 + k if i % 3 == 0 else 12 - k
                image[[top - k, top + k], column] = 220
        images.append(image)
        labels.append(i % 3)
    return Split(np.array(images, np.uint8), np.array(labels, np.int64))


@pytest.fixture(scope="module")
def signs() -> Dataset:
    return Dataset("signs", ("left", "right", "post"), arrows(120, 0), arrows(60, 1))


def answers(dataset: Dataset, confused: bool) -> dict[str, np.ndarray]:
    """Right, or with every second arrow taken for its mirror image."""
    found = dataset.test.labels.copy()
    if confused:
        rows = np.flatnonzero(found != 2)[::2]
        found[rows] = 1 - found[rows]
    return {"baseline-seed0": found}


CONFIG = make_config(epochs=100, batch_size=8)


def test_classes_that_are_mirror_images_are_named_with_the_remedy(signs):
    (said,) = find_reasons(CONFIG, signs, answers(signs, True), guessing=False)
    assert "50% of the test images of 'left' and 'right'" in said
    assert "--no-flip" in said


@pytest.mark.parametrize("values", [{"flip": False}, {"augmentation": "none"}])
def test_without_flips_they_are_no_reason(signs, values):
    assert find_reasons(CONFIG.model_copy(update=values), signs, answers(signs, True), guessing=False) == []


def test_networks_that_tell_them_apart_have_no_trouble(signs):
    assert find_reasons(CONFIG, signs, answers(signs, False), guessing=False) == []


def test_confused_classes_that_are_no_mirror_images_are_not_blamed_on_flips(signs):
    swapped = {"baseline-seed0": np.where(signs.test.labels == 1, 2, np.where(signs.test.labels == 2, 1, 0))}
    assert find_reasons(CONFIG, signs, swapped, guessing=False) == []
    assert mirror_each_other(signs.train, 0, 1)
    assert not mirror_each_other(signs.train, 1, 2)


def test_real_clothes_are_no_mirror_images_of_each_other():
    sample = data.load("fashion-mnist-sample")
    assert not any(mirror_each_other(sample.train, a, b) for a in range(10) for b in range(a + 1, 10))


def test_few_steps_are_a_reason_of_a_poor_result_only(signs):
    few = CONFIG.model_copy(update={"epochs": 2})
    (said,) = find_reasons(few, signs, answers(signs, False), guessing=True)
    assert said.startswith("Training took only 30 steps (2 epochs of 15).")
    assert find_reasons(few, signs, answers(signs, False), guessing=False) == []


def test_files_with_many_more_pixels_are_a_reason(tmp_path, signs):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("RGB", (300, 200), (40 * i, 9, 9)).save(tmp_path / name / f"{i}.png")
    for side, said in ((32, True), (128, False)):
        loaded = data.load(f"folder:{tmp_path}", resolution=side)
        found = find_reasons(CONFIG, loaded, {}, guessing=True)
        assert any("at 32 x 32 pixels, but the files have 200" in reason for reason in found) == said
    assert not any("pixels" in reason for reason in find_reasons(CONFIG, signs, {}, guessing=True))


def test_the_advice_is_the_reason_that_was_found():
    report = {
        "learners": [{"method": "baseline", "seed": 0, "accuracy_last": 50.0}], "guess": 50.0, "test_images": 500,
    }  # fmt: skip
    (usual,) = remarks(report)
    assert "Train longer" in usual
    guessing, reason = remarks({**report, "reasons": ["Because of this. Do that."]})
    assert reason == "Because of this. Do that."
    assert "Train longer" not in guessing


def test_a_class_without_training_images_is_no_trouble(signs):
    rest = replace(signs, train=signs.train.take(np.flatnonzero(signs.train.labels != 0)))
    assert find_reasons(CONFIG, rest, answers(signs, True), guessing=False) == []


@pytest.mark.parametrize(("fit", "said"), [("crop", True), ("squash", False)])
def test_images_whose_ends_are_cut_off_are_a_reason(tmp_path, fit, said):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("RGB", (96, 32), (40 * i, 9, 9)).save(tmp_path / name / f"{i}.png")
    loaded = data.load(f"folder:{tmp_path}", fit=fit)
    found = find_reasons(CONFIG, loaded, {}, guessing=True)
    assert any("3.0 times as long as wide" in reason and "squash" in reason for reason in found) == said
