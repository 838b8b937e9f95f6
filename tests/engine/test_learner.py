from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from iekd.config.run import make_config
from iekd.distill.method import Baseline
from iekd.engine import training_unit
from iekd.engine.batches import to_device
from iekd.engine.learner import Best, Learner, predict, strength
from iekd.engine.metrics import Diverged
from iekd.models.normalise import Normalise
from iekd.models.registry import build

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("warm-up", [0, 0.5, 1, 1, 1]),
        ("decay", [1, 0.95, 0.9, 0.5, 0]),
    ],
)
def test_the_strength_of_a_method_follows_its_schedule(schedule, expected):
    assert [strength(schedule, p) for p in (0, 0.05, 0.1, 0.5, 1)] == pytest.approx(expected)


def test_a_learner_sets_the_strength_of_every_step(tiny):
    learner, seen = make_learner(tiny, weight_schedule="decay"), []
    for batch in batches(tiny) * 2:
        list(learner.step(*batch, None))
        seen.append(learner.method.strength)
    assert seen == pytest.approx([1 - i / 6 for i in range(6)])


def test_momentum_without_nesterov_is_the_other_form(tiny):
    def nesterov(**values):
        return make_learner(tiny, **values).optimizer.param_groups[0]["nesterov"]

    assert not nesterov(nesterov=False)
    assert nesterov()
    assert not nesterov(momentum=0)


def test_normalising_gives_mean_zero_and_deviation_one(tiny):
    images, _ = to_device(tiny.train, CPU)
    normalised = Normalise(*tiny.statistics)(images).double()
    assert torch.allclose(normalised.mean((0, 2, 3)), torch.zeros(3, dtype=torch.double), atol=1e-5)
    assert torch.allclose(normalised.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.double), atol=1e-5)


def test_normalising_is_its_formula():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = (np.arange(256) / 255 - 0.3) / 0.2
    np.testing.assert_allclose(Normalise((0.3,), (0.2,))(pixels).flatten().numpy(), expected, atol=1e-5)


