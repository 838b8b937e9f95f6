"""AT, OD, DKD and DML against formulas written here in numpy, from the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iekd.losses import (
    AttentionTransferLoss,
    DecoupledKnowledgeDistillationLoss,
    ExplorationLoss,
    FactorTransferLoss,
    InheritanceLoss,
    KnowledgeDistillationLoss,
    MutualLearningLoss,
    OverhaulLoss,
    RelationLoss,
)
from iekd.losses.od import margin

SEEDS = st.integers(0, 2**32 - 1)
quick = settings(max_examples=40, deadline=None)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(a) for a in arrays]


@quick
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), SEEDS)
def test_attention_transfer_is_its_formula(b, cs, ct, side, stages, seed):
    rng = np.random.default_rng(seed)
    s, t = ([rng.normal(size=(b, c, side, side)) for _ in range(stages)] for c in (cs, ct))
    expected = 0.0
    for fs, ft in zip(s, t, strict=True):
        qs, qt = ((f**2).mean(1).reshape(b, -1) for f in (fs, ft))
        qs, qt = (q / np.linalg.norm(q, axis=1, keepdims=True) for q in (qs, qt))
        expected += ((qs - qt) ** 2).mean()
    value = AttentionTransferLoss()(tuple(tensors(*s)), tuple(tensors(*t))).item()
    assert value == pytest.approx(expected, abs=1e-6)


def test_attention_transfer_pools_the_larger_map_and_counts_stages():
    s, t = torch.rand(2, 3, 8, 8), torch.rand(2, 5, 4, 4)
    pooled = torch.nn.functional.avg_pool2d(s, 2)
    assert AttentionTransferLoss()((s,), (t,)) == AttentionTransferLoss()((pooled,), (t,))
    with pytest.raises(ValueError, match="1 stages and the teacher 2"):
        AttentionTransferLoss()((s,), (t, t))


@quick
@given(st.integers(1, 6), st.integers(2, 12), st.floats(0.1, 20), SEEDS)
def test_mutual_learning_is_its_formula_and_leaves_the_peer_alone(b, classes, scale, seed):
    rng = np.random.default_rng(seed)
    z1, z2 = rng.normal(size=(b, classes)) * scale, rng.normal(size=(b, classes)) * scale
    p1, p2 = softmax(z1), softmax(z2)
    expected = np.where(p2 > 0, p2 * (np.log(np.maximum(p2, 1e-300)) - np.log(np.maximum(p1, 1e-300))), 0).sum() / b
    mine, peer = (torch.from_numpy(z).requires_grad_() for z in (z1, z2))
    loss = MutualLearningLoss()(mine, peer)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    assert mine.grad is not None
    assert peer.grad is None


@quick
@given(st.integers(1, 6), st.integers(2, 12), SEEDS)
def test_mutual_learning_treats_both_networks_alike(b, classes, seed):
    """What the two lose together is Jeffreys' divergence, whoever is called the peer; equal answers lose nothing."""
    rng = np.random.default_rng(seed)
    z1, z2 = rng.normal(size=(b, classes)) * 3, rng.normal(size=(b, classes)) * 3
    p1, p2 = softmax(z1), softmax(z2)
    jeffreys = ((p1 - p2) * (np.log(p1) - np.log(p2))).sum() / b
    criterion, (one, two) = MutualLearningLoss(), tensors(z1, z2)
    assert (criterion(one, two) + criterion(two, one)).item() == pytest.approx(jeffreys, abs=1e-6)
    assert criterion(one, one.clone()).item() == pytest.approx(0, abs=1e-9)


def test_mutual_learning_is_distillation_without_temperature():
    a, b = torch.randn(5, 7), torch.randn(5, 7)
    assert MutualLearningLoss()(a, b).item() == pytest.approx(KnowledgeDistillationLoss(1.0)(a, b).item(), abs=1e-6)


def decoupled(s: np.ndarray, t: np.ndarray, labels: np.ndarray, alpha: float, beta: float, T: float) -> float:  # noqa: N803
    total = 0.0
    for zs, zt, k in zip(s, t, labels, strict=True):
        ps, pt = softmax(zs[None] / T)[0], softmax(zt[None] / T)[0]
        bs, bt = np.array([ps[k], ps.sum() - ps[k]]), np.array([pt[k], pt.sum() - pt[k]])
        others = np.arange(len(zs)) != k
        qs, qt = ps[others] / ps[others].sum(), pt[others] / pt[others].sum()
        total += alpha * (bt * np.log(bt / bs)).sum() + beta * (qt * np.log(qt / qs)).sum()
    return T * T * total / len(s)


