from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from iekd.config import METHODS, make_config
from iekd.losses import KnowledgeDistillationLoss
from iekd.methods import MethodOptions, StepOutput, TeacherOutput, build_method
from iekd.models.features import Features

B, C, K, CLASSES = 4, 64, 32, 10
TERMS = {
    "baseline": {"cross_entropy"},
    "kd": {"cross_entropy", "kd"},
    "ft": {"cross_entropy", "factor_transfer"},
    "ie-ft": {"cross_entropy", "inheritance", "exploration"},
}


def options(**values) -> MethodOptions:
    usual = {
        "inheritance_weight": 500,
        "exploration_weight": 50,
        "factor_weight": 300,
        "temperature": 4,
        "kd_weight": 0.9,
    }
    return MethodOptions(**{**usual, **values})


def method(name: str, channels: int = C, **values):
    torch.manual_seed(0)
    return build_method(name, options(**values), channels, K)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def student(side: int = 8, channels: int = C) -> Features:
    """Leaves: logits do not depend on the feature, so every gradient of the feature comes from a factor's loss."""
    feature = random(B, channels, side, side, seed=1).requires_grad_()
    logits = random(B, CLASSES, seed=2).requires_grad_()
    return Features(logits, (feature,), (feature,), feature.mean((2, 3)))


def teacher(side: int = 8, seed: int = 3) -> TeacherOutput:
    feature = random(B, C, side, side, seed=seed)
    logits = random(B, CLASSES, seed=seed + 1)
    return TeacherOutput(
        Features(logits, (feature,), (feature,), feature.mean((2, 3))), random(B, K, side, side, seed=seed)
    )


LABELS = torch.tensor([0, 3, 9, 3])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_names_its_terms(name):
    output = method(name)(student(), teacher(), LABELS)
    assert isinstance(output, StepOutput)
    assert set(output.terms) == TERMS[name]
    assert output.loss.shape == ()
    assert all(term.shape == () and not term.requires_grad for term in output.terms.values())


@pytest.mark.parametrize("name", METHODS)
def test_logits_pass_through(name):
    s = student()
    assert method(name)(s, teacher(), LABELS).logits is s.logits


WEIGHTS = {
    "baseline": {"cross_entropy": 1},
    "kd": {"cross_entropy": 0.3, "kd": 0.7},
    "ft": {"cross_entropy": 1, "factor_transfer": 123},
    "ie-ft": {"cross_entropy": 1, "inheritance": 77, "exploration": 11},
}


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_the_weighted_sum_of_the_terms(name):
    chosen = method(name, kd_weight=0.7, factor_weight=123, inheritance_weight=77, exploration_weight=11)
    output = chosen(student(), teacher(), LABELS)
    expected = sum(weight * output.terms[term].double().item() for term, weight in WEIGHTS[name].items())
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_cross_entropy_is_that_of_the_labels(name):
    s = student()
    expected = -torch.log_softmax(s.logits.double(), 1)[torch.arange(B), LABELS].mean().item()
    assert method(name)(s, teacher(), LABELS).terms["cross_entropy"].item() == pytest.approx(expected, abs=1e-6)


def test_the_baseline_ignores_the_teacher():
    losses = {method("baseline")(student(), t, LABELS).loss.item() for t in (None, teacher(seed=3), teacher(seed=9))}
    assert len(losses) == 1
    assert not method("baseline").needs_teacher


@pytest.mark.parametrize("name", [n for n in METHODS if n != "baseline"])
def test_every_other_method_listens_to_the_teacher(name):
    assert method(name).needs_teacher
    a, b = (method(name)(student(), teacher(seed=seed), LABELS).loss for seed in (3, 9))
    assert a != b


def test_only_factor_methods_need_a_factor():
    assert [name for name in METHODS if method(name).needs_factor] == ["ft", "ie-ft"]


def test_what_the_configuration_believes_the_methods_need():
    for name in METHODS:
        assert make_config(methods=(name,)).needs_auto_encoder == method(name).needs_factor


@pytest.mark.parametrize(("weight", "term"), [(0.0, "cross_entropy"), (1.0, "kd")])
def test_kd_shares_between_labels_and_teacher(weight, term):
    output = method("kd", kd_weight=weight)(student(), teacher(), LABELS)
    assert output.loss.item() == pytest.approx(output.terms[term].item(), rel=1e-6)


def test_kd_uses_its_temperature():
    s, t = student(), teacher()
    kd = method("kd", temperature=7.0)(s, t, LABELS).terms["kd"]
    assert kd == KnowledgeDistillationLoss(7.0)(s.logits, t.features.logits)


def touched(**weights: float) -> tuple[list[int], torch.nn.Module]:
    """Channels of the student's feature that get a gradient, and the method."""
    chosen, s = method("ie-ft", **weights), student()
    chosen(s, teacher(), LABELS).loss.backward()
    strength = s.stages[-1].grad.abs().amax((0, 2, 3))
    return torch.nonzero(strength > 0).flatten().tolist(), chosen


