"""Every loss against its formula in the paper, written here in numpy and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iekd.losses import (
    ExplorationLoss,
    FactorTransferLoss,
    InheritanceLoss,
    KnowledgeDistillationLoss,
    ReconstructionLoss,
)

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 6), st.integers(1, 6))
SEEDS = st.integers(0, 2**32 - 1)
quick = settings(max_examples=40, deadline=None)


def pair(shape, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return tuple((rng.normal(size=shape) * scale).astype(np.float32) for _ in range(2))


def unit(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(len(x), -1).astype(np.float64)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def distance(s: np.ndarray, t: np.ndarray) -> float:
    return float(np.abs(unit(s) - unit(t)).mean())


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def kd(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    p, q = log_softmax(t / np.float64(temperature)), log_softmax(s / np.float64(temperature))
    return float(temperature**2 * (np.exp(p) * (p - q)).sum() / len(s))


def value(criterion, s, t) -> float:
    return criterion(torch.from_numpy(s), torch.from_numpy(t)).item()


@quick
@given(SHAPES, SEEDS)
def test_inheritance_is_its_formula(shape, seed):
    s, t = pair(shape, seed)
    assert value(InheritanceLoss(), s, t) == pytest.approx(distance(s, t), abs=1e-6)


@quick
@given(SHAPES, SEEDS)
def test_exploration_is_its_formula(shape, seed):
    s, t = pair(shape, seed)
    assert value(ExplorationLoss(), s, t) == pytest.approx(-distance(s, t), abs=1e-6)


def other_distance(kind: str, s: np.ndarray, t: np.ndarray) -> tuple[float, float]:
    """Inheritance and exploration loss of the paper's ablations: p = 2, and 1 - cos with |cos| for exploration."""
    if kind == "l2":
        value = float(((unit(s) - unit(t)) ** 2).mean())
        return value, -value
    cosine = (unit(s) * unit(t)).sum(1)
    return float((1 - cosine).mean()), float(np.abs(cosine).mean())


@quick
@given(SHAPES, SEEDS, st.sampled_from(["l2", "cosine"]))
def test_other_distances_are_their_formulas(shape, seed, kind):
    s, t = pair(shape, seed)
    inheritance, exploration = other_distance(kind, s, t)
    assert value(InheritanceLoss(kind), s, t) == pytest.approx(inheritance, abs=1e-6)
    assert value(ExplorationLoss(kind), s, t) == pytest.approx(exploration, abs=1e-6)


@quick
@given(SHAPES, SEEDS, st.sampled_from(["l1", "l2", "cosine"]), st.floats(1e-2, 1e2))
def test_every_distance_is_nothing_for_equal_factors_and_blind_to_scale(shape, seed, kind, scale):
    s, t = pair(shape, seed)
    assert value(InheritanceLoss(kind), s, s * np.float32(scale)) == pytest.approx(0, abs=2e-6)
    assert value(ExplorationLoss(kind), s * np.float32(scale), t) == pytest.approx(
        value(ExplorationLoss(kind), s, t), abs=1e-6
    )


def test_distances_stay_within_their_bounds():
    """Opposite factors are as far apart as can be."""
    s = np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32)
    d = s[0].size
    assert value(InheritanceLoss("l1"), s, -s) <= 2 / np.sqrt(d)
    assert value(InheritanceLoss("l2"), s, -s) == pytest.approx(4 / d, rel=1e-5)
    assert value(InheritanceLoss("cosine"), s, -s) == pytest.approx(2, rel=1e-5)
    assert value(ExplorationLoss("cosine"), s, -s) == pytest.approx(1, rel=1e-5), "opposite is not different"


@quick
@given(SHAPES, SEEDS)
def test_factor_transfer_is_its_formula(shape, seed):
    s, t = pair(shape, seed)
    assert value(FactorTransferLoss(), s, t) == pytest.approx(distance(s, t), abs=1e-6)


@quick
@given(SHAPES, SEEDS)
def test_reconstruction_is_the_mean_absolute_difference(shape, seed):
    s, t = pair(shape, seed)
    expected = np.abs(s.astype(np.float64) - t).mean()
    assert value(ReconstructionLoss(), s, t) == pytest.approx(expected, abs=1e-6)


@quick
@given(st.integers(1, 8), st.integers(2, 50), SEEDS, st.sampled_from([1.0, 2.0, 4.0, 10.0]))
def test_kd_is_its_formula(batch, classes, seed, temperature):
    s, t = pair((batch, classes), seed, scale=3)
    expected = kd(s, t, temperature)
    assert value(KnowledgeDistillationLoss(temperature), s, t) == pytest.approx(
        expected, rel=1e-5, abs=2e-6 * temperature**2
    )


@pytest.mark.parametrize("seed", range(3))
def test_kd_of_a_usual_batch_to_six_digits(seed):
    s, t = pair((32, 10), seed)
    assert value(KnowledgeDistillationLoss(4.0), s, t) == pytest.approx(kd(s, t, 4.0), abs=1e-6)


@quick
@given(SHAPES, SEEDS)
def test_equal_factors_have_nothing_left_to_inherit(shape, seed):
    s, _ = pair(shape, seed)
    assert value(InheritanceLoss(), s, s.copy()) == 0
    assert value(ExplorationLoss(), s, s.copy()) == 0