@quick
@given(st.integers(1, 6), st.integers(3, 12), st.floats(0.5, 8), st.floats(0, 3), st.floats(0, 9), SEEDS)
def test_decoupled_distillation_is_its_formula(b, classes, temperature, alpha, beta, seed):
    rng = np.random.default_rng(seed)
    s, t = rng.normal(size=(b, classes)), rng.normal(size=(b, classes))
    labels = rng.integers(0, classes, b)
    criterion = DecoupledKnowledgeDistillationLoss(alpha, beta, temperature)
    value = criterion(*tensors(s, t, labels)).item()
    assert value == pytest.approx(decoupled(s, t, labels, alpha, beta, temperature), rel=1e-6, abs=1e-6)


def test_decoupled_distillation_stays_finite_where_the_teacher_is_certain():
    logits = torch.tensor([[500.0, 0.0, -500.0]], requires_grad=True)
    loss = DecoupledKnowledgeDistillationLoss()(logits, torch.tensor([[900.0, 0.0, 1.0]]), torch.tensor([0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@quick
@given(st.floats(-3, 3), st.floats(0.05, 4))
def test_the_margin_is_the_mean_below_zero(mu, sigma):
    below = math.erfc(mu / sigma / math.sqrt(2)) / 2
    density = math.exp(-((mu / sigma) ** 2) / 2) / math.sqrt(2 * math.pi)
    expected = mu - sigma * density / below if below > 1e-3 else -3 * sigma
    value = margin(torch.tensor([mu], dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64)).item()
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-6)


@quick
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), SEEDS)
def test_overhaul_is_its_formula(b, channels, side, stages, seed):
    rng = np.random.default_rng(seed)
    s, t = ([rng.normal(size=(b, channels, side, side)) for _ in range(stages)] for _ in range(2))
    margins = [-np.abs(rng.normal(size=channels)) for _ in range(stages)]
    expected = 0.0
    for i, (fs, ft, m) in enumerate(zip(s, t, margins, strict=True)):
        for value_s, value_t, low in zip(
            fs.flat, ft.flat, np.broadcast_to(m[:, None, None], ft.shape).flat, strict=True
        ):
            target = max(value_t, low)
            if not value_s <= target <= 0:
                expected += (value_s - target) ** 2 * 0.5 ** (stages - 1 - i)
    criterion = OverhaulLoss(tensors(*margins))
    value = criterion(tuple(tensors(*s)), tuple(tensors(*t))).item()
    assert value == pytest.approx(expected / b / 1000, rel=1e-6, abs=1e-9)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, with the release's 1e-8 below the fraction."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-8))


@quick
@given(st.integers(2, 8), st.integers(3, 12), st.floats(0.5, 8), st.floats(0, 3), st.floats(0, 3), SEEDS)
def test_relations_are_their_formula(b, classes, temperature, inter, intra, seed):
    rng = np.random.default_rng(seed)
    s, t = rng.normal(size=(b, classes)) * 3, rng.normal(size=(b, classes)) * 3
    ps, pt = softmax(s / temperature), softmax(t / temperature)
    between = np.mean([1 - correlation(ps[i], pt[i]) for i in range(b)])
    within = np.mean([1 - correlation(ps[:, k], pt[:, k]) for k in range(classes)])
    expected = temperature**2 * (inter * between + intra * within)
    value = RelationLoss(inter, intra, temperature)(*tensors(s, t)).item()
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_equal_predictions_give_no_relation_loss_and_one_image_does_not_crash():
    logits = torch.randn(6, 5, dtype=torch.float64)
    assert RelationLoss()(logits, logits).item() == pytest.approx(0, abs=1e-3)  # the fraction's 1e-8
    one = torch.randn(1, 5, requires_grad=True)
    loss = RelationLoss()(one, torch.randn(1, 5))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(one.grad).all()


def test_gradients_are_those_of_the_formulas():
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(math.prod(shape)))

    s, t = draw(2, 3, 3, 3).requires_grad_(), draw(2, 4, 3, 3)
    assert torch.autograd.gradcheck(lambda x: AttentionTransferLoss()((x,), (t,)), s)
    logits, teacher, labels = draw(3, 5).requires_grad_(), draw(5, 3).T.contiguous(), torch.tensor([0, 4, 2])
    assert torch.autograd.gradcheck(lambda x: MutualLearningLoss()(x, teacher), logits)
    assert torch.autograd.gradcheck(lambda x: DecoupledKnowledgeDistillationLoss()(x, teacher, labels), logits)
    assert torch.autograd.gradcheck(lambda x: KnowledgeDistillationLoss()(x, teacher), logits)
    assert torch.autograd.gradcheck(lambda x: RelationLoss()(x, teacher), logits)
    low = -torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda x: OverhaulLoss([low])((x,), (t[:, :3],)), s)
    assert torch.autograd.gradcheck(lambda x: FactorTransferLoss()(x, t[:, :3]), s)  # smooth but where two are equal
    for kind in ("l1", "l2", "cosine"):
        assert torch.autograd.gradcheck(lambda x, kind=kind: InheritanceLoss(kind)(x, t[:, :3]), s)
        assert torch.autograd.gradcheck(lambda x, kind=kind: ExplorationLoss(kind)(x, t[:, :3]), s)
