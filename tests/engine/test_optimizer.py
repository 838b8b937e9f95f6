"""Compared with the formulas of SGD, and with torch's own optimiser and schedules."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

from iekd.config.presets import PRESETS
from iekd.config.run import make_config
from iekd.engine.optimizer import (
    ADAMW,
    FIRST,
    MOMENTUM,
    SECOND,
    SGD,
    STEP,
    memory_of,
    one_cycle,
    put_memory,
    rate_of,
    student_optimizer,
)


def rates(name: str, steps: int, lr: float = 0.1, **values) -> list[float]:
    """The learning rate of every optimisation step."""
    rate = rate_of(make_config(schedule=name, lr=lr, **values), steps)
    return [rate(step) for step in range(steps)]


def torch_rates(make, steps: int, lr: float = 0.1) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = make(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return seen


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["one-cycle", "cosine", "multi-step"]), st.integers(1, 300), st.floats(1e-4, 10))
def test_every_schedule_lasts_as_long_as_training(name, steps, lr):
    rate = rate_of(make_config(schedule=name, lr=lr), steps)
    assert all(0 <= rate(step) <= lr * (1 + 1e-9) for step in range(steps + 1)), "a row after the last step has one too"


@pytest.mark.parametrize("steps", range(1, 40))
@pytest.mark.parametrize("name", ["one-cycle", "cosine", "multi-step"])
def test_short_trainings_have_a_schedule_too(name, steps):
    assert max(rates(name, steps)) >= 0.05, "a training without a learning rate"


@pytest.mark.parametrize("steps", [4, 5, 8, 90, 400])
def test_one_cycle_is_that_of_torch(steps):
    expected = torch_rates(
        lambda o: OneCycleLR(o, 0.1, total_steps=steps, pct_start=max(0.25, 2 / steps), cycle_momentum=False), steps
    )
    np.testing.assert_allclose(rates("one-cycle", steps), expected, rtol=1e-9)


@pytest.mark.parametrize("steps", [2, 3, 4, 7, 200])
def test_the_auto_encoders_cycle_is_that_of_torch(steps):
    expected = torch_rates(lambda o: OneCycleLR(o, 0.1, total_steps=steps, cycle_momentum=False), steps)
    np.testing.assert_allclose([one_cycle(0.1, steps, 0.3, i) for i in range(steps)], expected, rtol=1e-9)


def test_one_cycle_rises_for_a_quarter_and_falls_to_nothing():
    seen = rates("one-cycle", 200)
    top = int(np.argmax(seen))
    assert 45 <= top <= 55
    assert seen[top] == pytest.approx(0.1, rel=1e-3)
    assert seen[:top] == sorted(seen[:top])
    assert seen[top:] == sorted(seen[top:], reverse=True)
    assert seen[0] < 0.01
    assert seen[-1] < 1e-4


def test_cosine_is_that_of_torch():
    np.testing.assert_allclose(rates("cosine", 50), torch_rates(lambda o: CosineAnnealingLR(o, 50), 50), rtol=1e-9)


def test_multi_step_is_that_of_torch():
    expected = torch_rates(lambda o: MultiStepLR(o, [30, 60, 80], gamma=0.1), 100)
    np.testing.assert_allclose(rates("multi-step", 100, milestones=(0.3, 0.6, 0.8)), expected)


def test_multi_step_divides_by_ten_at_a_half_and_three_quarters():
    np.testing.assert_allclose(rates("multi-step", 80), [0.1] * 40 + [0.01] * 20 + [0.001] * 20)


def test_multi_step_divides_where_it_is_told():
    """The CRD benchmark: 240 epochs, divided at 150, 180 and 210."""
    seen = rates("multi-step", 240, lr=0.05, milestones=PRESETS["crd"].values["milestones"])
    np.testing.assert_allclose(seen, [0.05] * 150 + [0.005] * 30 + [0.0005] * 30 + [0.00005] * 30)


FORMS = pytest.mark.parametrize(
    "values",
    [
        {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
        {"momentum": 0.9, "weight_decay": 0, "nesterov": False},
        {"momentum": 0, "weight_decay": 0.1, "nesterov": False},
    ],
    ids=["nesterov", "momentum", "plain"],
)


@FORMS
def test_steps_follow_the_formula(values):
    """v <- m v + g + w p, then p <- p - r v, or p - r (g + w p + m v) in Nesterov's form; g = 2 (p - t)."""
    rng = np.random.default_rng(0)
    p, t, v = rng.normal(size=5), rng.normal(size=5), np.zeros(5)
    parameter = nn.Parameter(torch.tensor(p))
    optimizer = SGD([parameter], 0.1, **values)
    for rate in (0.1, 0.2, 0.05, 0.1):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        (parameter - torch.tensor(t)).square().sum().backward()
        optimizer.step()
        g = 2 * (p - t) + values["weight_decay"] * p
        v = values["momentum"] * v + g
        p = p - rate * (g + values["momentum"] * v if values["nesterov"] else v)
        np.testing.assert_allclose(parameter.detach().numpy(), p, rtol=1e-12)


