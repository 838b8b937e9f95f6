"""Label smoothing, clipped gradients, averaged weights, early stopping and the smaller last batch."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iekd.config.run import make_config
from iekd.distill.method import Baseline
from iekd.engine.average import Average
from iekd.engine.batches import Batches, to_device
from iekd.engine.events import Result
from iekd.engine.experiment import Experiment
from iekd.engine.learner import Learner
from iekd.engine.metrics import Metrics
from iekd.engine.optimizer import clip
from iekd.engine.state import Snapshot
from iekd.errors import TrainingError, UserError
from iekd.models.features import Features
from iekd.models.normalise import Normalise
from iekd.models.registry import build
from iekd.runs.checkpoints import Checkpoints

CPU = torch.device("cpu")


def execute(config, dataset, earlier=None, stack=False):
    experiment = Experiment(config, dataset, None, earlier, lambda: True)
    if stack:
        experiment.shortcuts = type(experiment.shortcuts)(stack=True)
    return experiment, list(experiment.events())


def result_of(events) -> Result:
    return next(e for e in events if isinstance(e, Result))


def weights_of(events):
    return {
        f"{r.name}.{name}": tensor
        for r in result_of(events).learners
        for name, tensor in r.network.model.state_dict().items()
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_labels_are_smoothed():
    method, logits, labels = Baseline(), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    method.label_smoothing = 0.3
    soft = 0.7 * F.one_hot(labels, 3) + 0.1
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(method(Features(logits, (), (), logits), None, labels).loss, expected)


@pytest.mark.parametrize("most", [0.1, 1e6])
def test_gradients_are_clipped_as_torch_does_it_and_each_network_of_a_stack_for_itself(most):
    torch.manual_seed(0)
    shapes = [(3, 4), (5,), ()]
    networks = [[nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2)]
    stack = [nn.Parameter(torch.zeros(2, *shape)) for shape in shapes]
    for k, parameters in enumerate(networks):
        for p, stacked in zip(parameters, stack, strict=True):
            p.grad = torch.randn(p.shape) * (k + 1)
            stacked.grad = torch.zeros_like(stacked) if stacked.grad is None else stacked.grad
            stacked.grad[k] = p.grad
    ours = copy.deepcopy(networks[0])
    for p, q in zip(ours, networks[0], strict=True):
        p.grad = q.grad.clone()
    clip(ours, most)
    clip(stack, most, 2)
    for parameters in networks:
        nn.utils.clip_grad_norm_(parameters, most)
    for i, stacked in enumerate(stack):
        torch.testing.assert_close(ours[i].grad, networks[0][i].grad)
        torch.testing.assert_close(stacked.grad, torch.stack([parameters[i].grad for parameters in networks]))


def test_the_average_follows_the_weights_and_the_statistics():
    network = nn.BatchNorm2d(2)
    average = Average(network, 0.9, CPU, False)
    for step, share in enumerate([1 - 1 / 10, 1 - 2 / 11, 1 - 3 / 12]):
        before = {name: tensor.clone() for name, tensor in average.network.state_dict().items()}
        with torch.no_grad():
            network.weight += 1
            network.running_mean += 2
            network.num_batches_tracked += 1
        average.prepare(step)
        average.follow(network)
        for name, tensor in average.network.state_dict().items():
            newest = network.state_dict()[name]
            expected = before[name] + share * (newest - before[name]) if tensor.is_floating_point() else newest
            torch.testing.assert_close(tensor, expected)
    average.prepare(10_000)
    assert average.share == pytest.approx(0.1)


def test_what_is_averaged_is_tested_and_saved(tiny, tiny_config):
    values = {"methods": ("baseline",), "teacher": "none", "epochs": 2, "seeds": (0, 1)}
    experiment, events = execute(tiny_config(**values, ema=0.5), tiny)
    plain = weights_of(execute(tiny_config(**values), tiny)[1])
    for name, learner in experiment.students.items():
        assert_same(learner.average.network.state_dict(), experiment.network(learner).model.state_dict())
        assert all(p.requires_grad for p in learner.chosen.parameters()), "whoever gets it may train it further"
        raw = learner.model.state_dict()
        assert_same(raw, {key.removeprefix(f"{name}."): t for key, t in plain.items() if key.startswith(f"{name}.")})
    assert not all(torch.equal(tensor, plain[name]) for name, tensor in weights_of(events).items())
    stacked = weights_of(execute(tiny_config(**values, ema=0.5), tiny, stack=True)[1])
    for name, tensor in weights_of(events).items():
        torch.testing.assert_close(tensor, stacked[name], rtol=0.02, atol=0.02)


@pytest.fixture
def peaks(monkeypatch):
    """Validation accuracy is best after epoch 1 for seed 0, and rises for ever for seed 1."""
    right = Learner.end_of_split

    def end_of_split(self, kind):
        rows = right(self, kind)
        if kind == "validation" and rows:
            epoch = self.steps // self.steps_per_epoch
            self.accuracy[kind] = 100.0 / epoch if self.name.endswith("seed0") else float(epoch)
        return rows

    monkeypatch.setattr(Learner, "end_of_split", end_of_split)


@pytest.mark.parametrize("stack", [False, True])
def test_one_that_stops_early_keeps_its_best_weights_and_the_others_go_on(tiny, tiny_config, peaks, stack):
    values = {
        "methods": ("baseline",), "teacher": "none", "validation_fraction": 0.25, "seeds": (0, 1), "schedule": "cosine",
    }  # fmt: skip
    experiment, events = execute(tiny_config(**values, epochs=5, patience=2), tiny, stack=stack)
    first, second = result_of(events).learners
    epochs = {
        r.name: max(e.epoch for e in events if isinstance(e, Metrics) and e.learner == r.name) for r in (first, second)
    }
    assert epochs == {first.name: 3, second.name: 5}
    assert (first.best_epoch, second.best_epoch) == (1, 5)
    assert first.accuracy_last == first.accuracy_best == experiment.students[first.name].test_accuracy
    snapshots = [e for e in events if isinstance(e, Snapshot)]
    first_epoch = next(s for s in snapshots if s.step == experiment.students[first.name].steps_per_epoch)
    for name, tensor in first.network.model.state_dict().items():
        assert torch.equal(tensor, first_epoch.states[first.name].weights[f"model.{name}"]), name
    for snapshot in (snapshots[2], snapshots[-2]):
        assert_same(
            weights_of(events),
            weights_of(execute(tiny_config(**values, epochs=5, patience=2), tiny, {"students": snapshot}, stack)[1]),
        )


def test_a_stage_ends_once_all_have_stopped_and_is_resumed_as_ended(tiny, tiny_config, peaks):
    config = tiny_config(
        methods=("baseline", "dml"), teacher="none", validation_fraction=0.25, epochs=9, patience=1, ema=0.9
    )
    experiment, events = execute(config, tiny)
    last = [e for e in events if isinstance(e, Snapshot)][-1]
    assert last.step == 2 * experiment.students["dml-seed0"].steps_per_epoch
    again = execute(config, tiny, {"students": last})[1]
    assert not any(isinstance(e, (Metrics, Snapshot)) for e in again)
    assert_same(weights_of(events), weights_of(again))


def test_what_the_options_remember_survives_on_disk(tiny, tiny_config, tmp_path):
    values = {"methods": ("baseline",), "teacher": "none", "validation_fraction": 0.25, "epochs": 2}
    config = tiny_config(**values, optimizer="adamw", lr=1e-3, ema=0.9, patience=5, label_smoothing=0.1, clip_norm=1)
    events = execute(config, tiny)[1]
    Checkpoints(tmp_path).write(next(e for e in events if isinstance(e, Snapshot)), {})
    (read,) = Checkpoints(tmp_path).newest().values()
    kinds = {key.partition("#")[2] for key in read.snapshot.states["baseline-seed0"].momentum}
    assert kinds == {"exp_avg", "exp_avg_sq", "step"}
    assert_same(weights_of(events), weights_of(execute(config, tiny, {"students": read.snapshot})[1]))


def test_stopping_early_needs_images_to_watch(tiny, tiny_config):
    with pytest.raises(UserError, match=r"Patience '3' cannot be used.*validation"):
        make_config(patience=3, validation_fraction=0)
    config = tiny_config(methods=("baseline",), teacher="none", patience=3, validation_fraction=0.001)
    with pytest.raises(TrainingError, match="too few images"):
        execute(config, tiny)


@pytest.mark.parametrize(("images", "sizes"), [(24, [8, 8, 8]), (22, [8, 8, 6]), (17, [8, 8]), (5, [5])])
def test_the_smaller_batch_is_kept_unless_it_is_a_single_image(images, sizes):
    pixels, labels = torch.zeros(images, 3, 8, 8, dtype=torch.uint8), torch.arange(images)
    batches = Batches(pixels, labels, 8, 0, drop_last=False)
    for epoch in range(2):
        found = [rows for _, rows in batches.epoch(epoch)]
        assert [len(rows) for rows in found] == sizes
        assert len(torch.cat(found).unique()) == sum(sizes)
    assert len(batches) == len(sizes)
    assert [len(rows) for _, rows in Batches(pixels, labels, 8, 0).epoch(0)] == [n for n in sizes if n in (8, 5)]


def test_a_recorded_step_leaves_a_smaller_batch_to_the_plain_one(tiny, tiny_config, monkeypatch):
    from iekd.engine import accelerate

    seen = []
    monkeypatch.setattr(accelerate, "_cuda_capture", lambda work: lambda: (seen.append(1), work()))
    values = {"methods": ("baseline",), "teacher": "none", "epochs": 2, "batch_size": 10, "drop_last": False}
    plain = execute(tiny_config(**values), tiny)[1]
    experiment = Experiment(tiny_config(**values), tiny)
    experiment.shortcuts = type(experiment.shortcuts)(graph=True)
    events = list(experiment.events())
    steps = experiment.students["baseline-seed0"].steps_per_epoch
    assert len(tiny.train) % 10 > 1, "there is a smaller one"
    assert len(seen) == 3 + 2 * (steps - 1), "those that are compared, and the whole batches of two epochs"
    assert_same(weights_of(plain), weights_of(events))


def test_one_step_of_all_of_it_is_finite(tiny):
    config = make_config(
        optimizer="adamw", lr=1e-3, clip_norm=1, ema=0.9, label_smoothing=0.1, warm_up=0.5, schedule="cosine"
    )
    torch.manual_seed(0)
    learner = Learner(
        "one", "students", build("resnet8", 3), Baseline(), Normalise(*tiny.statistics), config,
        epochs=1, steps_per_epoch=4, device=CPU, precision=torch.float32, report_every=1,
    )  # fmt: skip
    images, labels = to_device(tiny.train, CPU)
    rates = []
    for _ in range(4):
        (row,) = (e for e in learner.step(images[:8], labels[:8], None) if isinstance(e, Metrics))
        rates.append(learner.optimizer.param_groups[0]["lr"])
        assert row.values["loss"] > 0
    assert rates == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 0.5e-3])
