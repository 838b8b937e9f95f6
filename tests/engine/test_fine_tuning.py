"""Networks that begin with somebody's weights: slower layers, a learning rate and pixels of their own."""

from __future__ import annotations

import pytest
import torch

from iekd.engine import optimizer as optimizers
from iekd.engine.experiment import Experiment
from iekd.engine.frozen_teacher import FrozenTeacher
from iekd.engine.optimizer import set_rate, student_optimizer
from iekd.engine.state import Snapshot
from iekd.models.normalise import Normalise
from iekd.models.registry import build
from iekd.models.start import Start, Starts

HEAD = ("classifier.weight", "classifier.bias")
PIXELS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.25)}


def begun_with(*new: str, seed: int = 7, **values) -> Start:
    torch.manual_seed(seed)
    state = build("resnet8", 3).state_dict()
    return Start("resnet8", {key: value for key, value in state.items() if key not in new}, new, **values)


@pytest.fixture
def config(tiny_config):
    return lambda **changes: tiny_config(
        **{"methods": ("baseline", "kd"), "teacher_from": "pretrained-by-hand", "threads": 1, **changes}
    )


def first_of_each_stage(experiment: Experiment):
    """The events, until the students have been made."""
    for event in experiment.events():
        yield event
        if experiment.students:
            return


def test_layers_with_weights_learn_at_a_share_of_the_rate_and_new_ones_at_the_whole(tiny, config):
    start = begun_with(*HEAD, **PIXELS)
    experiment = Experiment(config(teacher_lr=0.02, teacher_backbone=0.25), tiny, starts=Starts(start))
    learner = experiment._learner("teacher", "teacher", experiment._build("teacher"), _baseline(), 1, 3)
    learner.prepare()
    assert torch.equal(learner.normalise.shift, Normalise(*PIXELS.values()).shift)
    rate = learner.rate(0)
    names = {id(parameter): name for name, parameter in learner.model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in learner.optimizer.param_groups for p in group["params"]}
    assert set(rates) == set(names.values())
    assert {name for name, own in rates.items() if own == rate} == set(HEAD)
    assert all(own == rate * 0.25 for name, own in rates.items() if name not in HEAD)
    assert rate == optimizers.rate_of(config(lr=0.02), 3)(0)


def _baseline():
    from iekd.distill.method import Baseline

    return Baseline()


def test_each_group_has_a_rate_of_its_own_where_a_recorded_step_reads_it(monkeypatch, config):
    monkeypatch.setattr(optimizers, "values_on_device", lambda config, device: True)
    new, old = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    made = student_optimizer([new, old], config(), torch.device("cpu"), slow=[old])
    before = [group["lr"] for group in made.param_groups]
    set_rate(made, 0.5)
    assert [float(group["lr"]) for group in made.param_groups] == pytest.approx([0.5, 0.05])
    assert all(group["lr"] is tensor for group, tensor in zip(made.param_groups, before, strict=True))  # in place
    for parameter in (new, old):
        parameter.grad = torch.ones(2)
    made.step()
    assert (1 - new).tolist() == pytest.approx((10 * (1 - old)).tolist(), rel=1e-4)


def test_without_such_layers_there_is_one_group(tiny, config):
    learner = Experiment(config(), tiny)._learner("x", "students", build("resnet8", 3), _baseline(), 1, 3)
    assert len(learner.optimizer.param_groups) == 1


def test_students_begin_alike_but_for_what_is_new_and_each_network_has_its_own_pixels(tiny, config):
    starts = Starts(begun_with(*HEAD, **PIXELS), begun_with(*HEAD, seed=8, mean=(0.1,) * 3, std=(0.3,) * 3))
    experiment = Experiment(config(seeds=(0, 1), lr=1e-9, teacher_lr=1e-9), tiny, starts=starts)
    *_, result = experiment.events()
    assert (experiment.teacher.mean, experiment.teacher.std) == (PIXELS["mean"], PIXELS["std"])
    assert {(r.network.mean, r.network.std) for r in result.learners} == {((0.1,) * 3, (0.3,) * 3)}
    weights = {r.name: r.network.model.state_dict() for r in result.learners}
    for key, value in starts.student.weights.items():
        if "running" not in key and "num_batches" not in key:
            assert all(torch.allclose(own[key], value, atol=1e-6) for own in weights.values()), key
    heads = {name: own["classifier.weight"] for name, own in weights.items()}
    assert torch.allclose(heads["baseline-seed0"], heads["kd-seed0"], atol=1e-6)
    assert not torch.allclose(heads["baseline-seed0"], heads["baseline-seed1"], atol=1e-3)


def test_the_teachers_pixels_are_not_the_students(tiny, config):
    """Each learns from, and is tested on, images that are normalised for it."""
    experiment = Experiment(config(methods=("kd",)), tiny, starts=Starts(begun_with(**PIXELS)))
    for _ in first_of_each_stage(experiment):
        pass
    (student,) = experiment.students.values()
    teacher = FrozenTeacher(experiment.teacher, experiment.device, experiment.precision, tiny.shape)
    for normalise, numbers in ((teacher.normalise, PIXELS.values()), (student.normalise, tiny.statistics)):
        assert torch.equal(normalise.shift, Normalise(*numbers).shift)
        assert torch.equal(normalise.scale, Normalise(*numbers).scale)


def test_weights_that_nobody_loaded_are_missed(tiny, config, refuses):
    refuses(lambda: Experiment(config(student_from="run:one"), tiny), "run:one", "starts")


def test_a_peer_begins_at_random_and_sees_its_students_pixels(tiny, config):
    starts = Starts(student=begun_with(**PIXELS))
    experiment = Experiment(config(methods=("dml",), teacher="none", teacher_from="auto"), tiny, starts=starts)
    learner = experiment._make_students(3)[0]
    assert torch.equal(learner.model.conv.weight.cpu(), starts.student.weights["conv.weight"])
    assert not torch.equal(learner.peer.model.conv.weight, learner.model.conv.weight)
    for one in (learner, learner.peer):
        assert torch.equal(one.normalise.shift, Normalise(*PIXELS.values()).shift)


def test_a_resumed_fine_tuning_equals_the_whole_one(tiny, config):
    chosen, starts = config(methods=("baseline",), teacher_epochs=2), Starts(begun_with(*HEAD, **PIXELS))
    whole, kept = Experiment(chosen, tiny, starts=starts, should_snapshot=lambda: True), {}
    for event in whole.events():
        if isinstance(event, Snapshot) and event.stage == "teacher" and event.step == 3:
            kept = {"teacher": event}
        if whole.students:
            break
    again = Experiment(chosen, tiny, earlier=kept, starts=starts)
    assert list(first_of_each_stage(again))
    ours, theirs = again.teacher.model.state_dict(), whole.teacher.model.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert not torch.equal(theirs["conv.weight"], starts.teacher.weights["conv.weight"])