@pytest.mark.parametrize("fused", [False, True])
@FORMS
def test_a_step_is_that_of_torch(values, fused):
    """Bit for bit, with a rate that changes, and a parameter that gets its first gradient late (torch's fused kernel
    cannot do that)."""
    torch.manual_seed(0)
    start = [torch.randn(3, 4, 2, 2).contiguous(memory_format=torch.channels_last), torch.randn(5), torch.randn(7)]
    own, theirs = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    lr = torch.tensor(0.1) if fused else 0.1
    optimizer, reference = SGD(own, lr, fused=fused, **values), torch.optim.SGD(theirs, 0.1, fused=fused, **values)
    for step in range(5):
        optimizer.zero_grad()
        reference.zero_grad()
        rate = 0.1 / (step + 1)
        if fused:
            lr.fill_(rate)
        else:
            optimizer.param_groups[0]["lr"] = rate
        reference.param_groups[0]["lr"] = rate
        for parameters in (own, theirs):
            used = parameters if step > 1 or fused else parameters[:2]
            sum((step + i + p).pow(2).sum() for i, p in enumerate(used)).backward()
        optimizer.step()
        reference.step()
        for a, b in zip(own, theirs, strict=True):
            assert torch.equal(a, b) or (fused and torch.allclose(a, b, rtol=1e-6)), step  # a float32 rate there
    assert len(memory_of(optimizer)) == (3 if values["momentum"] else 0)


def test_momentum_can_be_put():
    parameter = nn.Parameter(torch.zeros(2, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    optimizer = SGD([parameter], 1.0, momentum=0.5, weight_decay=0, nesterov=False)
    put_memory(optimizer, parameter, MOMENTUM, torch.full((2, 3, 2, 2), 4.0))
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert torch.equal(parameter, torch.full_like(parameter, -3.0))
    assert memory_of(optimizer)[parameter][MOMENTUM].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("on_device", [False, True])
def test_a_step_of_adamw_is_that_of_torch_and_goes_on_from_what_is_remembered(on_device, monkeypatch):
    """`on_device`: as on a GPU, where the rate is a tensor. Matrices have weight decay, vectors have none."""
    monkeypatch.setattr("iekd.engine.optimizer.values_on_device", lambda config, device: on_device)
    config, cpu = make_config(optimizer="adamw", lr=0.01, weight_decay=0.5), torch.device("cpu")
    torch.manual_seed(0)
    start = [torch.randn(3, 4, 2, 2), torch.randn(5)]
    own, theirs = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    optimizer = student_optimizer(own, config, cpu)
    groups = [{"params": theirs[:1], "weight_decay": 0.5}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01)

    def step(one, parameters):
        one.zero_grad()
        sum((i + p).pow(2).sum() for i, p in enumerate(parameters)).backward()
        one.step()

    for _ in range(3):
        step(optimizer, own)
        step(reference, theirs)
    again = student_optimizer(own, config, cpu)
    for parameter, found in memory_of(optimizer).items():
        assert set(found) == {FIRST, SECOND, STEP}
        for kind, value in found.items():
            put_memory(again, parameter, kind, value)
    assert isinstance(optimizer, ADAMW)
    step(again, own)
    step(reference, theirs)
    for a, b in zip(own, theirs, strict=True):
        assert torch.equal(a, b) or (on_device and torch.allclose(a, b, rtol=1e-5))
    stacked = student_optimizer(
        [nn.Parameter(torch.zeros(2, 5)), nn.Parameter(torch.zeros(2, 3, 4))], config, cpu, True
    )
    assert [g["weight_decay"] for g in stacked.param_groups] == [0.5, 0.0], "a vector of each of two networks"


def test_a_training_does_not_wait_for_the_compiler(tmp_path, tiny_config):
    """Its import is seconds of a run's start."""
    words = [
        *tiny_config(methods=("ie-ft",), optimizer="adamw").command_line().split()[1:],
        "--runs-dir",
        str(tmp_path),
    ]
    code = (
        f"import sys; from iekd.cli.main import app; app({words}, standalone_mode=False); "
        "print('torch' in sys.modules, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1:] == ["True False"], done.stderr[-2000:]
