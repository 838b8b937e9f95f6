"""Networks that draw random numbers in training are repeatable: alone, beside others, and after a stop."""

from __future__ import annotations

import threading

import pytest
import torch

from iekd.engine.accelerate import Shortcuts
from iekd.engine.draws import StepDraws
from iekd.engine.events import Result
from iekd.engine.experiment import Experiment
from iekd.engine.state import Snapshot
from iekd.models import hub_configs


@pytest.fixture
def dropping(monkeypatch):
    """A small network of timm with dropout."""
    monkeypatch.setattr(hub_configs, "_known", {})
    name = f"hf:ann/dropping@{'0' * 40}"
    hub_configs.remember({name: {"architecture": "test_resnet", "model_args": {"drop_rate": 0.3}}})
    return name


@pytest.fixture
def trained(tiny, tiny_config, monkeypatch):
    """`trained(student, **settings)`: (every student's weights, the experiment, its events)."""
    monkeypatch.setattr(Experiment, "_report_every", 1)

    def train(student, earlier=None, side_by_side=True, **values):
        settings = {"methods": ("baseline",), "teacher": "none", "threads": 2, "lr": 0.02, "limit_train": 64, **values}
        config = tiny_config(student=student, **settings)
        experiment = Experiment(config, tiny, None, earlier, lambda: True)
        experiment.shortcuts = Shortcuts(side_by_side=side_by_side)
        events = list(experiment.events())
        (result,) = (event for event in events if isinstance(event, Result))
        weights = {f"{one.name}.{k}": t for one in result.learners for k, t in one.network.model.state_dict().items()}
        return weights, experiment, events

    return train


def same(one, other, prefix=""):
    names = [name for name in one if name.startswith(prefix)]
    assert names
    return all(torch.equal(one[name], other[name]) for name in names)


def test_what_is_drawn_depends_on_the_name_the_step_and_the_part_only():
    def drawn(name="a", step=3, part=0):
        with StepDraws(name, True).of_step(step, part):
            return torch.rand(4).tolist()

    before = torch.default_generator.get_state()
    assert drawn() == drawn()
    assert len({tuple(drawn(**other)) for other in ({}, {"name": "b"}, {"step": 4}, {"part": 1})}) == 4
    assert torch.equal(torch.default_generator.get_state(), before), "nobody else's numbers change"


def test_nobody_else_draws_meanwhile_and_who_draws_nothing_waits_once_only():
    one, other, never = StepDraws("a", True), StepDraws("b", True), StepDraws("c", False)
    entered = threading.Event()

    def draw():
        with other.of_step(0):
            entered.set()

    thread = threading.Thread(target=draw)
    with one.of_step(0), never.of_step(0):
        thread.start()
        assert not entered.wait(0.2)
    thread.join(10)
    assert entered.is_set()
    assert one.drawing is other.drawing is never.drawing is False
    with one.of_step(1), other.of_step(1):
        pass  # would wait for itself


def test_a_student_with_dropout_is_the_same_alone_and_beside_others(trained, dropping):
    """One thread, because sums of several are rounded in other ways."""
    values = {"threads": 1}
    together, experiment, _ = trained(dropping, methods=("baseline", "dml"), seeds=(0, 1), **values)
    assert all(student.draws.drawing for student in experiment.students.values())
    for method in ("baseline", "dml"):
        alone, _, _ = trained(dropping, methods=(method,), seeds=(1,), **values)
        assert same(alone, together, f"{method}-seed1.")
    assert not same(together, trained(dropping, threads="auto", seeds=(0,))[0], "baseline-seed0."), "dropout does draw"


def test_students_that_draw_at_the_same_time_are_the_same_again(trained, dropping):
    first, _, _ = trained(dropping, seeds=(0, 1, 2), epochs=2)
    torch.rand(7)  # other numbers than before
    assert same(first, trained(dropping, seeds=(0, 1, 2), epochs=2)[0])


def test_a_student_with_dropout_goes_on_as_if_it_had_not_stopped(trained, dropping):
    whole, _, events = trained(dropping, seeds=(0, 1), epochs=2)
    snapshots = [event for event in events if isinstance(event, Snapshot) and event.stage == "students"]
    middle = next(one for one in snapshots if one.step == 2)
    torch.rand(7)  # another process has drawn other numbers
    assert same(whole, trained(dropping, {"students": middle}, seeds=(0, 1), epochs=2)[0])


def test_networks_that_draw_nothing_keep_their_numbers(trained):
    plain, _, _ = trained("resnet8", threads="auto", seeds=(0, 1))
    fixed, experiment, _ = trained("resnet8", seeds=(0, 1))
    assert same(plain, fixed)
    assert not any(student.draws.drawing for student in experiment.students.values())
