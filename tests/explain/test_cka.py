"""CKA against a sum over all quadruples of images in NumPy, and the properties that it is used for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from iekd.explain import cka as module
from iekd.explain.about import NotApplicableError
from iekd.explain.cka import cka, similarity


def hsic(k, m):
    """The U-statistic (Gretton et al. 2005; Song et al. 2012, theorem 1): a mean over quadruples of distinct images."""
    quadruples = list(itertools.permutations(range(len(k)), 4))
    return sum(k[a, b] * (m[a, b] + m[c, d] - 2 * m[a, c]) for a, b, c, d in quadruples) / len(quadruples)


def reference(x, y):
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5


@pytest.fixture
def features():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(7, 5)) + 3
    return x, x @ draw.normal(size=(5, 9)) + draw.normal(size=(7, 9))


def test_it_equals_the_reference(features):
    x, y = features
    expected = reference(x, y)
    assert 0.1 < expected < 0.95
    assert cka(x, y) == pytest.approx(expected, rel=1e-9)
    assert cka(y, x) == pytest.approx(expected, rel=1e-9)


def test_a_rotated_scaled_and_shifted_copy_is_the_same(features):
    x, _ = features
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    assert cka(x, 0.1 * x @ rotation + 7) == pytest.approx(1, abs=1e-9)
    stretched = x @ rotation @ np.diag([1, 10, 1, 1, 1])
    assert cka(x, stretched) < 0.98


def test_independent_features_are_unrelated_on_average():
    """Without the correction for bias, so many features of so few images would look alike."""
    draw = np.random.default_rng(2)
    values = [cka(draw.normal(size=(20, 200)), draw.normal(size=(20, 200))) for _ in range(30)]
    assert abs(np.mean(values)) < 0.05


def test_features_that_never_change_are_like_nothing(features):
    assert cka(features[0], np.ones((7, 3))) is None


def test_columns_that_are_multiplied_in_pieces_give_the_same(features, monkeypatch):
    whole = cka(*features)
    monkeypatch.setattr(module, "COLUMNS", 2)
    assert cka(*features) == pytest.approx(whole, rel=1e-12)


def test_networks_are_compared_stage_by_stage(networks, noise):
    images = noise(24)
    stages = similarity(networks, images)
    assert [s.stage for s in stages] == [-1, -2, -3]
    last, before, _ = stages
    assert last.names == ("teacher", "baseline", "ie-ft", "ie-ft inheritance", "ie-ft exploration")
    assert before.names == ("teacher", "baseline", "ie-ft")  # only the last stage is divided
    values = np.array(last.values)
    assert np.diag(values) == pytest.approx(1)
    assert values == pytest.approx(values.T)
    student, teacher = networks[-1], networks[0]
    inherits = list(student.card.inheritance_channels[-1])
    half = student.forward(student.pixels(images)).stages[-1][:, inherits].flatten(1)
    whole = teacher.forward(teacher.pixels(images)).stages[-1].flatten(1)
    assert values[0, 3] == pytest.approx(cka(whole, half), abs=1e-4)
    assert abs(values[0, 3] - values[0, 4]) > 1e-4


def test_memory_decides_how_many_images_are_used(networks, noise, monkeypatch):
    per_image = 4 * (16 * 16 * 16 + 32 * 8 * 8 + 64 * 4 * 4)
    monkeypatch.setattr(module, "MEMORY", 10 * per_image + 1)
    assert {s.images for s in similarity(networks, noise(24))} == {10}
    monkeypatch.setattr(module, "MEMORY", 1)
    assert {s.images for s in similarity(networks, noise(24))} == {4}


def test_three_images_are_too_few(networks, noise, refuses):
    refuses(lambda: similarity(networks, noise(3)), "4 images", "3", kind=NotApplicableError)
