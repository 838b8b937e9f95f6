"""What every network has to do, whatever it is made of. What only one family does is tested beside this file."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn

from iekd.engine.accelerate import freeze
from iekd.models.artifact import ModelCard, load_model, save_model
from iekd.models.catalog import known_models, models
from iekd.models.features import Classifier, Features
from iekd.models.registry import FAMILIES, build, builders

CLASSES = 7
LINEAR_ENDS = {"mobilenet-v2-crd": 3}  # stage ends, from the first, that have no activation


def images(batch=2, channels=3, side=32):
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(0))


def on_paper(name, classes=CLASSES, channels=3):
    """The network without numbers."""
    with torch.device("meta"):
        return build(name, classes, channels).eval()


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.fixture(scope="module", params=known_models())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    """In evaluation mode, with batch norms as after training: none of their numbers is the initial one."""
    torch.manual_seed(0)
    model = build(name, CLASSES)
    for norm in norms_of(model):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images(8, side=16))
    for norm in norms_of(model):
        norm.momentum = 0.1
    return model.eval()


def close(a, b):
    return (a - b).abs().max() <= 1e-4 * max(1, b.abs().max())


@pytest.mark.parametrize(("channels", "sides"), [(1, (8, 33)), (3, (28, 32, 64))])
def test_features_have_the_shapes_of_the_catalog(name, channels, sides):
    info, model = models()[name], on_paper(name, 2, channels)
    assert isinstance(model, Classifier)
    for side in sides:
        f = model(torch.zeros(1, channels, side, side, device="meta"))
        assert isinstance(f, Features)
        assert f.logits.shape == (1, 2)
        assert f.pooled.shape == (1, info.feature_channels)
        ends = [-(-side // stride) for stride in info.stage_strides]
        expected = [(1, c, s, s) for c, s in zip(info.stage_channels, ends, strict=True)]
        assert [tuple(s.shape) for s in f.stages] == expected
        assert [tuple(s.shape) for s in f.pre_activations] == expected


@torch.no_grad()
def test_features_hang_together(name, network):
    f = network(images(1))
    for i, (after, before) in enumerate(zip(f.stages, f.pre_activations, strict=True)):
        assert (before < 0).any()
        assert torch.equal(after, before if i < LINEAR_ENDS.get(name, 0) else before.clamp(min=0))
    assert torch.allclose(f.pooled, f.stages[-1].mean((2, 3)), atol=1e-6)
    (classifier,) = (m for m in network.modules() if isinstance(m, nn.Linear))
    assert close(f.logits, f.pooled @ classifier.weight.T + classifier.bias)


@torch.no_grad()
def test_evaluation_judges_each_image_by_itself(network):
    batch = images(2, side=8)
    together = network(batch).logits
    assert together.isfinite().all()
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    assert close(torch.cat([network(batch[:1]).logits, network(batch[1:]).logits]), together)


@torch.no_grad()
def test_a_frozen_network_computes_the_same(network):
    """In double precision, where rounding is far below 1e-4 even in the deepest; test_accelerate.py has float32."""
    network, batch = copy.deepcopy(network).double(), images(2, side=16).double()
    expected, frozen = network(batch), freeze(network)(batch)
    assert isinstance(frozen, Features)
    for a, b in zip(expected, frozen, strict=True):
        for x, y in zip(a if isinstance(a, tuple) else [a], b if isinstance(b, tuple) else [b], strict=True):
            assert (x - y).abs().max() <= 1e-9 * max(1, x.abs().max())


@torch.no_grad()
def test_stage_norms_end_the_stages(name, network):
    """What one adds to the norm's output appears in the pre-activation."""
    info, norms = models()[name], network.stage_norms
    assert info.has_margins == (norms is not None)
    if norms is None:
        return
    assert [len(norm.weight) for norm in norms] == list(info.stage_channels)
    batch = images(1, side=8)
    before = network(batch).pre_activations
    for i, norm in enumerate(norms):
        hook = norm.register_forward_hook(lambda _module, _inputs, output: output + 1)
        moved = network(batch).pre_activations
        hook.remove()
        assert close(moved[i], before[i] + 1)
        assert all(torch.equal(a, b) for a, b in zip(moved[:i], before[:i], strict=True))


def test_training_moves_every_weight_and_statistic_once(network):
    model = copy.deepcopy(network).train()
    model(images(4, side=16)).logits.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any() or parameter.ndim == 1, key  # a bias before a batch norm has no effect
    for norm, old in zip(norms_of(model), norms_of(network), strict=True):
        assert norm.num_batches_tracked == old.num_batches_tracked + 1
        assert not torch.equal(norm.running_mean, old.running_mean)


@torch.no_grad()
def test_evaluation_leaves_the_network_as_it_was(network):
    before = copy.deepcopy(network.state_dict())
    network(images(1, side=8))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@torch.no_grad()
def test_a_saved_network_comes_back(name, network, tmp_path):
    card = ModelCard(
        name, ("tiny",), tuple("abcdefg"), channels=3, resolution=8, mean=(0.5,) * 3, std=(0.2,) * 3, accuracy=None,
        params=0,
    )  # fmt: skip
    save_model(tmp_path / "model", network, card)
    again, again_card = load_model(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")  # pytest keeps folders, and the largest of these has 150 MB
    assert again_card == card
    assert torch.equal(again(images(1, side=8)).logits, network(images(1, side=8)).logits)


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 100), (4, 2)])
def test_parameters_follow_from_the_catalog(name, channels, classes):
    counted = sum(p.numel() for p in on_paper(name, classes, channels).parameters())
    assert models()[name].params(channels, classes) == counted


@pytest.mark.parametrize(
    "small",
    [
        "resnet8",
        "resnet20-a",
        "wrn-16-1",
        "vgg8-crd",
        "mobilenet-v2-crd",
        "shufflenet-v1-crd",
        "shufflenet-v2-crd",
        "resnet18",
    ],
)
def test_the_seed_fixes_the_weights(small):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build(small, 10).parameters()])

    first = weights(1)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_an_unknown_model_gets_the_closest_name(refuses):
    refuses(lambda: build("resnet-56", 10), "resnet-56", "Did you mean 'resnet56'")


def test_names_come_from_functions_family_by_family():
    assert list(builders()) == known_models()
    order = [family.__name__ for family in FAMILIES]
    families = [builder.__module__ for builder in builders().values()]
    assert sorted(families, key=order.index) == families
