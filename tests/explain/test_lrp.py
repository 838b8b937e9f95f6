"""LRP: against rules written in NumPy, conserved in every family, and true on networks whose answer is known."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iekd.explain.about import NotApplicableError
from iekd.explain.lrp import lrp
from iekd.explain.lrp_rules import RelevanceMode
from iekd.explain.network import NetworkOrHalf, parts_of
from iekd.models.catalog import model_info
from iekd.models.features import Features
from iekd.models.registry import FAMILIES, builders

SIDE = 5


def smallest_of_each_family():
    """One network of every file in FAMILIES, and one with shortcuts that pad."""
    for family in FAMILIES:
        names = [name for name, builder in builders().items() if builder.__module__ == family.__name__]
        yield min(names, key=lambda name: model_info(name).macs)
    yield "resnet20-a"


class Block(nn.Module):
    """A convolution whose input is added to its output, without an activation: values of both signs."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return x + self.norm(self.conv(x))


class Gated(nn.Module):
    """Channels multiplied by something that the image decides, as in squeeze and excitation."""

    def forward(self, images):
        x = F.conv2d(images, torch.ones(2, 1, 1, 1))
        x = x * x.mean((2, 3), keepdim=True)
        pooled = x.mean((2, 3))
        return Features(pooled, (x,), None, pooled)


class InPlace(nn.Module):
    """An activation that is called for what it does to its input."""

    def forward(self, images):
        x = F.conv2d(images, torch.tensor([[[[1.0]]], [[[-1.0]]]]), torch.tensor([-0.5, 0.2]))
        F.relu(x, inplace=True)
        pooled = x.mean((2, 3))
        return Features(pooled, (x,), None, pooled)


class Tokens(nn.Module):
    """Pixels as tokens that attend to each other."""

    def __init__(self):
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(4, 1, batch_first=True), nn.LayerNorm(4)
        self.patches, self.head = nn.Conv2d(1, 4, 4, 4), nn.Linear(4, 2)

    def forward(self, images):
        x = self.patches(images)
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        pooled = self.attention(tokens, tokens, tokens)[0].mean(1)
        return Features(self.head(pooled), (x,), None, pooled)


def dense(weight, side):
    """The matrix (inputs, outputs) of a 3x3 convolution with padding 1, and each output's channel."""
    c_out, c_in = weight.shape[:2]
    matrix = np.zeros((c_in, side, side, c_out, side, side))
    for y in range(side):
        for x in range(side):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < side and 0 <= x + dx < side:
                        matrix[:, y + dy, x + dx, :, y, x] = weight[:, :, dy + 1, dx + 1].T
    return matrix.reshape(c_in * side**2, c_out * side**2)


def folded(convolution, norm, side):
    """(matrix, bias of each output) of a convolution and the batch norm after it."""
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).double().numpy()
    bias = norm.bias.double().numpy() - norm.running_mean.double().numpy() * scale
    bias += scale * (0 if convolution.bias is None else convolution.bias.double().numpy())
    matrix = dense(convolution.weight.double().numpy(), side)
    return matrix * scale.repeat(side**2), bias.repeat(side**2)


def same_sign(contributions, bias, relevance):
    """(relevance of the inputs, of the biases): (inputs, outputs) contributions of the output's own sign share it."""
    sign = np.sign(contributions.sum(0) + bias)
    own, own_bias = np.maximum(sign * contributions, 0), np.maximum(sign * bias, 0)
    share = relevance / (own.sum(0) + own_bias)
    return own @ share, (own_bias * share).sum()


