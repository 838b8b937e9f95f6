"""Methods on random features: what each looks at, what it weighs, and which channels it touches."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from iekd.config.methods import DISTANCE_SCALE, IE_DEFAULTS, METHODS, MethodSpec, combined, method_spec
from iekd.config.run import RunConfig, make_config
from iekd.distill.method import BUILDERS, Method, StepOutput, build_method, builder, check_built, first
from iekd.distill.targets import Pair, TeacherOutput, split_channels
from iekd.engine.experiment import Experiment
from iekd.launchers.sending import inputs_of
from iekd.losses import (
    AttentionTransferLoss,
    DecoupledKnowledgeDistillationLoss,
    ExplorationLoss,
    KnowledgeDistillationLoss,
    MutualLearningLoss,
    OverhaulLoss,
    RelationLoss,
)
from iekd.losses.at import attention
from iekd.models.catalog import factor_channels
from iekd.models.features import Features

B, CLASSES = 4, 10
STUDENT, TEACHER = (16, 32, 64), (8, 16, 64)
SIDES = (8, 4, 2)
MARGINS = tuple(-torch.linspace(0.1, 2, width) for width in TEACHER)
LABELS = torch.tensor([0, 3, 9, 3])
ALL = [*METHODS, *combined()]
IE = [name for name in ALL if method_spec(name).explores]


def method(name: str, student_widths=STUDENT, teacher_widths=TEACHER, **values) -> Method:
    torch.manual_seed(0)
    margins = tuple(-torch.linspace(0.1, 2, width) for width in teacher_widths)
    return build_method(name, make_config(**values), Pair(student_widths, teacher_widths, student_widths, margins))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def features(widths=STUDENT, sides=SIDES, seed: int = 1, grad: bool = True) -> Features:
    """Leaves: logits and stages do not depend on one another, so that every gradient shows where it comes from."""
    before = tuple(
        random(B, c, s, s, seed=seed + i).requires_grad_(grad)
        for i, (c, s) in enumerate(zip(widths, sides, strict=True))
    )
    after = tuple(x.detach().relu().requires_grad_(grad) for x in before)
    logits = random(B, CLASSES, seed=seed + 9).requires_grad_(grad)
    return Features(logits, after, before, after[-1].mean((2, 3)))


def teacher(widths=TEACHER, sides=SIDES, seed: int = 30) -> TeacherOutput:
    found = features(widths, sides, seed, grad=False)
    shapes = [(B, factor_channels(c), s, s) for c, s in zip(widths, sides, strict=True)]
    return TeacherOutput(found, tuple(random(*shape, seed=seed + 20 + i) for i, shape in enumerate(shapes)))


def peer(seed: int = 60, widths=STUDENT) -> Features:
    return features(widths, SIDES, seed)


def touched(feature: torch.Tensor) -> list[int]:
    """Channels of a leaf that got a gradient."""
    if feature.grad is None:
        return []
    return torch.nonzero(feature.grad.abs().amax((0, 2, 3)) > 0).flatten().tolist()


def moved(module: torch.nn.Module) -> bool:
    return any(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


def test_every_method_has_a_builder_and_a_builder_has_a_spec():
    assert set(BUILDERS) == set(METHODS)
    with pytest.raises(ValueError, match="no-such-method"):
        builder("no-such-method")


@pytest.fixture
def unbuilt(monkeypatch):
    """A method whose author forgot the builder."""
    monkeypatch.setitem(METHODS, "nob", MethodSpec("nob", "has no builder", ("#000", "#fff")))
    return "nob"


@pytest.mark.parametrize("suffix", ["", "+kd"])
def test_a_method_without_a_builder_is_refused_in_words(unbuilt, suffix, refuses, monkeypatch, forgotten):
    words = ("Method 'nob' has a MethodSpec but no builder", "@builder('nob') in the same module")
    config = make_config(methods=("baseline", unbuilt + suffix))
    refuses(lambda: check_built(config.methods), *words)
    refuses(lambda: build_method(unbuilt + suffix, config, Pair(STUDENT, TEACHER)), *words)
    monkeypatch.setenv("IEKD_PLUGINS", "json")
    refuses(lambda: inputs_of(config, None), *words)


def test_a_method_without_a_builder_is_refused_before_its_teacher_is_trained(unbuilt, tiny_config, tiny, refuses):
    config = tiny_config(methods=(unbuilt,))
    refuses(lambda: Experiment(config, tiny), "no builder")


@pytest.mark.parametrize("name", ALL)
def test_every_method_names_its_terms(name):
    output = method(name)(features(), teacher(), LABELS, peer())
    assert isinstance(output, StepOutput)
    assert set(output.terms) == {"cross_entropy"} | {term.name for term in method_spec(name).terms}
    assert ("kd" in output.terms) == (name == "kd" or name.endswith("+kd"))
    assert ("inheritance" in output.terms) == ("exploration" in output.terms) == name.startswith("ie-")
    assert output.loss.shape == ()
    assert all(term.shape == () and not term.requires_grad for term in output.terms.values())


@pytest.mark.parametrize("name", ALL)
def test_logits_pass_through(name):
    s = features()
    assert method(name)(s, teacher(), LABELS, peer()).logits is s.logits


WEIGHTS = {
    "inheritance_weight": 7, "exploration_weight": 3, "attention_weight": 13, "factor_weight": 17,
    "overhaul_weight": 19, "mutual_weight": 23, "dist_weight": 29, "kd_weight": 0.7,
}  # fmt: skip
WEIGHT_OF = {
    "inheritance": 7, "exploration": 3, "attention": 13, "factor_transfer": 17, "overhaul": 19, "mutual": 23,
    "dist": 29, "kd": 0.7, "dkd": 1,
}  # fmt: skip


def weight_of(term: str) -> float:
    return WEIGHT_OF[term] if term in WEIGHT_OF else getattr(make_config(), f"{term}_weight")


@pytest.mark.parametrize("strength", [1.0, 0.25, 0.0])
@pytest.mark.parametrize("name", ALL)
def test_the_loss_is_the_weighted_sum_of_the_terms(name, strength):
    chosen = method(name, **WEIGHTS)
    chosen.strength = strength
    output = chosen(features(), teacher(), LABELS, peer())
    label = 1 - strength * 0.7 if "kd" in output.terms else 1
    expected = sum(
        (label if term == "cross_entropy" else strength * weight_of(term)) * value.double().item()
        for term, value in output.terms.items()
    )
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_cross_entropy_is_that_of_the_labels(name):
    s = features()
    expected = -torch.log_softmax(s.logits.double(), 1)[torch.arange(B), LABELS].mean().item()
    assert method(name)(s, teacher(), LABELS, peer()).terms["cross_entropy"].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_method_listens_to_whom_it_needs_and_to_no_one_else(name):
    chosen = method(name)

    def loss(t: int, p: int) -> float:
        return chosen.eval()(features(), teacher(seed=t), LABELS, peer(seed=p)).loss.item()

    assert (loss(30, 60) != loss(35, 60)) == chosen.needs_teacher
    assert (loss(30, 60) != loss(30, 65)) == chosen.needs_peer
    chosen(features(), teacher() if chosen.needs_teacher else None, LABELS, peer() if chosen.needs_peer else None)


@pytest.mark.parametrize("name", ALL)
def test_neither_teacher_nor_peer_gets_a_gradient(name):
    other = peer()
    method(name)(features(), teacher(), LABELS, other).loss.backward()
    assert all(x.grad is None for x in (other.logits, *other.stages, *other.pre_activations))


@pytest.mark.parametrize("name", ALL)
def test_what_the_configuration_believes_the_methods_need(name):
    chosen = method(name)
    uses_factor = chosen.eval()(features(), teacher(), LABELS, peer()).loss != chosen(
        features(), teacher()._replace(factors=tuple(-f for f in teacher().factors)), LABELS, peer()
    ).loss  # fmt: skip
    assert make_config(methods=(name,)).needs_auto_encoder == bool(uses_factor) == method_spec(name).needs_factor
    assert chosen.needs_teacher == method_spec(name).needs_teacher


@pytest.mark.parametrize("name", ALL)
def test_spec_and_distillers_agree_on_unlabelled_images(name):
    """`needs_labels` stands in both. Images without a label change the loss, or are left out."""
    chosen = method(name)
    chosen.learn_from(2)
    assert (chosen.left_out == 0) == method_spec(name).learns_unlabelled
    unlabelled = torch.tensor([0, 3, -1, -1])
    images, labels, taught = chosen.seen(torch.zeros(B, 1, 2, 2), unlabelled, teacher())
    s = features()
    chosen(s if len(images) == B else first(s, len(images)), taught, labels, peer()).loss.backward()
    moved = [x.grad[2:].abs().sum() for x in (s.logits, s.pooled, *s.stages, *s.pre_activations) if x.grad is not None]
    assert bool(sum(moved)) == method_spec(name).learns_unlabelled


# what each distiller is made of, against the losses themselves


def answers(name: str, **values) -> torch.Tensor:
    return method(name, **values)(features(), teacher(), LABELS, peer()).terms


def test_answers_are_compared_by_their_losses():
    s, t = features().logits, teacher().features.logits
    assert answers("kd", temperature=7.0)["kd"] == KnowledgeDistillationLoss(7.0)(s, t)
    dkd = answers("dkd", temperature=3.0, dkd_target_weight=0.5, dkd_other_weight=2.0)["dkd"]
    assert dkd == DecoupledKnowledgeDistillationLoss(0.5, 2.0, 3.0)(s, t, LABELS)
    assert answers("dist", temperature=2.0)["dist"] == RelationLoss(temperature=2.0)(s, t)
    assert answers("dml")["mutual"] == MutualLearningLoss()(s, peer().logits)


def test_attention_transfer_is_over_all_stages():
    expected = AttentionTransferLoss()(features().stages, teacher().features.stages)
    assert answers("at")["attention"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_overhaul_is_over_all_stages_before_the_activation():
    chosen = method("od").eval()
    s, t = features(), teacher().features
    mapped = tuple(c.connector(x) for c, x in zip(chosen.distillers[0].compared, s.pre_activations, strict=True))
    expected = OverhaulLoss(list(MARGINS))(mapped, t.pre_activations)
    assert chosen(s, teacher(), LABELS).terms["overhaul"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("weight", "term"), [(0.0, "cross_entropy"), (1.0, "kd")])
def test_kd_shares_between_labels_and_teacher(weight, term):
    output = method("kd", kd_weight=weight)(features(), teacher(), LABELS)
    assert output.loss.item() == pytest.approx(output.terms[term].item(), rel=1e-6)


@pytest.mark.parametrize("name", ["baseline", "kd", "dkd", "dist", "dml"])
def test_answers_teach_through_logits_alone(name):
    s = features()
    method(name)(s, teacher(), LABELS, peer()).loss.backward()
    assert not any(map(touched, (*s.stages, *s.pre_activations)))
    assert s.logits.grad is not None
    assert not list(method(name).parameters())


# inheritance and exploration: which channels, which stages


def run(name: str, **values) -> tuple[Method, Features]:
    chosen, s = method(name, **values), features()
    chosen(s, teacher(), LABELS, peer()).loss.backward()
    return chosen, s


def ie(chosen: Method):
    return next(d for d in chosen.distillers if hasattr(d, "inheritance"))


STAGES_OF = {"ie-at": 3, "ie-ft": 1, "ie-od": 3, "ie-dml": 1}


@pytest.mark.parametrize("name", STAGES_OF)
@pytest.mark.parametrize(("which", "halves"), [("inheritance", 0), ("exploration", 1)])
def test_each_loss_reaches_its_half_alone(name, which, halves):
    other = "exploration" if which == "inheritance" else "inheritance"
    chosen, s = run(name, **{f"{other}_weight": 0})
    looked_at = s.pre_activations if name == "ie-od" else s.stages
    for feature in looked_at[-STAGES_OF[name] :]:
        width = feature.shape[1]
        assert touched(feature) == list(range(width))[halves * width // 2 : (halves + 1) * width // 2]
    for feature in looked_at[: -STAGES_OF[name]]:
        assert not touched(feature)
    if name != "ie-at":  # which trains nothing beside the student
        assert moved(getattr(ie(chosen), which))
    assert not moved(getattr(ie(chosen), other))


@pytest.mark.parametrize("name", STAGES_OF)
def test_both_weights_reach_every_channel_and_none_reaches_none(name):
    last = (lambda s: s.pre_activations[-1]) if name == "ie-od" else (lambda s: s.stages[-1])
    assert touched(last(run(name)[1])) == list(range(64))
    assert touched(last(run(name, inheritance_weight=0, exploration_weight=0)[1])) == []


@pytest.mark.parametrize("name", ["at", "ft", "od"])
def test_plain_imitation_reaches_every_channel(name):
    _, s = run(name)
    assert touched((s.pre_activations if name == "od" else s.stages)[-1]) == list(range(64))


@pytest.mark.parametrize(("which", "stages"), [("last", 1), ("all", 3)])
@pytest.mark.parametrize("name", STAGES_OF)
def test_stages_can_be_chosen(name, which, stages):
    chosen, s = run(name, ie_stages=which)
    looked_at = s.pre_activations if name == "ie-od" else s.stages
    assert [bool(touched(x)) for x in looked_at] == [False] * (3 - stages) + [True] * stages
    assert [len(c) for c in chosen.inheritance_channels] == [8, 16, 32][3 - stages :]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("name", STAGES_OF)
def test_the_share_decides_how_many_inherit(name, share):
    chosen, s = run(name, inheritance_share=share, exploration_weight=0, ie_stages="last")
    inheriting = touched((s.pre_activations if name == "ie-od" else s.stages)[-1])
    assert inheriting == list(range(int(64 * share)))
    terms = chosen(features(), teacher(), LABELS, peer()).terms
    assert ("inheritance" in terms) == (share > 0)
    assert ("exploration" in terms) == (share < 1)


def test_a_random_split_is_in_the_state_and_depends_only_on_the_seed():
    first, again = method("ie-ft", channel_split="random"), method("ie-ft", channel_split="random")
    assert first.inheritance_channels == again.inheritance_channels != method("ie-ft").inheritance_channels
    torch.manual_seed(1)
    other = build_method("ie-ft", make_config(channel_split="random"), Pair(STUDENT, TEACHER, STUDENT, MARGINS))
    assert other.inheritance_channels != first.inheritance_channels
    other.load_state_dict(first.state_dict())
    assert other.inheritance_channels == first.inheritance_channels
    a, b = (m.eval()(features(), teacher(), LABELS).loss for m in (first, other))
    assert a == b


@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize(
    ("count", "share", "expected"), [(64, 0.5, 32), (3, 0.5, 1), (2, 0.01, 1), (2, 0.99, 1), (5, 0, 0), (5, 1, 5)]
)
def test_a_split_covers_every_channel_once(count, share, expected, at_random):
    inheriting, exploring = split_channels(count, share, at_random)
    assert len(inheriting) == expected
    assert sorted(torch.cat([inheriting, exploring]).tolist()) == list(range(count))


def test_both_halves_look_at_the_same_teacher_factor():
    """With one encoder in both places and the same channels, exploration is inheritance turned round."""
    chosen = method("ie-ft").eval()
    halves = ie(chosen)
    halves.exploration[0].encoder.load_state_dict(halves.inheritance[0].encoder.state_dict())
    half = random(B, 32, 2, 2, seed=5)
    feature = torch.cat([half, half], 1)
    s = Features(random(B, CLASSES), (feature,), (feature,), feature.mean((2, 3)))
    terms = chosen(s, teacher(), LABELS).terms
    assert terms["inheritance"] == -terms["exploration"]


def test_attention_halves_are_taught_by_the_attention_loss():
    terms = method("ie-at")(features(), teacher(), LABELS).terms
    halves = [
        tuple(x[:, : x.shape[1] // 2] for x in features().stages),
        tuple(x[:, x.shape[1] // 2 :] for x in features().stages),
    ]
    t = teacher().features.stages
    assert terms["inheritance"].item() == pytest.approx(AttentionTransferLoss()(halves[0], t).item(), rel=1e-6)
    pushed = sum(ExplorationLoss("l2")(attention(a), attention(b)).item() for a, b in zip(halves[1], t, strict=True))
    assert terms["exploration"].item() == pytest.approx(pushed, rel=1e-6)


def test_overhaul_halves_see_the_target_above_the_margin():
    chosen = method("ie-od").eval()
    low = teacher()
    below = low.features._replace(pre_activations=tuple(x - 100 for x in low.features.pre_activations))
    lower = low.features._replace(pre_activations=tuple(x - 200 for x in low.features.pre_activations))
    a, b = (chosen(features(), TeacherOutput(t), LABELS).terms for t in (below, lower))
    assert a["exploration"] == b["exploration"]
    assert a["inheritance"] == b["inheritance"]


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("name", STAGES_OF)
def test_distances_give_finite_losses_that_teach(name, distance):
    _, s = run(name, distance=distance)
    last = (s.pre_activations if name == "ie-od" else s.stages)[-1]
    assert touched(last) == list(range(64))
    assert torch.isfinite(last.grad).all()


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_default_weights_follow_the_distiller_and_the_distance(distance):
    for base in ("ft", "at", "dml"):
        found = ie(method(f"ie-{base}", distance=distance))
        expected = tuple(w * DISTANCE_SCALE[distance] for w in IE_DEFAULTS[f"ie-{base}"].weights)
        assert (found.inheritance_weight, found.exploration_weight) == expected
    assert ie(method("ie-od", distance=distance)).inheritance_weight == IE_DEFAULTS["ie-od"].weights[0]
    assert (ie(method("ie-at")).inheritance_weight, ie(method("ie-ft")).inheritance_weight) == (1000, 500)


@pytest.mark.parametrize("which", ["inheritance_weight", "exploration_weight"])
def test_the_help_names_the_default_weights(which):
    said = RunConfig.model_fields[which].description
    assert all(f"{name} {getattr(ie(method(name)), which):g}" in said for name in STAGES_OF)


@pytest.mark.parametrize("name", ["ft", "ie-ft"])
def test_without_an_auto_encoder_the_feature_is_the_target(name):
    chosen = method(name, auto_encoder=False).eval()
    a = chosen(features(), teacher()._replace(factors=()), LABELS).loss
    b = chosen(features(), teacher(seed=31)._replace(factors=()), LABELS).loss
    assert a != b
    assert not make_config(methods=(name,), auto_encoder=False).needs_auto_encoder


# pairs of every kind


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("student_widths", "student_sides", "teacher_widths", "teacher_sides"),
    [
        ((16, 32, 64), (8, 4, 2), (16, 32, 64), (8, 4, 2)),  # equal
        ((64, 128, 256), (8, 4, 2), (8, 16), (4, 2)),  # reverse, fewer stages
        ((3, 5, 7), (9, 5, 3), (64, 128, 256, 512, 512), (8, 4, 2, 1, 1)),  # odd widths, another family
        ((2,), (1,), (4,), (7,)),
    ],
    ids=["equal", "reverse", "across", "smallest"],
)
def test_every_pair_works(name, student_widths, student_sides, teacher_widths, teacher_sides):
    chosen = method(name, student_widths, teacher_widths, ie_stages="all")
    s, other = features(student_widths, student_sides), features(student_widths, student_sides, seed=60)
    output = chosen(s, teacher(teacher_widths, teacher_sides), LABELS, other)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    grads = [x.grad for x in (*s.stages, *s.pre_activations, s.logits) if x.grad is not None]
    assert all(torch.isfinite(g).all() for g in grads)
    assert grads


def test_a_larger_map_is_averaged_down():
    chosen = method("ft").eval()
    s, t = features(sides=(16, 8, 4)), teacher()
    with torch.no_grad():
        factor = F.avg_pool2d(chosen.distillers[0].compared[0].encoder(s.stages[-1]), 2).flatten(1).double()
        u_s = factor / factor.norm(dim=1, keepdim=True)
        u_t = t.factors[-1].flatten(1).double() / t.factors[-1].flatten(1).double().norm(dim=1, keepdim=True)
        value = chosen(s, t, LABELS).terms["factor_transfer"].item()
        assert value == pytest.approx((u_s - u_t).abs().mean().item(), abs=1e-6)


@pytest.mark.parametrize("name", IE)
def test_training_what_is_beside_the_student_lowers_the_loss(name):
    chosen, s, t, other = method(name), features(), teacher(), peer()
    if not list(chosen.parameters()):
        pytest.skip("it trains nothing beside the student")
    optimizer = torch.optim.SGD(chosen.parameters(), lr=0.02)
    first = chosen(s, t, LABELS, other)
    for _ in range(20):
        output = chosen(s, t, LABELS, other)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert output.terms["inheritance"] < first.terms["inheritance"]
    assert output.terms["exploration"] <= first.terms["exploration"]
    assert math.isfinite(output.loss.item())
