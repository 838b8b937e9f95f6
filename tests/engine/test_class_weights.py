"""`--class-weights balanced`: what it weighs, for every method, and whichever way the step is computed."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from iekd.config.methods import METHODS
from iekd.distill.method import Baseline
from iekd.engine.accelerate import Shortcuts
from iekd.engine.events import TrainedModel
from iekd.engine.experiment import Experiment
from iekd.engine.metrics import Metrics
from iekd.engine.state import Snapshot
from iekd.models.features import Features
from iekd.models.registry import build


@pytest.fixture(scope="module")
def uneven(tiny):
    """The tiny dataset with 32, 16 and 4 training images of its classes."""
    rows = np.concatenate([np.flatnonzero(tiny.train.labels == k)[:n] for k, n in enumerate((32, 16, 4))])
    return replace(tiny, train=tiny.train.take(np.sort(rows)))


@pytest.fixture
def config(tiny_config):
    return lambda **values: tiny_config(
        **{
            "class_weights": "balanced", "teacher": "resnet14", "epochs": 2, "lr": 0.02, "batch_size": 16,
            "validation_fraction": 0.0, **values,
        }
    )  # fmt: skip


@pytest.fixture
def teacher(tiny) -> TrainedModel:
    torch.manual_seed(5)
    return TrainedModel(build("resnet14", 3), *tiny.statistics)


def execute(config, dataset, teacher=None, earlier=None, **shortcuts):
    experiment = Experiment(config, dataset, copy.deepcopy(teacher), earlier, lambda: True)
    experiment.shortcuts = Shortcuts(**shortcuts)
    return experiment, list(experiment.events())


def weights(experiment):
    return {
        f"{name}.{key}": value
        for name, learner in experiment.students.items()
        for key, value in learner.model.state_dict().items()
    }


def test_a_class_weighs_what_scikit_learn_calls_balanced(uneven, config):
    found = Experiment(config(teacher="none", methods=("baseline",)), uneven).class_weights()
    assert found.tolist() == pytest.approx([52 / (3 * 32), 52 / (3 * 16), 52 / (3 * 4)])
    assert Experiment(config(class_weights="none"), uneven).class_weights() is None


def test_a_class_without_images_is_not_counted(uneven, config):
    some = replace(uneven, train=uneven.train.take(np.flatnonzero(uneven.train.labels != 1)))
    found = Experiment(config(teacher="none", methods=("baseline",)), some).class_weights()
    assert found.tolist() == pytest.approx([36 / (2 * 32), 0, 36 / (2 * 4)])


def test_the_loss_is_the_weighted_mean():
    torch.manual_seed(0)
    logits, labels, factors = torch.randn(6, 3), torch.tensor([0, 0, 1, 2, 0, 1]), torch.tensor([0.5, 1.0, 4.0])
    method = Baseline()
    method.class_weights = factors
    each = -log_softmax(logits, 1)[torch.arange(6), labels]
    expected = sum(factors[k] * loss for k, loss in zip(labels, each, strict=True)) / factors[labels].sum()
    torch.testing.assert_close(method(Features(logits, (), None, logits), None, labels).loss, expected)
    assert not method.state_dict()  # follows from the images: checkpoints of both settings fit


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_weighs_its_labels(uneven, teacher, config, method):
    chosen = {"methods": (method,), "epochs": 1}
    weighed, _ = execute(config(**chosen), uneven, teacher)
    plain, _ = execute(config(class_weights="none", **chosen), uneven, teacher)
    if method == "kd":  # nothing of the labels is left where KD's weight is one
        without = [execute(config(class_weights=w, kd_weight=1.0, **chosen), uneven, teacher)[0] for w in WEIGHTS]
        assert all(torch.equal(a, b) for a, b in zip(*(weights(w).values() for w in without), strict=True))
    different = [not torch.equal(a, weights(plain)[name]) for name, a in weights(weighed).items()]
    assert any(different)


WEIGHTS = ("none", "balanced")


@pytest.mark.parametrize("shortcuts", [{"side_by_side": True}, {"stack": True}])
def test_every_way_to_compute_the_step_gives_the_same(uneven, teacher, config, shortcuts):
    chosen = config(methods=("baseline", "ie-ft+kd"), seeds=(0, 1))
    plain, _ = execute(chosen, uneven, teacher)
    other, _ = execute(chosen, uneven, teacher, **shortcuts)
    for name, value in weights(plain).items():
        torch.testing.assert_close(value, weights(other)[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("shortcuts", [{}, {"stack": True}])
def test_training_goes_on_with_the_same_weights(uneven, teacher, config, shortcuts):
    chosen = config(methods=("baseline",), seeds=(0, 1))
    experiment, events = execute(chosen, uneven, teacher, **shortcuts)
    snapshot = next(e for e in events if isinstance(e, Snapshot) and 0 < e.step < 6)
    again, later = execute(chosen, uneven, teacher, {"students": snapshot}, **shortcuts)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(experiment).items())
    assert [e for e in events if isinstance(e, Metrics)][-1] == [e for e in later if isinstance(e, Metrics)][-1]


def test_the_teacher_that_the_run_trains_is_weighed_too(uneven, config):
    teachers = [execute(config(class_weights=w, methods=("kd",)), uneven)[0].teacher for w in WEIGHTS]
    one, other = (t.model.state_dict().values() for t in teachers)
    assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
