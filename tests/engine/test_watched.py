"""The images that are watched while networks train: which they are, what is reported, and that training is the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iekd.engine import accelerate, experiment
from iekd.engine.experiment import Experiment
from iekd.engine.learner import predict
from iekd.engine.metrics import Metrics, Watched
from iekd.engine.watched import IMAGES, Watch, choose
from iekd.models.normalise import Normalise


def test_the_images_are_the_first_of_each_class_in_turn():
    labels = np.array([2, 2, 0, 1, 0, 1, 1, 0, 2, 2])
    assert choose(labels, 3, 4) == (2, 4, 3, 0)  # two of the first class, one of each other
    assert choose(labels, 3, 99) == (2, 4, 7, 3, 5, 6, 0, 1, 8, 9)
    assert choose(labels, 5, 3) == (2, 3, 0)  # two classes have no images


def test_of_many_classes_the_first_the_last_and_some_between_are_watched():
    labels = np.repeat(np.arange(100), 3)
    chosen = choose(labels, 100)
    assert len(chosen) == IMAGES
    assert (labels[chosen[0]], labels[chosen[-1]]) == (0, 99)
    assert np.diff(labels[list(chosen)]).min() >= 14


def test_a_report_is_picked_from_the_logits_of_the_whole_split():
    watch = Watch((4, 1), "validation", every=3)

    def report(kind, epoch, last=False):
        for first, size in ((0, 3), (3, 2)):
            watch.see(first, torch.eye(5)[first : first + size] * 9)
        return watch.take(kind, epoch, last)

    assert report("test", 3) is None
    assert report("validation", 2) is None
    assert report("validation", 2, last=True) is not None
    classes, probabilities = report("validation", 3)
    assert classes == (4, 1)
    assert probabilities == pytest.approx(2 * (np.exp(9) / (np.exp(9) + 4),), abs=1e-4)


@pytest.fixture(params=[1, 2], ids=["one after the other", "side by side"])
def executed(request, monkeypatch, tiny, tiny_config):
    """`executed(**settings)` -> (experiment, events)."""
    monkeypatch.setattr(accelerate, "cores", lambda: request.param)

    def execute(**settings):
        made = Experiment(tiny_config(**settings), tiny)
        return made, list(made.events())

    return execute


def test_the_teacher_and_all_students_report_after_each_epoch_what_they_predict(executed):
    made, events = executed(methods=("baseline", "ie-ft", "dml"), epochs=2, validation_fraction=0.25)
    reports = [event for event in events if isinstance(event, Watched)]
    students = ["baseline-seed0", "ie-ft-seed0", "dml-seed0"]
    assert [(r.learner, r.epoch) for r in reports] == [
        ("teacher", 1.0), *((name, epoch) for epoch in (1.0, 2.0) for name in students),
    ]  # fmt: skip
    assert made.watched_split == "validation"
    split, rows = made.dataset.validation, list(made.watched)
    assert len(rows) == IMAGES
    images = torch.from_numpy(split.images[rows]).permute(0, 3, 1, 2)
    for report in reports[-3:]:
        network = made.network(made.students[report.learner])
        logits = predict(network.model, Normalise(network.mean, network.std), images, torch.device("cpu"))
        assert report.predictions == tuple(logits.argmax(-1).tolist())
        assert report.probabilities == pytest.approx(logits.softmax(-1).amax(-1).tolist(), abs=2e-4)


def test_watching_changes_nothing(executed, monkeypatch):
    settings = {"methods": ("baseline", "ie-ft"), "epochs": 2}
    made, events = executed(**settings)
    monkeypatch.setattr(experiment, "choose", lambda *_: ())
    without, others = executed(**settings)
    assert made.watched_split == "test"
    assert not any(isinstance(event, Watched) for event in others)
    assert [e for e in events if isinstance(e, Metrics)] == [e for e in others if isinstance(e, Metrics)]
    for name, learner in made.students.items():
        same = without.students[name].model.state_dict()
        assert all(torch.equal(value, same[key]) for key, value in learner.model.state_dict().items())