@quick
@given(SHAPES, SEEDS, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_inheritance_is_blind_to_scale(shape, seed, a, b):
    s, t = pair(shape, seed)
    scaled = value(InheritanceLoss(), s * np.float32(a), t * np.float32(b))
    assert scaled == pytest.approx(value(InheritanceLoss(), s, t), abs=1e-6)


def test_each_sample_is_scaled_by_itself():
    s, t = pair((4, 3, 2, 2), 0)
    scale = np.array([0.01, 1, 10, 100], np.float32).reshape(4, 1, 1, 1)
    assert value(InheritanceLoss(), s * scale, t) == pytest.approx(value(InheritanceLoss(), s, t), abs=1e-6)


@quick
@given(SHAPES, SEEDS)
def test_exploration_is_inheritance_turned_round(shape, seed):
    s, t = pair(shape, seed)
    assert value(ExplorationLoss(), s, t) == -value(InheritanceLoss(), s, t)


@quick
@given(SHAPES, SEEDS)
def test_inheritance_is_between_zero_and_two_over_the_root_of_the_size(shape, seed):
    s, t = pair(shape, seed)
    bound = 2 / np.sqrt(np.prod(shape[1:]))
    assert 0 <= value(InheritanceLoss(), s, t) <= bound + 1e-6


def test_the_bound_is_reached_by_flat_opposites():
    s = np.ones((2, 32, 8, 8), np.float32)
    assert value(InheritanceLoss(), s, -s) == pytest.approx(2 / np.sqrt(2048), abs=1e-7)


@pytest.mark.parametrize("criterion", [InheritanceLoss(), ExplorationLoss(), FactorTransferLoss()])
def test_a_dead_factor_gives_finite_loss_and_gradient(criterion):
    s = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = criterion(s, torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize("criterion", [InheritanceLoss(), ExplorationLoss(), FactorTransferLoss()])
def test_half_precision_factors_are_compared_in_single(criterion):
    s, t = (torch.from_numpy(x).bfloat16() for x in pair((4, 32, 8, 8), 1))
    expected = distance(s.float().numpy(), t.float().numpy()) * (-1 if isinstance(criterion, ExplorationLoss) else 1)
    assert criterion(s, t).item() == pytest.approx(expected, abs=1e-6)


def test_a_step_down_inherits_and_a_step_down_explores():
    s, t = (torch.from_numpy(x) for x in pair((4, 8, 4, 4), 2))
    before = InheritanceLoss()(s, t)
    after = {}
    for criterion in (InheritanceLoss(), ExplorationLoss()):
        moved = s.clone().requires_grad_()
        criterion(moved, t).backward()
        moved = moved.detach() - 1.0 * moved.grad
        after[type(criterion).__name__] = InheritanceLoss()(moved, t)
    assert after["InheritanceLoss"] < before < after["ExplorationLoss"]


def test_kd_of_equal_answers_is_zero_and_of_others_positive():
    s, t = pair((8, 10), 3)
    assert value(KnowledgeDistillationLoss(), s, s.copy()) == pytest.approx(0, abs=1e-6)
    assert value(KnowledgeDistillationLoss(), s, t) > 0


def test_kd_looks_from_the_teacher_to_the_student():
    s, t = pair((8, 10), 4)
    forwards, backwards = kd(s, t, 2.0), kd(t, s, 2.0)
    assert abs(forwards - backwards) > 1e-2
    assert value(KnowledgeDistillationLoss(2.0), s, t) == pytest.approx(forwards, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_gradient_is_its_closed_form(temperature):
    """d/ds T^2 KL = T (softmax(s/T) - softmax(t/T)) / B (Hinton et al. 2015, equation 2, times T^2)."""
    s, t = pair((6, 10), 5, scale=2)
    leaf = torch.from_numpy(s).requires_grad_()
    KnowledgeDistillationLoss(temperature)(leaf, torch.from_numpy(t)).backward()
    expected = temperature * (np.exp(log_softmax(s / temperature)) - np.exp(log_softmax(t / temperature))) / len(s)
    np.testing.assert_allclose(leaf.grad.numpy(), expected, atol=1e-6)


def test_kd_gradcheck():
    """Steps are large and bounds wide because the loss computes in single precision whatever it is given."""
    s, t = (torch.from_numpy(x).double() for x in pair((3, 5), 6))
    assert torch.autograd.gradcheck(
        KnowledgeDistillationLoss(2.0), (s.requires_grad_(), t), eps=1e-2, atol=1e-3, rtol=1e-2
    )


def test_hot_kd_is_the_squared_distance_of_centred_logits():
    """T -> infinity: T^2 KL -> sum (s - t)^2 / (2 K), logits centred (Hinton et al. 2015, equation 4)."""
    s, t = pair((16, 10), 7)
    difference = (s - s.mean(1, keepdims=True)) - (t - t.mean(1, keepdims=True))
    limit = (difference.astype(np.float64) ** 2).sum() / (2 * 10 * len(s))
    assert value(KnowledgeDistillationLoss(30.0), s, t) == pytest.approx(limit, rel=0.03)


@pytest.mark.parametrize("loss", [InheritanceLoss, ExplorationLoss])
@pytest.mark.parametrize("distance", ["cos", "L1", "l3"])
def test_a_misspelt_distance_is_no_other_distance(loss, distance):
    with pytest.raises(ValueError, match=f"'{distance}' is unknown. Choose one of: l1, l2, cosine"):
        loss(distance)


@pytest.mark.parametrize(
    "loss",
    [InheritanceLoss(), InheritanceLoss("cosine"), ExplorationLoss(), ExplorationLoss("cosine"), FactorTransferLoss()],
)
@pytest.mark.parametrize("other", [(4, 16, 7, 7), (4, 32, 4, 4), (1, 32, 7, 7), (4, 1, 1, 1)])
def test_factors_of_different_sizes_are_named(loss, other):
    """Those of one image, or of one number, would be repeated by torch."""
    with pytest.raises(ValueError, match=r"\(4, 32, 7, 7\).*FactorEncoder"):
        loss(torch.ones(other), torch.ones(4, 32, 7, 7))