@pytest.fixture(scope="module")
def small(make):
    """Convolution, batch norm, ReLU, a residual block that ends without an activation, mean, linear layer."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), Block())
    for norm in (body[1], body[3].norm):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        body.train()(torch.randn(8, 2, SIDE, SIDE))
    return make(body, nn.Linear(3, 2), side=SIDE, channels=2, mean=(0.5, 0.4), std=(0.3, 0.2))


def test_it_equals_the_rules_in_numpy(small, noise):
    image = noise(1, SIDE, 2)
    (found,) = lrp([NetworkOrHalf(small)], image)
    body, head = small.model.body, small.model.head
    x = small.pixels(image)[0].double().numpy()
    black, white = (small.pixels(np.full_like(image, value))[0].double().numpy().ravel() for value in (0, 255))
    first, first_bias = folded(body[0], body[1], SIDE)
    second, second_bias = folded(body[3].conv, body[3].norm, SIDE)
    hidden = np.maximum(x.ravel() @ first + first_bias, 0)
    branch = hidden @ second + second_bias
    total = hidden + branch
    pooled = total.reshape(3, -1).mean(1)
    weight, bias = head.weight.double().numpy(), head.bias.double().numpy()
    logits = weight @ pooled + bias
    k = logits.argmax()
    assert found.explained == (small.card.class_names[k],)

    relevance = weight[k] * pooled  # epsilon: each input's share of the logit; the bias has its own
    biases = bias[k]
    spread = np.zeros((3 * SIDE**2, 3))
    for channel in range(3):
        rows = slice(channel * SIDE**2, (channel + 1) * SIDE**2)
        spread[rows, channel] = total[rows] / SIDE**2
    relevance, _ = same_sign(spread, np.zeros(3), relevance)
    sums = np.stack([np.diag(hidden), np.diag(branch)]).reshape(2 * len(hidden), -1)
    shares, _ = same_sign(sums, np.zeros(len(hidden)), relevance)
    of_hidden, of_branch = shares.reshape(2, -1)
    through, taken = same_sign(hidden[:, None] * second, second_bias, of_branch)
    biases += taken
    box = x.ravel()[:, None] * first - black[:, None] * np.maximum(first, 0) - white[:, None] * np.minimum(first, 0)
    pixels = box @ ((of_hidden + through) / box.sum(0))
    expected = pixels.reshape(2, SIDE, SIDE).sum(0)
    assert np.abs(expected).max() > 1e-3
    assert found.maps[0] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert found.conservation.biases == pytest.approx(biases / logits[k], rel=1e-3)
    assert found.conservation.pixels == pytest.approx(expected.sum() / logits[k], rel=1e-3)


@pytest.mark.parametrize("name", smallest_of_each_family())
def test_every_family_conserves_relevance(name, make, lived_in, noise):
    network = make(lived_in(name), side=16, channels=3, classes=("a", "b", "c"), mean=(0.5,) * 3, std=(0.25,) * 3)
    images = noise(3)
    pixels = network.pixels(images).requires_grad_()
    with RelevanceMode(pixels, pixels.detach(), pixels.detach()):
        watched = network.forward(pixels).logits
    with torch.no_grad():
        logits = network.forward(network.pixels(images)).logits
    assert watched.detach().numpy() == pytest.approx(logits.numpy(), rel=1e-3, abs=1e-4)  # watching changes nothing
    (found,) = lrp([NetworkOrHalf(network)], images)
    assert found.maps.shape == (3, 16, 16)
    assert np.isfinite(found.maps).all()
    best = logits.max(1).values.double().numpy()
    kept = found.conservation
    assert found.maps.sum() == pytest.approx(kept.pixels * best.sum(), rel=1e-3)
    assert kept.pixels + kept.biases == pytest.approx(1, abs=0.01)
    assert 0 <= kept.lost < 0.01


class Branching(nn.Module):
    """Its way depends on the image."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, images):
        x = self.conv(images) if images.mean() > -100 else images
        last = F.relu(self.norm(x))
        pooled = last.mean((2, 3))
        return Features(self.head(pooled), (last,), None, pooled)


def test_a_network_may_look_at_the_image_to_choose_its_way(make, noise):
    torch.manual_seed(3)
    (found,) = lrp([NetworkOrHalf(make(Branching(), side=12, channels=3, classes=("a", "b", "c")))], noise(3, 12))
    assert np.abs(found.maps).max() > 0
    assert found.conservation.pixels + found.conservation.biases == pytest.approx(1, abs=0.01)


