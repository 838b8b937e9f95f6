"""Relational knowledge distillation against its formula, written here in numpy and float64, pair by pair.

Details as in the reference release (github.com/lenscloth/RKD): means over all pairs and triples, those of an image with
itself among them; squared distances not below 1e-12; distances divided by the mean of those above 0; smooth L1.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iekd.config.run import make_config
from iekd.distill.method import build_method
from iekd.distill.targets import Pair, TeacherOutput
from iekd.losses import RelationalAngleLoss, RelationalDistanceLoss
from iekd.models.features import Features

SEEDS = st.integers(0, 2**32 - 1)
quick = settings(max_examples=30, deadline=None)


def smooth_l1(a: float, b: float) -> float:
    apart = abs(a - b)
    return apart * apart / 2 if apart < 1 else apart - 0.5


def distances(x: np.ndarray) -> dict[tuple[int, int], float]:
    found = {
        (i, j): 0.0 if i == j else math.sqrt(max(float(((x[i] - x[j]) ** 2).sum()), 1e-12))
        for i, j in itertools.product(range(len(x)), repeat=2)
    }
    above = [d for d in found.values() if d > 0]
    return {pair: d / (sum(above) / len(above)) for pair, d in found.items()}


def distance_loss(s: np.ndarray, t: np.ndarray) -> float:
    ours, theirs = distances(s), distances(t)
    return float(np.mean([smooth_l1(ours[pair], theirs[pair]) for pair in ours]))


def direction(x: np.ndarray, i: int, j: int) -> np.ndarray:
    towards = x[j] - x[i]
    return towards / max(float(np.linalg.norm(towards)), 1e-12)


def angle_loss(s: np.ndarray, t: np.ndarray) -> float:
    triples = itertools.product(range(len(s)), repeat=3)
    cosines = [tuple(float(direction(x, i, j) @ direction(x, i, k)) for x in (s, t)) for i, j, k in triples]
    return float(np.mean([smooth_l1(a, b) for a, b in cosines]))


def draw(seed: int, batch: int, *widths: int, scale: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, width)) * scale for width in widths]


BOTH = [(RelationalDistanceLoss(), distance_loss), (RelationalAngleLoss(), angle_loss)]


@quick
@given(st.integers(2, 7), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.01, 1.0, 100.0]), SEEDS)
def test_both_are_their_formulas(batch, ours, theirs, scale, seed):
    s, t = draw(seed, batch, ours, theirs, scale=scale)
    for criterion, formula in BOTH:
        value = criterion(torch.from_numpy(s), torch.from_numpy(t)).item()
        assert value == pytest.approx(formula(s, t), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("criterion", "formula"), BOTH)
def test_a_usual_batch_in_single_precision(criterion, formula):
    s, t = draw(0, 16, 64, 32)
    value = criterion(torch.from_numpy(s).float(), torch.from_numpy(t).float()).item()
    assert value == pytest.approx(formula(s, t), rel=1e-4)


@pytest.mark.parametrize(("criterion", "formula"), BOTH)
def test_its_products_are_not_computed_in_half_precision(criterion, formula):
    s, t = draw(1, 16, 64, 32)
    with torch.autocast("cpu", torch.bfloat16):
        value = criterion(torch.from_numpy(s).float(), torch.from_numpy(t).float()).item()
    assert value == pytest.approx(formula(s, t), rel=1e-4)


@quick
@given(st.integers(2, 7), st.integers(2, 9), SEEDS, st.floats(0.01, 100), st.floats(-10, 10))
def test_neither_sees_scale_place_or_rotation(batch, width, seed, scale, shift):
    (s,) = draw(seed, batch, width)
    (turn,) = draw(seed + 1, width, width)
    turned = (s @ np.linalg.qr(turn)[0]) * scale + shift
    for criterion, _ in BOTH:
        assert criterion(torch.from_numpy(turned), torch.from_numpy(s)).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("criterion", "formula"), BOTH)
def test_equal_images_and_a_single_one_leave_finite_gradients(criterion, formula):
    for s in (torch.ones(4, 3), torch.randn(1, 3), torch.zeros(2, 3)):
        s.requires_grad_()
        loss = criterion(s, torch.randn(len(s), 5))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize(("criterion", "formula"), BOTH)
def test_gradients_are_those_of_the_formulas(criterion, formula):
    s, t = (torch.from_numpy(x) for x in draw(3, 5, 4, 6))
    assert torch.autograd.gradcheck(lambda x: criterion(x, t), s.requires_grad_())


def outputs(seed: int, width: int) -> Features:
    rng = torch.Generator().manual_seed(seed)
    pooled = torch.randn(6, width, generator=rng).requires_grad_()
    stage = torch.randn(6, width, 2, 2, generator=rng).requires_grad_()
    return Features(torch.randn(6, 10, generator=rng).requires_grad_(), (stage,), (stage,), pooled)


def test_the_method_compares_what_the_classifiers_see_with_the_papers_weights():
    method = build_method("rkd", make_config(methods="rkd"), Pair((16,), (8,), (16,)))
    s, t = outputs(0, 16), outputs(1, 8)
    output = method(s, TeacherOutput(t), torch.arange(6))
    distance, angle = RelationalDistanceLoss()(s.pooled, t.pooled), RelationalAngleLoss()(s.pooled, t.pooled)
    assert (output.terms["rkd_distance"], output.terms["rkd_angle"]) == (distance, angle)
    expected = output.terms["cross_entropy"] + 25 * distance + 50 * angle
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    output.loss.backward()
    assert s.pooled.grad.abs().max() > 0
    assert s.stages[0].grad is None
    assert not list(method.parameters())
