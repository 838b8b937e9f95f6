"""The loop that we compare with does the same learning as ours: an honest comparison."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from iekd.bench import conventional
from iekd.bench.rounds import make_trainer
from iekd.engine.frozen_teacher import FrozenTeacher
from iekd.estimate.subjects import Subject, noise
from iekd.models.normalise import Normalise

CPU = torch.device("cpu")


def close(ours: torch.nn.Module, theirs: torch.nn.Module, before: dict) -> None:
    """Every weight went the same way: apart from rounding, and the teacher's folded batch norm rounds too."""
    moved = 0
    for name, value in ours.state_dict().items():
        if not value.is_floating_point():
            continue
        step = (value - before[name]).abs().max()
        moved += bool(step > 0)
        torch.testing.assert_close(
            theirs.state_dict()[name],
            value,
            rtol=1e-4,
            atol=float(2e-3 * step) + 1e-6,
            msg=lambda m, n=name: f"{n}: {m}",
        )
    assert moved > 10


@pytest.mark.parametrize("method", ["baseline", "kd", "at", "ft", "od", "ie-ft", "dml", "ie-dml"])
def test_a_step_is_the_same_step_as_ours(method, small):
    config = small(methods=(method,), lr=0.01, weight_decay=0.1)
    subject = Subject(config, 32)
    parts = subject.parts()
    learner = parts.learners[method]
    # one teacher, one set of encoders and one student with its method for both
    trainer = make_trainer(subject)
    for mine, theirs in ((learner.model, trainer.student), (learner.method, trainer.method)):
        theirs.load_state_dict(mine.state_dict())
    if method in ("dml", "ie-dml"):
        trainer.peer[0].load_state_dict(learner.peer.model.state_dict())
        trainer.peer[1].load_state_dict(learner.peer.method.state_dict())
    teacher = None
    if parts.teacher is not None:
        teacher = FrozenTeacher(subject.teacher, CPU, torch.float32, subject.dataset.shape)
        teacher.encoders = [copy.deepcopy(encoder) for encoder in trainer.encoders]
    images, labels = next(parts.endless())
    pixels = Normalise(*subject.statistics)(images).contiguous()
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    output = learner.update(images, labels, teacher(images) if teacher else None)
    loss, accuracy = trainer.step(pixels, labels)
    assert loss == pytest.approx(float(output.loss.detach()), rel=1e-5)
    assert accuracy == pytest.approx(float((output.logits.argmax(1) == labels).float().mean() * 100))
    close(learner.model, trainer.student, before)
    for weight, other in zip(learner.model.parameters(), trainer.student.parameters(), strict=True):
        torch.testing.assert_close(other.grad, weight.grad, rtol=1e-3, atol=2e-3 * float(weight.grad.abs().max()))
    if trainer.peer:
        close(learner.peer.model, trainer.peer[0], before)


def test_it_is_plain(small):
    """float32, contiguous, nothing folded, the teacher in evaluation mode, the student not."""
    trainer = make_trainer(Subject(small(methods=("ie-ft",)), 32))
    assert not trainer.teacher.training
    assert trainer.student.training
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in trainer.teacher.modules())
    for weight in (*trainer.student.parameters(), *trainer.teacher.parameters()):
        assert weight.dtype == torch.float32
        assert weight.is_contiguous()
    teacher = {name: value.clone() for name, value in trainer.teacher.state_dict().items()}
    learning = []
    trainer.teacher.register_forward_hook(lambda *_: learning.append(torch.is_grad_enabled()))
    for weight in trainer.student.parameters():
        weight.grad = torch.full_like(weight, torch.nan)  # of a step before
    trainer.step(torch.randn(4, 1, 8, 8), torch.arange(4))
    assert learning == [False]
    assert all(torch.isfinite(weight).all() for weight in trainer.student.parameters())
    for name, value in trainer.teacher.state_dict().items():
        assert torch.equal(value, teacher[name]), f"the teacher's {name} changed"


@pytest.mark.filterwarnings("ignore:This DataLoader")
@pytest.mark.parametrize(("dataset", "channels"), [("fashion-mnist-sample", 1), ("cifar10", 3)])
def test_its_batches_are_cropped_mirrored_and_normalised(dataset, channels, small):
    split = noise(small(dataset=dataset), 16).train
    loader = conventional.make_loader(split, ((0.5,) * channels, (0.25,) * channels), 16, CPU)
    assert loader.num_workers == conventional.WORKERS
    assert loader.drop_last
    images, labels = next(iter(loader))
    assert images.shape == (16, channels, 8, 8)
    assert images.dtype == torch.float32
    assert sorted(labels.tolist()) == sorted(split.labels.tolist())
    values = np.unique(np.round((images.numpy() * 0.25 + 0.5) * 255, 3))
    assert values.min() >= 0
    assert values.max() <= 255
    np.testing.assert_allclose(values, np.round(values), atol=0.01)
    assert labels.tolist() != split.labels.tolist(), "not shuffled"


def test_the_first_steps_of_an_epoch_are_not_timed(monkeypatch):
    """A clock that only ticks in steps: the warm-up's are long, the others one second."""
    loader = [(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))] * (conventional.WARM_UP + 3)
    clock, steps = [0.0], []

    class Slow:
        device = CPU

        def step(self, images, labels):
            clock[0] += 100.0 if len(steps) % len(loader) < conventional.WARM_UP else 1.0
            steps.append(1)

    monkeypatch.setattr(conventional.time, "perf_counter", lambda: clock[0])
    assert conventional.step_time(Slow(), loader, 0.0, 5) == 1.0
    assert len(steps) == 13 + conventional.WARM_UP + 2
    steps.clear()
    assert conventional.step_time(Slow(), loader, 3.0, None) == 1.0
    assert len(steps) == 13 + conventional.WARM_UP + 1, "four steps at least"
    with pytest.raises(ValueError, match="too few"):
        conventional.step_time(Slow(), loader[:3], 1.0, None)


def test_its_choice_of_kernels_ends_with_it(monkeypatch):
    seen = []

    class Watching:
        device = CPU

        def step(self, images, labels):
            seen.append(torch.backends.cudnn.benchmark)

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    loader = [(torch.zeros(1), torch.zeros(1))] * 20
    conventional.step_time(Watching(), loader, 0.0, 2)
    assert set(seen) == {True}
    assert torch.backends.cudnn.benchmark is False