def test_without_biases_the_pixels_have_everything(make, noise):
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, bias=False), nn.ReLU())
    network = make(body, nn.Linear(4, 2, bias=False), side=12, channels=3)
    (found,) = lrp([NetworkOrHalf(network)], noise(3, 12))
    assert found.conservation.biases == 0
    assert found.conservation.pixels == pytest.approx(1, abs=0.001)
    with torch.no_grad():
        best = network.forward(network.pixels(noise(3, 12))).logits.max(1).values
    assert found.maps.sum((1, 2)) == pytest.approx(best.numpy(), rel=1e-3)  # of each image, and not only of all


def test_a_network_that_looks_at_a_patch_lights_it_up(patch):
    network, images, corners = patch
    (found,) = lrp([NetworkOrHalf(network)], images)
    assert set(found.explained) == {"yes"}
    for map_, (y, x) in zip(found.maps, corners, strict=True):
        around = map_[max(0, y - 1) : y + 4, max(0, x - 1) : x + 4]
        assert around.sum() > 0.95 * map_.sum() > 0
        brightest = np.argsort(map_.ravel())[-5:]
        rows, columns = np.unravel_index(brightest, map_.shape)
        assert ((rows >= y) & (rows < y + 3) & (columns >= x) & (columns < x + 3)).all()
    assert found.conservation.lost < 0.01  # the filter without weights has relevance too: its bias takes it
    assert 0.1 < found.conservation.biases < 0.2


def test_the_halves_add_up_to_the_whole(networks, noise):
    whole, inheritance, exploration = lrp(parts_of(networks[-1:]), noise(5))
    assert [m.half for m in (whole, inheritance, exploration)] == ["", "inheritance", "exploration"]
    assert inheritance.explained == exploration.explained == whole.explained
    largest = float(np.abs(whole.maps).max())
    assert np.abs(inheritance.maps).max() > 0.01 * largest
    assert np.abs(exploration.maps).max() > 0.01 * largest
    assert inheritance.maps + exploration.maps == pytest.approx(whole.maps, abs=1e-4 * largest)
    assert max(m.conservation.lost for m in (whole, inheritance, exploration)) < 0.01


def test_batches_of_any_size_give_the_same(networks, noise, monkeypatch):
    whole = lrp([NetworkOrHalf(networks[0])], noise(5))[0]
    monkeypatch.setattr(networks[0], "batch_size", 2)
    assert lrp([NetworkOrHalf(networks[0])], noise(5))[0].maps == pytest.approx(whole.maps, abs=1e-6)


def test_activations_that_overwrite_their_input_change_nothing(make, noise):
    torch.manual_seed(2)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU6(), nn.Dropout())
    head = nn.Linear(4, 2)
    over = copy.deepcopy(layers)
    for module in over:
        if isinstance(module, (nn.ReLU, nn.ReLU6, nn.Dropout)):
            module.inplace = True
    first, second = (
        lrp([NetworkOrHalf(make(body, head, side=12, channels=3))], noise(3, 12))[0] for body in (layers, over)
    )
    assert np.abs(first.maps).max() > 0
    assert second.maps == pytest.approx(first.maps, abs=1e-7)


@pytest.mark.parametrize(("model", "word"), [(Gated, "mul"), (Tokens, "layer_norm")])
def test_what_has_no_rule_is_named(make, noise, refuses, model, word):
    network = make(model(), side=8)
    refuses(lambda: lrp([NetworkOrHalf(network)], noise(2, 8, 1)), word, "convolutions", kind=NotApplicableError)


def test_a_network_that_it_cannot_follow_is_refused(make, noise, refuses):
    network = make(InPlace(), side=8)
    refuses(lambda: lrp([NetworkOrHalf(network)], noise(2, 8, 1)), "plain", "in place", kind=NotApplicableError)


def test_a_batch_norm_without_fixed_statistics_is_refused(make, noise, refuses):
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.ReLU())
    network = make(body, nn.Linear(2, 2), side=8)
    refuses(lambda: lrp([NetworkOrHalf(network)], noise(2, 8, 1)), "fixed statistics", kind=NotApplicableError)
