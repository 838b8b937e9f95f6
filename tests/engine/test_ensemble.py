"""Several teachers as one: the mean of their logits by hand, whatever each was normalised with."""

from __future__ import annotations

import copy

import pytest
import torch

from iekd.engine.ensemble import Ensemble, Member
from iekd.engine.events import Result, TrainedModel
from iekd.engine.experiment import TEACHER, Experiment
from iekd.engine.frozen_teacher import FrozenTeacher
from iekd.models.normalise import Normalise
from iekd.models.registry import build

NORMS = (((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), ((0.1, 0.2, 0.6), (0.5, 0.2, 0.1)))


@pytest.fixture(scope="module")
def teachers() -> list[TrainedModel]:
    made = []
    for seed, (mean, std) in enumerate(NORMS):
        torch.manual_seed(seed)
        made.append(TrainedModel(build(("resnet8", "resnet14")[seed], 3, 3).eval(), mean, std))
    return made


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def alone(teacher: TrainedModel, images):
    with torch.no_grad():
        return teacher.model(Normalise(teacher.mean, teacher.std)(images))


def test_logits_are_averaged_and_features_are_the_first_ones(teachers, images):
    whole = Ensemble([Member(t.model, t.mean, t.std) for t in teachers]).eval()
    first, second = (alone(t, images) for t in teachers)
    with torch.no_grad():
        found = whole(Normalise(*NORMS[0])(images))
    torch.testing.assert_close(found.logits, (first.logits + second.logits) / 2, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(found.stages, first.stages, strict=True))
    # the mean of logits is the normalised geometric mean of the predictions, at any temperature
    for temperature in (1, 4):
        p, q = ((f.logits / temperature).softmax(1) for f in (first, second))
        geometric = (p * q).sqrt()
        geometric = geometric / geometric.sum(1, keepdim=True)
        torch.testing.assert_close((found.logits / temperature).softmax(1), geometric, rtol=1e-3, atol=1e-5)
    frozen = FrozenTeacher(TrainedModel(whole, *NORMS[0]), torch.device("cpu"), torch.float32, (3, 16, 16))
    torch.testing.assert_close(frozen(images).features.logits, found.logits, rtol=1e-3, atol=1e-4)


def test_a_run_learns_from_and_reports_all_of_them(tiny, tiny_config, teachers):
    def execute(more):
        config = tiny_config(methods=("baseline", "kd"), lr=0.02)
        experiment = Experiment(config, tiny, copy.deepcopy(teachers[0]), more_teachers=copy.deepcopy(more))
        result = list(experiment.events())[-1]
        assert isinstance(result, Result)
        return experiment.students, result

    one, with_one = execute([])
    two, with_two = execute(teachers[1:])

    def same(name):
        a, b = (students[f"{name}-seed0"].model.state_dict() for students in (one, two))
        return all(torch.equal(a[k], b[k]) for k in a)

    assert same("baseline")
    assert not same("kd")
    assert with_two.teacher.name == TEACHER
    test = torch.from_numpy(tiny.test.images).permute(0, 3, 1, 2)
    expected = sum(alone(t, test).logits for t in teachers).argmax(1)
    assert (with_two.teacher.predictions == expected).float().mean() > 0.95, "rounding apart"
    assert not torch.equal(with_one.teacher.predictions, with_two.teacher.predictions)