def moved(encoder: torch.nn.Module) -> bool:
    return any(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


def test_inheritance_reaches_the_first_half_alone():
    channels, chosen = touched(exploration_weight=0.0)
    assert channels == list(range(32))
    assert moved(chosen.inheritance_encoder)
    assert not moved(chosen.exploration_encoder)


def test_exploration_reaches_the_second_half_alone():
    channels, chosen = touched(inheritance_weight=0.0)
    assert channels == list(range(32, 64))
    assert moved(chosen.exploration_encoder)
    assert not moved(chosen.inheritance_encoder)


def test_both_weights_reach_every_channel_and_none_reaches_none():
    assert touched()[0] == list(range(64))
    assert touched(inheritance_weight=0.0, exploration_weight=0.0)[0] == []


def test_factor_transfer_reaches_every_channel():
    s = student()
    method("ft")(s, teacher(), LABELS).loss.backward()
    assert (s.stages[-1].grad.abs().amax((0, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", ["baseline", "kd"])
def test_answers_teach_through_logits_alone(name):
    s = student()
    method(name)(s, teacher(), LABELS).loss.backward()
    assert s.stages[-1].grad is None
    assert s.logits.grad is not None
    assert not list(method(name).parameters())


def test_both_halves_look_at_the_same_teacher_factor():
    """With one encoder in both places and the same channels, exploration is inheritance turned round."""
    chosen = method("ie-ft").eval()
    chosen.exploration_encoder.load_state_dict(chosen.inheritance_encoder.state_dict())
    half = random(B, 32, 8, 8, seed=5)
    feature = torch.cat([half, half], 1)
    s = Features(random(B, CLASSES), (feature,), (feature,), feature.mean((2, 3)))
    terms = chosen(s, teacher(), LABELS).terms
    assert terms["inheritance"] == -terms["exploration"]


def test_the_split_covers_every_channel_once_and_is_kept():
    chosen = method("ie-ft")
    state = chosen.state_dict()
    both = torch.cat([state["inheritance_channels"], state["exploration_channels"]])
    assert sorted(both.tolist()) == list(range(64))
    assert len(state["inheritance_channels"]) == 32


def test_the_split_in_the_state_is_the_one_in_use():
    chosen, s = method("ie-ft", exploration_weight=0.0), student()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    state = chosen.state_dict()
    chosen.load_state_dict({**state, "inheritance_channels": order[:32], "exploration_channels": order[32:]})
    chosen(s, teacher(), LABELS).loss.backward()
    touched = torch.nonzero(s.stages[-1].grad.abs().amax((0, 2, 3)) > 0).flatten()
    assert touched.tolist() == sorted(order[:32].tolist())


@pytest.mark.parametrize("name", ["ft", "ie-ft"])
@pytest.mark.parametrize(("of_student", "of_teacher"), [(8, 4), (4, 8), (7, 8), (8, 7), (1, 8), (8, 1)])
def test_maps_of_different_sizes_work(name, of_student, of_teacher):
    s = student(of_student)
    output = method(name)(s, teacher(of_teacher), LABELS)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert s.stages[-1].grad.abs().max() > 0


def test_a_larger_map_is_averaged_down():
    chosen = method("ft").eval()
    s, t = student(8), teacher(4)
    with torch.no_grad():
        factor = F.avg_pool2d(chosen.encoder(s.stages[-1]), 2).flatten(1).double()
        u_s = factor / factor.norm(dim=1, keepdim=True)
        u_t = t.factor.flatten(1).double() / t.factor.flatten(1).double().norm(dim=1, keepdim=True)
        assert chosen(s, t, LABELS).terms["factor_transfer"].item() == pytest.approx(
            (u_s - u_t).abs().mean().item(), abs=1e-6
        )


@pytest.mark.parametrize("channels", [2, 3, 33])
def test_odd_numbers_of_channels_are_split_too(channels):
    s = student(8, channels)
    output = method("ie-ft", channels=channels)(s, teacher(), LABELS)
    output.loss.backward()
    assert (s.stages[-1].grad.abs().amax((0, 2, 3)) > 0).all()


def test_an_unknown_method_is_a_key_error():
    with pytest.raises(KeyError):
        method("ie_ft")


def test_training_the_encoders_lowers_the_loss():
    chosen, s, t = method("ie-ft"), student(), teacher()
    optimizer = torch.optim.SGD(chosen.parameters(), lr=0.05)
    first = chosen(s, t, LABELS)
    for _ in range(20):
        output = chosen(s, t, LABELS)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert output.terms["inheritance"] < first.terms["inheritance"]
    assert output.terms["exploration"] <= first.terms["exploration"]
