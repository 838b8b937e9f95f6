"""A teacher from outside that answers in another order, or sees other pixel values, is found out before it teaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from iekd import data
from iekd.config.run import make_config
from iekd.errors import UserError
from iekd.inference.teacher_check import IMAGES, check_teacher_on
from iekd.models.artifact import load_model
from iekd.models.class_names import reordered
from iekd.paths import PACKAGE
from iekd.runs.teacher_model import load_teacher


@pytest.fixture(scope="module")
def sample():
    return data.load("fashion-mnist-sample")


@pytest.fixture
def teacher():
    folder = next(p for p in sorted((PACKAGE.parent / "checkpoints").iterdir()) if "resnet20" in p.name)
    return load_model(folder)


def check(network, card, sample, mean=None, std=None, **options):
    return check_teacher_on(network, mean or card.mean, std or card.std, sample.test, sample.class_names, **options)


def test_a_good_teacher_passes(teacher, sample):
    found = check(*teacher, sample)
    assert (found.images, found.problem) == (IMAGES, "")
    assert found.accuracy > 90


def test_another_order_is_noticed_and_offered(teacher, sample):
    network, card = teacher
    order = tuple(np.random.default_rng(3).permutation(sample.class_names))
    found = check(reordered(network, card.class_names, order), card, sample)
    assert found.order == order, "what the outputs stand for"
    assert found.accuracy < 40
    assert found.accuracy_in_order > 90
    assert ",".join(order) in found.problem


def test_two_classes_that_are_swapped_are_noticed(teacher, sample):
    network, card = teacher
    order = (*sample.class_names[:7], sample.class_names[8], sample.class_names[7], sample.class_names[9])
    found = check(reordered(network, card.class_names, order), card, sample)
    assert found.order == order


def test_other_pixel_values_are_noticed_only_where_they_were_assumed(teacher, sample):
    network, card = teacher
    assert not check(network, card, sample, (0.1,), (0.9,), try_normalisations=False).mean
    found = check(network, card, sample, (9.0,), (0.05,))
    assert found.normalisation
    assert found.accuracy_normalised > found.accuracy + 15
    assert "Give those as teacher mean" in found.problem
    assert "name this one first" not in found.problem
    assert "name this one first" in replace(found, further=True).problem


def test_one_that_has_learned_nothing_is_refused(teacher, sample):
    network, card = teacher
    torch.manual_seed(0)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.05)
    found = check(network, card, sample)
    assert "always predicting the majority class" in found.problem
    for words in ("--teacher-mean", "--class-order"):
        assert words in found.problem
        assert words not in replace(found, named_in="'model'").problem, "which it has no effect on"


def test_few_images_of_many_classes_suggest_no_order(sample):
    """Some order always fits a few answers by chance."""
    names = tuple(map(str, range(1000)))
    few = sample.test.take(np.arange(100))

    class Blind(torch.nn.Module):
        def forward(self, images):
            from types import SimpleNamespace

            return SimpleNamespace(logits=torch.randn(len(images), 1000, generator=torch.Generator().manual_seed(0)))

    found = check_teacher_on(Blind(), (0.3,), (0.3,), few, names, try_normalisations=False)
    assert found.order == ()


def test_a_file_whose_classes_are_listed_in_another_order_teaches_in_the_right_one(teacher, sample, tmp_path):
    network, card = teacher
    order = tuple(reversed(card.class_names))
    save_file(reordered(network, card.class_names, order).state_dict(), tmp_path / "t.safetensors")
    config = make_config(
        teacher="resnet20", teacher_from=str(tmp_path / "t.safetensors"), teacher_mean=card.mean, teacher_std=card.std
    )
    with pytest.raises(UserError, match="class order"):
        load_teacher(tmp_path / "t.safetensors", config, sample)
    (tmp_path / "classes.txt").write_text("\n".join(name.lower() for name in order))
    loaded = load_teacher(tmp_path / "t.safetensors", config, sample)
    assert any("another order" in note for note in loaded.notes)
    assert any("is right on 9" in note for note in loaded.notes)
    (tmp_path / "classes.txt").write_text("\n".join([*order[1:], "banana"]))
    with pytest.raises(UserError, match=r"classes\.txt"):
        load_teacher(tmp_path / "t.safetensors", config, sample)