def make_learner(tiny, lr=0.1, epochs=2, report_every=2, **values) -> Learner:
    torch.manual_seed(0)
    config = make_config(lr=lr, **values)
    return Learner(
        "one", "students", build("resnet8", 3), Baseline(), Normalise(*tiny.statistics), config,
        epochs=epochs, steps_per_epoch=3, device=CPU, precision=torch.float32, report_every=report_every,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_news_in_between(monkeypatch):
    """On a busy machine a step may take so long that its number is told before a row is due."""
    monkeypatch.setattr(training_unit, "NEWS_EVERY", math.inf)


def batches(tiny):
    images, labels = to_device(tiny.train, CPU)
    return [(images[i : i + 32], labels[i : i + 32]) for i in (0, 32, 64)]


def test_rows_come_every_few_steps_and_at_the_end_of_an_epoch(tiny):
    learner = make_learner(tiny)
    rows = [row for _ in range(2) for batch in batches(tiny) for row in learner.step(*batch, None)]
    assert [(row.step, row.epoch) for row in rows] == [(2, 2 / 3), (3, 1), (4, 4 / 3), (6, 2)]
    assert all(row.kind == "train" and row.learner == "one" and row.stage == "students" for row in rows)
    assert set(rows[0].values) == {"loss", "cross_entropy", "accuracy", "lr"}


def test_rows_are_means_since_the_last_row(tiny):
    every, third = make_learner(tiny, report_every=1), make_learner(tiny, report_every=3)
    single = [row for batch in batches(tiny) for row in every.step(*batch, None)]
    (together,) = [row for batch in batches(tiny) for row in third.step(*batch, None)]
    for key in ("loss", "cross_entropy", "accuracy"):
        assert together.values[key] == pytest.approx(np.mean([row.values[key] for row in single]), rel=1e-5)


def test_the_step_is_plain_sgd(tiny):
    """Nesterov momentum and weight decay written out by hand, in float64 on the gradients of the same network."""
    learner = make_learner(tiny, schedule="cosine", weight_decay=0.01, epochs=1)
    torch.manual_seed(0)
    twin, normalise = build("resnet8", 3).train(), Normalise(*tiny.statistics)
    velocity = [torch.zeros_like(p, dtype=torch.double) for p in twin.parameters()]
    for i, (images, labels) in enumerate(batches(tiny)):
        list(learner.step(images, labels, None))
        twin.zero_grad()
        nn.functional.cross_entropy(twin(normalise(images)).logits, labels).backward()
        lr = 0.05 * (1 + math.cos(math.pi * i / 3))
        with torch.no_grad():
            for p, v in zip(twin.parameters(), velocity, strict=True):
                g = p.grad.double() + 0.01 * p.double()
                v.mul_(0.9).add_(g) if i else v.copy_(g)
                p.copy_(p.double() - lr * (g + 0.9 * v))
    for ours, expected in zip(learner.model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, expected, atol=1e-4)


def evaluated(learner, kind, images, labels, size=25) -> list:
    """The rows on images that are given in parts."""
    for part in zip(images.split(size), labels.split(size), strict=True):
        learner.evaluate(*part)
    return learner.end_of_split(kind)


def test_evaluation_counts_right_answers(tiny):
    learner = make_learner(tiny)
    images, labels = to_device(tiny.test, CPU)
    (row,) = evaluated(learner, "test", images, labels)
    learner.model.eval()
    with torch.no_grad():
        logits = learner.model(learner.normalise(images)).logits.double().numpy()
    assert row.kind == "test"
    assert row.values["accuracy"] == pytest.approx(100 * (logits.argmax(1) == tiny.test.labels).mean(), abs=1e-4)
    shifted = logits - logits.max(1, keepdims=True)
    chosen = shifted[np.arange(60), tiny.test.labels] - np.log(np.exp(shifted).sum(1))
    assert row.values["loss"] == pytest.approx(-chosen.mean(), abs=1e-5)
    assert learner.accuracy["test"] == learner.best.accuracy == row.values["accuracy"]


def best_of(*accuracies: dict[str, float]) -> Best:
    """The best of epochs with these accuracies."""
    best = Best()
    for epoch, accuracy in enumerate(accuracies, 1):
        best = best.after(epoch, accuracy)
    return best


def test_validation_chooses_the_best_epoch_where_there_is_one():
    best = best_of({"validation": 50, "test": 90}, {"validation": 60, "test": 70}, {"validation": 60, "test": 80})
    assert best == Best(epoch=2, chosen_by=60, accuracy=70)
    assert best_of({"test": 50}, {"test": 90}, {"test": 80}) == Best(2, 90, 90)
    assert best_of({"validation": 0, "test": 0}).epoch == 1


def test_the_best_accuracy_is_remembered(tiny):
    learner = make_learner(tiny)
    images, _labels = to_device(tiny.test, CPU)
    with torch.no_grad():
        answers = predict(learner.model, learner.normalise, images, CPU).argmax(1)
    wrong = (answers + 1) % 3
    assert evaluated(learner, "validation", images, wrong)[0].values["accuracy"] == 0
    assert evaluated(learner, "test", images, answers)[0].values["accuracy"] == 100
    assert evaluated(learner, "validation", images, answers)[0].values["accuracy"] == 100
    assert evaluated(learner, "test", images, wrong)[0].values["accuracy"] == 0
    assert learner.best.accuracy == 0, "the epoch that validation likes, not the one that the test likes"
    assert learner.best.chosen_by == 100


def test_evaluation_does_not_teach(tiny):
    learner = make_learner(tiny)
    before = {k: v.clone() for k, v in learner.model.state_dict().items()}
    evaluated(learner, "test", *to_device(tiny.test, CPU))
    assert all(torch.equal(before[k], v) for k, v in learner.model.state_dict().items())


def test_training_continues_in_training_mode_after_evaluation(tiny):
    learner = make_learner(tiny)
    for batch in batches(tiny):
        list(learner.step(*batch, None))
    evaluated(learner, "test", *to_device(tiny.test, CPU))
    before = learner.model.bn.running_mean.clone()
    list(learner.step(*batches(tiny)[0], None))
    assert not torch.equal(before, learner.model.bn.running_mean)


@pytest.mark.parametrize("size", [1, 7, 60, 500])
def test_predictions_do_not_depend_on_the_batch(tiny, size):
    torch.manual_seed(0)
    model, normalise = build("resnet8", 3), Normalise(*tiny.statistics)
    images, _ = to_device(tiny.test, CPU)
    expected = predict(model, normalise, images, CPU, batch_size=60)
    assert torch.allclose(predict(model, normalise, images, CPU, batch_size=size), expected, atol=1e-4)
    assert not expected.requires_grad


def test_a_nan_loss_is_reported_once_and_no_row_follows(tiny):
    learner = make_learner(tiny, lr=100.0, weight_decay=1.0, schedule="cosine", epochs=50, report_every=1)
    found = [row for batch in batches(tiny) * 50 for row in learner.step(*batch, None)]
    (gone,) = [row for row in found if isinstance(row, Diverged)]
    assert found[-1] is gone
    assert gone.learner == "one"
    assert "'one'" in gone.message
    assert f"step {gone.step}." in gone.message
    assert "\n" not in gone.message
    assert all(math.isfinite(value) for row in found[:-1] for value in row.values.values())
    assert not learner.healthy


def test_nan_weights_are_noticed_at_the_latest_in_evaluation(tiny):
    """The last step of a training may be the one that breaks it; no row of metrics may hold NaN, which is not JSON."""
    learner = make_learner(tiny)
    with torch.no_grad():
        learner.model.classifier.bias.fill_(math.nan)
    (gone,) = evaluated(learner, "test", *to_device(tiny.test, CPU))
    assert isinstance(gone, Diverged)
    assert evaluated(learner, "test", *to_device(tiny.test, CPU)) == [], "once is enough"


def test_fewer_large_images_are_answered_at_a_time():
    """As many pixels, down to a few images; up to 32 x 32 as ever."""
    from iekd.engine.learner import evaluation_batch_size

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [evaluation_batch_size(cpu, side) for side in (16, 28, 32)] == [125] * 3
    assert [evaluation_batch_size(gpu, side) for side in (16, 28, 32)] == [1000] * 3
    assert evaluation_batch_size(cpu, 64) == 31
    assert evaluation_batch_size(gpu, 224) == 20
    assert evaluation_batch_size(cpu, 224) == 8
    assert evaluation_batch_size(gpu, 1024) == 16


def test_a_networks_parts_follow_the_images(monkeypatch):
    from iekd.engine import learner

    seen = []
    real = learner.split_into_batches
    monkeypatch.setattr(learner, "split_into_batches", lambda images, size: seen.append(size) or real(images, size))
    model, images = build("resnet8", 3), torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    learner.predict(model, learner.Normalise((0.5,) * 3, (0.5,) * 3), images, torch.device("cpu"))
    assert seen == [31]
