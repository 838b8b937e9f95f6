"""RandAugment, TrivialAugment, colour jitter, random erasing, mixup and CutMix: as published, and repeatable."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from iekd.config.run import make_config
from iekd.distill.method import Baseline
from iekd.engine import distortions
from iekd.engine.batches import Batches
from iekd.engine.distortions import (
    OPERATIONS,
    Extras,
    auto_augment,
    beta,
    colour_jitter,
    make_extras,
    random_erasing,
)
from iekd.engine.events import Result
from iekd.engine.experiment import Experiment
from iekd.engine.metrics import Metrics
from iekd.engine.state import Snapshot
from iekd.losses.tensors import larger_share
from iekd.models.features import Features

CPU = torch.device("cpu")
NAMES = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
FILL = [10, 20, 30]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int = 4, channels: int = 3, side: int = 32) -> torch.Tensor:
    """Smooth enough that an operation does what it does to photographs."""
    coarse = torch.rand((count, channels, 5, 5), generator=seeded(9))
    return (F.interpolate(coarse, (side, side), mode="bilinear") * 255).to(torch.uint8)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_is_that_of_torchvision(name, wide):
    theirs = v2.TrivialAugmentWide() if wide else v2.RandAugment()
    images, fill = photos(), {torch.Tensor: FILL}
    space, signed = theirs._AUGMENTATION_SPACE[name]
    values = space(31, 32, 32)
    for number, sign in ((9, 1), (9, -1), (30, -1)):
        value = 0.0 if values is None else float(values[number]) * (sign if signed else 1)
        expected = theirs._apply_image_or_video_transform(images, name, value, v2.InterpolationMode.NEAREST, fill)
        found = OPERATIONS[NAMES.index(name)](images, sign * number / 30, wide, FILL)
        assert (expected.int() - found.int()).abs().max() <= 1, (number, sign)  # a factor rounded otherwise


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["randaugment", "trivialaugment"])
def test_each_image_gets_its_own_operation_and_strength(kind, channels, monkeypatch):
    images, seen = photos(64, channels), []

    def spy(i):
        def apply(some, strength, wide, fill):
            seen.extend([(i, strength)] * len(some))
            return before[i](some, strength, wide, fill)

        return apply

    before = OPERATIONS
    monkeypatch.setattr(distortions, "OPERATIONS", tuple(spy(i) for i in range(len(OPERATIONS))))
    found = auto_augment(images, seeded(), kind, FILL[:channels])
    assert found.shape == images.shape
    assert found.dtype == torch.uint8
    assert len(seen) == 64 * (2 if kind == "randaugment" else 1)
    assert len({i for i, _ in seen}) == len(OPERATIONS)
    strengths = {abs(s) for _, s in seen}
    if kind == "trivialaugment":
        assert len(strengths) > 20
    else:
        assert sorted(strengths) == pytest.approx([0.3])
    assert {s < 0 for _, s in seen} == {True, False}
    assert torch.equal(found, auto_augment(images, seeded(), kind, FILL[:channels]))
    assert not torch.equal(found, auto_augment(images, seeded(1), kind, FILL[:channels]))


def test_colours_are_jittered_image_by_image():
    images = photos(256)
    found = colour_jitter(images, seeded(), 0.5)
    draws = 1 + 0.5 * (2 * torch.rand((3, 256), generator=seeded(), dtype=torch.float64) - 1)
    assert draws.min() < 0.55
    assert draws.max() > 1.45
    for i in (0, 1, 2):
        expected = tv.adjust_brightness(images[i], float(draws[0, i]))
        expected = tv.adjust_contrast(expected, float(draws[1, i]))
        expected = tv.adjust_saturation(expected, float(draws[2, i]))
        assert (expected.int() - found[i].int()).abs().max() <= 3  # which truncates after each of the three
    assert torch.equal(colour_jitter(images, seeded(), 0.0), images)
    grey = colour_jitter(photos(8, 1), seeded(), 0.5)
    assert grey.shape == (8, 1, 32, 32)


def test_a_share_of_the_images_loses_a_rectangle():
    images = torch.full((2000, 1, 16, 16), 9, dtype=torch.uint8)
    found = random_erasing(images, seeded(), 0.25, torch.tensor([200], dtype=torch.uint8))
    holes = (found != images)[:, 0]
    sizes = holes.sum((1, 2))
    erased = sizes > 0
    assert erased.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (sizes[erased] / 256).min() >= 0.02 - 0.01
    assert (sizes[erased] / 256).max() <= 0.33 + 0.05
    box = holes.any(2).sum(1) * holes.any(1).sum(1)
    assert torch.equal(box, sizes), "a rectangle"
    assert set(found.unique().tolist()) == {9, 200}


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_have_the_shares_of_the_pixels(kind):
    """The images of class k are all 60 k bright, so that the mean brightness tells the shares."""
    labels = torch.tensor([0, 1, 2, 3, 3])
    images = (labels * 60).to(torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16)
    shares = set()
    for seed in range(20):
        mixed, soft = Extras(4, **{kind: 1.0})(images, labels, seeded(seed))
        assert soft.shape == (5, 4)
        assert torch.allclose(soft.sum(1), torch.ones(5))
        expected = soft @ (torch.arange(4.0) * 60)
        assert torch.allclose(mixed.float().mean((1, 2, 3)), expected, atol=0.51)
        assert soft[4, 3] == 1, "both are of one class"
        assert torch.equal(larger_share(F.one_hot(labels, 4).float()), labels)
        shares.add(round(soft[1, 1].item(), 4))
        if kind == "cutmix":
            assert len(mixed[1].unique()) <= 2, "pasted, not blended"
    assert len(shares) > 10


def test_of_both_each_batch_gets_one():
    images, labels = photos(8), torch.arange(8) % 4
    mixed = [Extras(4, mixup=1.0, cutmix=1.0)(images, labels, seeded(seed))[0] for seed in range(12)]
    pasted = [bool(((found == images) | (found == images.roll(1, 0))).all()) for found in mixed]
    assert 2 <= sum(pasted) <= 10


def test_the_shares_are_drawn_from_a_beta_distribution():
    draws = torch.tensor([beta(0.2, seeded(seed)) for seed in range(2000)])
    assert draws.mean().item() == pytest.approx(0.5, abs=0.03)
    assert draws.var().item() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.02)


def test_nothing_is_drawn_where_nothing_is_asked_for():
    """Runs without these settings see the same batches as ever."""
    images, labels = photos(16), torch.arange(16)
    plain = list(Batches(images, labels, 4, 3).epoch(1))
    assert make_extras(make_config(), (0.5, 0.5, 0.5), 16, CPU) is None
    none = list(Batches(images, labels, 4, 3, extras=None).epoch(1))
    assert all(
        torch.equal(a, b) for one, other in zip(plain, none, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_an_epoch_that_is_entered_in_the_middle_goes_on_as_it_would_have():
    config = make_config(auto_augment="trivialaugment", colour_jitter=0.4, random_erasing=0.5, mixup=0.2, cutmix=1)
    extras = make_extras(config, (0.5, 0.5, 0.5), 16, CPU)
    batches = Batches(photos(16), torch.arange(16), 4, 3, extras=extras)
    whole, rest = list(batches.epoch(2)), list(batches.epoch(2, skip=2))
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_the_cross_entropy_of_shares():
    method, logits = Baseline(), torch.randn(4, 3)
    labels = torch.tensor([0, 2, 1, 1])
    hard = F.one_hot(labels, 3).float()
    for weights in (None, torch.tensor([1.0, 2.0, 0.5])):
        method.class_weights = weights
        both = [method(Features(logits, (), (), logits), None, given).loss for given in (labels, hard)]
        torch.testing.assert_close(*both)
    method.class_weights = None
    soft = 0.7 * hard + 0.3 * hard.roll(1, 0)
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(method(Features(logits, (), (), logits), None, soft).loss, expected)


@pytest.mark.parametrize("stack", [False, True])
def test_every_method_learns_from_mixed_images_and_resumes(tiny, tiny_config, stack):
    values = {"methods": ("baseline", "dkd"), "seeds": (0, 1)} if stack else {"methods": ("kd", "ie-dml")}
    config = tiny_config(**values, epochs=2, mixup=0.5, cutmix=1, class_weights="balanced")
    experiment = Experiment(config, tiny, should_snapshot=lambda: True)
    experiment.shortcuts = type(experiment.shortcuts)(stack=stack)
    events = list(experiment.events())
    result = next(e for e in events if isinstance(e, Result))
    assert len(result.learners) == len(config.learner_names)
    rows = [e for e in events if isinstance(e, Metrics) and e.kind == "train"]
    assert all(0 <= row.values["accuracy"] <= 100 for row in rows if "accuracy" in row.values)
    middle = next(e for e in events if isinstance(e, Snapshot) and e.stage == "students")
    again = Experiment(config, tiny, experiment.teacher, {"students": middle})
    again.shortcuts = experiment.shortcuts
    (resumed,) = (e for e in again.events() if isinstance(e, Result))
    for one, other in zip(result.learners, resumed.learners, strict=True):
        for p, q in zip(one.network.model.parameters(), other.network.model.parameters(), strict=True):
            assert torch.equal(p, q)
