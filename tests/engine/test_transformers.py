"""Networks of transformers at work in the engine: as a frozen teacher, and as the stacked seeds of a method."""

from __future__ import annotations

import copy
import logging
import math

import numpy as np
import pytest
import torch

from iekd.engine.accelerate import Shortcuts
from iekd.engine.events import TrainedModel
from iekd.engine.experiment import Experiment
from iekd.engine.frozen_teacher import FrozenTeacher
from iekd.engine.metrics import Metrics
from iekd.models import hub_configs
from iekd.models.registry import build

pytest.importorskip("transformers", reason="the extra iekd[transformers] is not installed")
CONFIGS = {
    "vit": {
        "architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "image_size": 16, "patch_size": 8,
    },
    "vit-with-dropout": {
        "architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "image_size": 16, "patch_size": 8,
        "hidden_dropout_prob": 0.1,
    },
    "resnet": {
        "architectures": ["ResNetForImageClassification"], "model_type": "resnet", "embedding_size": 8,
        "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic",
    },
}  # fmt: skip


@pytest.fixture
def named(monkeypatch):
    """`named(kind)`: the name of a network of transformers, which is known as a run's folder makes it known."""
    monkeypatch.setattr(hub_configs, "_known", {})

    def name(kind: str) -> str:
        given = f"hf:ann/{kind}@{'0' * 40}"
        hub_configs.remember({given: CONFIGS[kind]})
        return given

    return name


def execute(config, dataset, **shortcuts):
    experiment = Experiment(config, dataset)
    experiment.shortcuts = Shortcuts(**shortcuts)
    return list(experiment.events())


def losses(events, name):
    found = [e for e in events if isinstance(e, Metrics) and (e.learner, e.kind) == (name, "train")]
    return [event.values["loss"] for event in found]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_frozen_teacher_answers_as_it_was(tiny, named, caplog, kind):
    torch.manual_seed(0)
    network = build(named(kind), 3)
    images = torch.from_numpy(tiny.train.images[:8]).permute(0, 3, 1, 2)
    with torch.no_grad():
        network.train()(images / 255)  # statistics of batch norms, so that folding them changes something
    before = copy.deepcopy(network.state_dict())
    with caplog.at_level(logging.WARNING):
        teacher = FrozenTeacher(
            TrainedModel(network, (0.0,) * 3, (1.0,) * 3), torch.device("cpu"), torch.float32, (3, 16, 16)
        )
    with torch.no_grad():
        expected, answer = network.eval()(images / 255), teacher(images).features
    torch.testing.assert_close(answer.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer.pooled, expected.pooled, rtol=1e-4, atol=1e-5)
    for one, other in zip(answer.stages, expected.stages, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    norms = [layer for layer in teacher.model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert not norms or any("runs as it is" in message for message in caplog.messages)


@pytest.mark.parametrize("kind", CONFIGS)
def test_seeds_are_stacked_or_train_one_by_one_with_a_line_in_the_log(tiny, tiny_config, named, caplog, kind):
    few = type(tiny)("few", tiny.class_names, tiny.train, tiny.test.take(np.arange(6)))
    config = tiny_config(
        methods=("baseline",), teacher="none", seeds=(0, 1), student=named(kind), limit_train=16, batch_size=8, lr=0.02
    )
    with caplog.at_level(logging.WARNING):
        together = execute(config, few, stack=True)
    alone = execute(config, few)
    stepped_aside = any("Seeds cannot be stacked" in message for message in caplog.messages)
    assert stepped_aside == (kind == "vit-with-dropout"), caplog.messages
    for name in ("baseline-seed0", "baseline-seed1"):
        found = losses(together, name)
        assert found
        assert all(map(math.isfinite, found))
        if not stepped_aside:
            assert found == pytest.approx(losses(alone, name), rel=1e-3)
    assert losses(together, "baseline-seed0") != losses(together, "baseline-seed1")
