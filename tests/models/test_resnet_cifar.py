from __future__ import annotations

import copy

import pytest
import torch

from iekd.models.catalog import known_models
from iekd.models.features import Features
from iekd.models.registry import build, builders
from iekd.models.resnet_cifar import CifarResNet

# 100 classes, colour, projection shortcuts: the counts published with the networks of RepDistiller's family (resnet20
# 0.28 M, resnet56 0.86 M, resnet110 1.74 M) to the last digit; `parameters` below counts them by hand.
PUBLISHED = {
    "resnet8": 83_892, "resnet14": 181_108, "resnet20": 278_324, "resnet32": 472_756,
    "resnet44": 667_188, "resnet56": 861_620, "resnet110": 1_736_564,
}  # fmt: skip


def parameters(depth: int, classes: int, channels: int) -> int:
    """He et al. 2016, section 4.2, option B: every convolution, batch norm and the classifier."""
    n = (depth - 2) // 6
    total = 9 * channels * 16 + 2 * 16
    c_in = 16
    for c in (16, 32, 64):
        for i in range(n):
            a = c_in if i == 0 else c
            total += 9 * a * c + 2 * c + 9 * c * c + 2 * c
            if a != c:
                total += a * c + 2 * c
        c_in = c
    return total + 64 * classes + classes


def images(batch=2, channels=3, side=32, seed=0):
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=known_models())
def network(request):
    torch.manual_seed(0)
    return build(request.param, 7, 3).eval()


@torch.no_grad()
def test_features_have_their_shapes(network):
    f = network(images(side=32))
    assert isinstance(f, Features)
    assert f.logits.shape == (2, 7)
    assert f.pooled.shape == (2, 64)
    expected = [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]
    assert [tuple(s.shape) for s in f.stages] == expected
    assert [tuple(s.shape) for s in f.pre_activations] == expected


@torch.no_grad()
def test_features_hang_together(network):
    f = network(images())
    for after, before in zip(f.stages, f.pre_activations, strict=True):
        assert torch.equal(after, before.clamp(min=0))
        assert (before < 0).any()
    assert torch.allclose(f.pooled, f.stages[-1].mean((2, 3)), atol=1e-6)
    assert torch.allclose(f.logits, f.pooled @ network.classifier.weight.T + network.classifier.bias, atol=1e-5)


@torch.no_grad()
def test_evaluation_judges_each_image_by_itself(network):
    batch = images(batch=3)
    together = network(batch).logits
    alone = torch.cat([network(batch[i : i + 1]).logits for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["resnet8", "resnet14"])
def test_training_moves_the_statistics_and_evaluation_does_not(name):
    model = build(name, 5)
    before = copy.deepcopy(model.bn.running_mean)
    with torch.no_grad():
        model.eval()(images())
        assert torch.equal(model.bn.running_mean, before)
        model.train()(images())
        assert not torch.equal(model.bn.running_mean, before)


@pytest.mark.parametrize(("side", "sides"), [(28, (28, 14, 7)), (16, (16, 8, 4)), (33, (33, 17, 9)), (8, (8, 4, 2))])
def test_other_resolutions_halve_twice(side, sides):
    with torch.no_grad():
        f = build("resnet8", 5, 1).eval()(images(channels=1, side=side))
    assert tuple(s.shape[-1] for s in f.stages) == sides


@pytest.mark.parametrize("name", known_models())
@pytest.mark.parametrize(("classes", "channels"), [(100, 3), (10, 1)])
def test_parameters_are_counted_as_published(name, classes, channels):
    count = sum(p.numel() for p in build(name, classes, channels).parameters())
    assert count == parameters(int(name.removeprefix("resnet")), classes, channels)
    if (classes, channels) == (100, 3):
        assert count == PUBLISHED[name]


@pytest.mark.parametrize("name", known_models())
def test_depth_is_what_the_name_says(name):
    model = build(name, 10)
    weights = [p for n, p in model.named_parameters() if p.ndim > 1 and "shortcut" not in n]
    assert len(weights) == int(name.removeprefix("resnet"))


@pytest.mark.parametrize("depth", [2, 6, 9, 21])
def test_depths_are_six_n_plus_two(depth):
    with pytest.raises(ValueError, match="6n\\+2"):
        CifarResNet(depth, 10)


def test_the_seed_fixes_the_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build("resnet8", 10).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_every_weight_learns():
    model = build("resnet8", 4).train()
    model(images()).logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_an_unknown_model_gets_the_closest_name(refuses):
    refuses(lambda: build("resnet-56", 10), "resnet-56", "Did you mean 'resnet56'")


def test_names_come_from_functions():
    assert list(builders()) == known_models()
