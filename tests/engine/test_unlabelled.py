"""Unlabelled images: what the losses see of them, which images come in a step, and that nobody else is changed."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from iekd.data import Split
from iekd.distill.method import build_method
from iekd.distill.targets import Pair, TeacherOutput
from iekd.engine.accelerate import Shortcuts
from iekd.engine.batches import Batches, WithUnlabelled
from iekd.engine.events import Result, TrainedModel
from iekd.engine.experiment import Experiment
from iekd.engine.metrics import Metrics
from iekd.engine.state import Snapshot
from iekd.engine.stream import Loader, Stream
from iekd.models.features import Features
from iekd.models.registry import build


def answers(logits: torch.Tensor) -> Features:
    return Features(logits, (logits[..., None, None],), None, logits)


def test_the_labels_term_is_of_labelled_images_and_the_others_of_all(tiny_config):
    """By hand, for kd of weight 0.4 and temperature 2 on three labelled and two unlabelled images."""
    student, teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, 1, -1, -1])
    method = build_method("kd", tiny_config(kd_weight=0.4, temperature=2.0), Pair((3,), (3,)))
    method.learn_from(2)
    output = method(answers(student), TeacherOutput(answers(teacher)), labels)
    cross_entropy = -sum(student[i].log_softmax(0)[labels[i]] for i in range(3)) / 3
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    divergence = 4 * (p * (p.log() - q.log())).sum() / 5
    torch.testing.assert_close(output.loss, 0.6 * cross_entropy + 0.4 * divergence)
    torch.testing.assert_close(output.terms["cross_entropy"], cross_entropy)
    assert output.logits.shape == (3, 3), "accuracy is counted on labelled images"


@pytest.mark.parametrize("name", ["baseline", "dkd"])
def test_methods_that_need_labels_see_labelled_images_only(tiny_config, name):
    student, teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    images, labels = torch.zeros(5, 3, 8, 8), torch.tensor([2, 0, 1, -1, -1])
    method = build_method(name, tiny_config(), Pair((3,), (3,)))
    alone = method(answers(student[:3]), TeacherOutput(answers(teacher[:3])), labels[:3]).loss
    method.learn_from(2)
    seen, known, output = method.seen(images, labels, TeacherOutput(answers(teacher), (teacher,)))
    assert (len(seen), known.tolist(), len(output.factors[0])) == (3, [2, 0, 1], 3)
    assert method(answers(student[:3]), output, known).loss == alone


def test_with_several_terms_the_cross_entropy_is_still_of_labelled_images(tiny_config):
    student, teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, 1, -1, -1])
    method = build_method("rkd+kd", tiny_config(), Pair((3,), (3,)))
    method.learn_from(2)
    assert method.unlabelled == 2
    terms = method(answers(student), TeacherOutput(answers(teacher)), labels).terms
    expected = F.cross_entropy(student[:3], labels[:3])
    torch.testing.assert_close(terms["cross_entropy"], expected)


def images(count: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, 16, 16), np.uint8))


@pytest.mark.parametrize(("count", "each"), [(10, 2), (48, 8), (500, 16), (1, 1)])
def test_each_batch_has_its_share_of_them(count, each):
    labelled = Batches(images(96, 0), torch.arange(96) % 3, 16, seed=3)
    mixed = WithUnlabelled(labelled, images(count, 1))
    assert (mixed.batch_size, len(mixed)) == (each, 6)
    for epoch in (0, 1):
        alone, together = list(labelled.epoch(epoch)), list(mixed.epoch(epoch))
        for (pixels, labels), (more, known) in zip(alone, together, strict=True):
            assert torch.equal(more[:16], pixels), "students of other runs see the same"
            assert known.tolist() == labels.tolist() + [-1] * each
        again = list(mixed.epoch(epoch, skip=4))
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(together[4:], again, strict=True))
    order = mixed.unlabelled.order(torch.Generator().manual_seed(0))
    rounds = order[: len(order) // count * count].reshape(-1, count)
    assert all(sorted(row.tolist()) == list(range(count)) for row in rounds), "all once before any comes again"


def test_streamed_ones_are_the_same():
    pixels, labels = images(40, 0), torch.arange(40) % 3
    more = images(20, 1)
    cpu = torch.device("cpu")
    loaders = [Loader([some.permute(0, 2, 3, 1).numpy()], cpu, 0) for some in (pixels, more)]
    plain = WithUnlabelled(Batches(pixels, labels, 8, 0), more)
    streamed = WithUnlabelled(Batches(Stream(loaders[0], 0), labels, 8, 0), Stream(loaders[1], 0))
    for (a, _), (b, _) in zip(plain.epoch(1), streamed.epoch(1), strict=True):
        assert torch.equal(a, b)


@pytest.fixture(scope="module")
def teacher() -> TrainedModel:
    torch.manual_seed(0)
    return TrainedModel(build("resnet8", 3, 3).eval(), (0.5,) * 3, (0.3,) * 3)


@pytest.fixture
def unlabelled(tiny) -> Split:
    rng = np.random.default_rng(5)
    return Split(rng.integers(0, 256, (48, 16, 16, 3), np.uint8), np.full(48, -1, np.int64))


def execute(config, tiny, teacher, unlabelled=None, earlier=None, **shortcuts):
    experiment = Experiment(config, tiny, copy.deepcopy(teacher), earlier, lambda: True, unlabelled=unlabelled)
    experiment.shortcuts = Shortcuts(**shortcuts)
    events = list(experiment.events())
    assert isinstance(events[-1], Result)
    return experiment, events


def weights(experiment, name: str) -> dict[str, torch.Tensor]:
    return experiment.students[f"{name}-seed0"].model.state_dict()


def equal(a, b) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("shortcuts", [{}, {"side_by_side": True}], ids=["plain", "parallel"])
def test_they_change_whoever_learns_from_them_and_nobody_else(tiny, tiny_config, teacher, unlabelled, shortcuts):
    config = tiny_config(methods=("baseline", "kd", "ie-ft", "dml"), lr=0.02)
    without, _ = execute(config, tiny, teacher, **shortcuts)
    experiment, events = execute(config, tiny, teacher, unlabelled, **shortcuts)
    assert equal(weights(experiment, "baseline"), weights(without, "baseline"))
    for name in ("kd", "ie-ft", "dml"):
        assert not equal(weights(experiment, name), weights(without, name)), name
    trained = [e for e in events if isinstance(e, Metrics) and e.kind == "train" and e.stage == "students"]
    assert trained
    assert all(0 <= row.values["accuracy"] <= 100 for row in trained)


def test_stacked_seeds_learn_the_same(tiny, tiny_config, teacher, unlabelled):
    config = tiny_config(methods=("baseline", "kd"), seeds=(0, 1), lr=0.02)
    plain, _ = execute(config, tiny, teacher, unlabelled)
    stacked, _ = execute(config, tiny, teacher, unlabelled, stack=True)
    for name in ("baseline", "kd"):
        for key, value in weights(plain, name).items():
            torch.testing.assert_close(weights(stacked, name)[key], value, rtol=1e-3, atol=1e-4)


def test_a_resumed_run_goes_on_with_the_same_images(tiny, tiny_config, teacher, unlabelled, monkeypatch):
    monkeypatch.setattr(Experiment, "_report_every", 1)
    config = tiny_config(methods=("kd",), epochs=2, lr=0.02)
    whole, events = execute(config, tiny, teacher, unlabelled)
    snapshots = [e for e in events if isinstance(e, Snapshot)]
    assert [s.step for s in snapshots] == [1, 2, 3, 4, 5, 6]
    for snapshot in snapshots[1::3]:
        again, _ = execute(config, tiny, teacher, unlabelled, {snapshot.stage: snapshot})
        assert equal(weights(again, "kd"), weights(whole, "kd"))
    other = replace(unlabelled, images=unlabelled.images[::-1].copy())
    changed, _ = execute(config, tiny, teacher, other)
    assert not equal(weights(changed, "kd"), weights(whole, "kd")), "the test sees which images they are"
