"""Weights of other implementations give, under our names, the answers that those implementations give.

Each reference below is written after a public implementation, as one pass of functions that names its weights as it
uses them: the state dict and the logits come from the same few lines.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from iekd.models.foreign import RULES, rename, shortcut_variant
from iekd.models.libraries import LIBRARIES
from iekd.models.registry import FAMILIES, build

CLASSES = 10


class Pass:
    """Layers in evaluation mode whose random weights appear in `state` when they are first used."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def draw(self, name: str, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        self.state[name] = torch.rand(shape, generator=self.generator) * (high - low) + low
        return self.state[name]

    def conv(self, x: Tensor, name: str, c: int, size: int = 3, stride: int = 1, groups: int = 1, bias: bool = False):
        c_in = x.shape[1] // groups
        bound = (3 / (c_in * size * size)) ** 0.5
        weight = self.draw(f"{name}.weight", (c, c_in, size, size), -bound, bound)
        added = self.draw(f"{name}.bias", (c,), -0.1, 0.1) if bias else None
        return F.conv2d(x, weight, added, stride, size // 2, groups=groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        c = (x.shape[1],)
        weight, bias = self.draw(f"{name}.weight", c, 0.5, 1.5), self.draw(f"{name}.bias", c, -0.3, 0.3)
        mean, var = self.draw(f"{name}.running_mean", c, -0.3, 0.3), self.draw(f"{name}.running_var", c, 0.5, 2)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)
        return F.batch_norm(x, mean, var, weight, bias)

    def linear(self, x: Tensor, name: str) -> Tensor:
        pooled = x.mean((2, 3))
        weight = self.draw(f"{name}.weight", (CLASSES, pooled.shape[1]), -0.1, 0.1)
        return F.linear(pooled, weight, self.draw(f"{name}.bias", (CLASSES,), -1, 1))


def shuffled(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).permute(0, 2, 1, 3, 4).reshape(b, c, h, w)


def cifar_resnet(p: Pass, x: Tensor, depth: int, shortcut: str, head: str, width: int = 16, stem: int = 16) -> Tensor:
    """akamaster/pytorch_resnet_cifar10 (shortcut "", linear), chenyaofo/pytorch-cifar-models, HobbitLong/RepDistiller
    and megvii-research/mdistiller (downsample, fc), and the many with a `shortcut` of projections."""
    x = p.norm(p.conv(x, "conv1", stem), "bn1").relu()
    for s in range(3):
        c = width << s
        for i in range((depth - 2) // 6):
            name, stride = f"layer{s + 1}.{i}", 2 if s and not i else 1
            out = p.norm(p.conv(x, f"{name}.conv1", c, stride=stride), f"{name}.bn1").relu()
            out = p.norm(p.conv(out, f"{name}.conv2", c), f"{name}.bn2")
            if x.shape[1] != c and shortcut:
                x = p.norm(p.conv(x, f"{name}.{shortcut}.0", c, 1, stride), f"{name}.{shortcut}.1")
            elif x.shape[1] != c:
                empty = torch.zeros_like(x[:, : c // 4, ::2, ::2])
                x = torch.cat([empty, x[:, :, ::2, ::2], empty], 1)
            x = (x + out).relu()
    return p.linear(x, head)


def wide_resnet(p: Pass, x: Tensor, depth: int, width: int) -> Tensor:
    """RepDistiller, mdistiller, after xternalz/WideResNet-pytorch."""
    x = p.conv(x, "conv1", 16)
    for s in range(3):
        c = 16 * width << s
        for i in range((depth - 4) // 6):
            name, stride = f"block{s + 1}.layer.{i}", 2 if s and not i else 1
            active = p.norm(x, f"{name}.bn1").relu()
            out = p.norm(p.conv(active, f"{name}.conv1", c, stride=stride), f"{name}.bn2").relu()
            out = p.conv(out, f"{name}.conv2", c)
            x = out + (x if x.shape[1] == c else p.conv(active, f"{name}.convShortcut", c, 1, stride))
    return p.linear(p.norm(x, "bn1").relu(), "fc")


def vgg(p: Pass, x: Tensor, convolutions: tuple[int, ...]) -> Tensor:
    """RepDistiller, mdistiller: images of 32 pixels."""
    for b, (count, c) in enumerate(zip(convolutions, (64, 128, 256, 512, 512), strict=True)):
        for i in range(count):
            x = p.norm(p.conv(x, f"block{b}.{3 * i}", c, bias=True), f"block{b}.{3 * i + 1}").relu()
        x = F.max_pool2d(x, 2) if b < 3 else x
    return p.linear(x, "classifier")


def mobilenet(p: Pass, x: Tensor) -> Tensor:
    """RepDistiller, mdistiller: `mobile_half`."""
    x = p.norm(p.conv(x, "conv1.0", 16, stride=2), "conv1.1").relu()
    plan = [(1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1)]
    for g, (expansion, c, count, first_stride) in enumerate(plan):
        for i in range(count):
            name, stride, wide = f"blocks.{g}.{i}.conv", 1 if i else first_stride, x.shape[1] * expansion
            out = p.norm(p.conv(x, f"{name}.0", wide, 1), f"{name}.1").relu()
            out = p.norm(p.conv(out, f"{name}.3", wide, 3, stride, wide), f"{name}.4").relu()
            out = p.norm(p.conv(out, f"{name}.6", c, 1), f"{name}.7")
            x = x + out if i else out
    return p.linear(p.norm(p.conv(x, "conv2.0", 1280, 1), "conv2.1").relu(), "classifier.0")


def shufflenet_v1(p: Pass, x: Tensor) -> Tensor:
    """RepDistiller, mdistiller: `ShuffleV1`."""
    x = p.norm(p.conv(x, "conv1", 24, 1), "bn1").relu()
    for s, (c, count) in enumerate([(240, 4), (480, 8), (960, 4)]):
        for i in range(count):
            name, own = f"layer{s + 1}.{i}", c if i else c - x.shape[1]
            groups = 1 if x.shape[1] == 24 else 3
            out = p.norm(p.conv(x, f"{name}.conv1", own // 4, 1, groups=groups), f"{name}.bn1").relu()
            out = p.conv(shuffled(out, groups), f"{name}.conv2", own // 4, 3, 1 if i else 2, own // 4)
            out = p.norm(p.conv(p.norm(out, f"{name}.bn2").relu(), f"{name}.conv3", own, 1, groups=3), f"{name}.bn3")
            x = (out + x if i else torch.cat([out, F.avg_pool2d(x, 3, 2, 1)], 1)).relu()
    return p.linear(x, "linear")


def shufflenet_v2(p: Pass, x: Tensor) -> Tensor:
    """RepDistiller, mdistiller: `ShuffleV2`."""
    x = p.norm(p.conv(x, "conv1", 24, 1), "bn1").relu()
    for s, (c, count) in enumerate([(58, 3), (116, 7), (232, 3)]):
        name = f"layer{s + 1}.0"
        left = p.norm(p.conv(x, f"{name}.conv1", x.shape[1], 3, 2, x.shape[1]), f"{name}.bn1")
        left = p.norm(p.conv(left, f"{name}.conv2", c, 1), f"{name}.bn2").relu()
        right = p.norm(p.conv(x, f"{name}.conv3", c, 1), f"{name}.bn3").relu()
        right = p.norm(p.conv(right, f"{name}.conv4", c, 3, 2, c), f"{name}.bn4")
        right = p.norm(p.conv(right, f"{name}.conv5", c, 1), f"{name}.bn5").relu()
        x = shuffled(torch.cat([left, right], 1), 2)
        for i in range(1, count + 1):
            name = f"layer{s + 1}.{i}"
            out = p.norm(p.conv(x[:, c:], f"{name}.conv1", c, 1), f"{name}.bn1").relu()
            out = p.norm(p.conv(out, f"{name}.conv2", c, 3, 1, c), f"{name}.bn2")
            out = p.norm(p.conv(out, f"{name}.conv3", c, 1), f"{name}.bn3").relu()
            x = shuffled(torch.cat([x[:, :c], out], 1), 2)
    return p.linear(p.norm(p.conv(x, "conv2", 1024, 1), "bn2").relu(), "linear")


REFERENCES: list[tuple[str, Callable[[Pass, Tensor], Tensor]]] = [
    ("resnet20", partial(cifar_resnet, depth=20, shortcut="downsample", head="fc")),
    ("resnet20", partial(cifar_resnet, depth=20, shortcut="shortcut", head="linear")),
    ("resnet20-a", partial(cifar_resnet, depth=20, shortcut="", head="linear")),
    ("resnet56-a", partial(cifar_resnet, depth=56, shortcut="", head="linear")),
    ("resnet8x4", partial(cifar_resnet, depth=8, shortcut="downsample", head="fc", width=64, stem=32)),
    ("resnet32x4", partial(cifar_resnet, depth=32, shortcut="downsample", head="fc", width=64, stem=32)),
    ("wrn-16-1", partial(wide_resnet, depth=16, width=1)),
    ("wrn-16-2", partial(wide_resnet, depth=16, width=2)),
    ("wrn-40-2", partial(wide_resnet, depth=40, width=2)),
    ("vgg8", partial(vgg, convolutions=(1, 1, 1, 1, 1))),
    ("vgg13", partial(vgg, convolutions=(2, 2, 2, 2, 2))),
    ("vgg19", partial(vgg, convolutions=(2, 2, 4, 4, 4))),
    ("mobilenet-v2", mobilenet),
    ("shufflenet-v1", shufflenet_v1),
    ("shufflenet-v2", shufflenet_v2),
]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def answers(name: str, state: dict[str, Tensor], images: Tensor, classes: int = CLASSES) -> Tensor:
    with torch.device("meta"):
        model = build(name, classes)
    model.load_state_dict(rename(state, name), strict=True, assign=True)
    return model.eval()(images).logits


@torch.no_grad()
@pytest.mark.parametrize(("name", "reference"), REFERENCES)
def test_foreign_weights_give_the_foreign_answers(name, reference, images):
    p = Pass()
    expected = reference(p, images)
    logits = answers(name, p.state, images)
    assert (logits - expected).abs().max() <= 1e-4 * max(1, expected.abs().max())
    parallel = {f"module.{key}": value for key, value in p.state.items()}
    assert rename(parallel, name).keys() == rename(p.state, name).keys()


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_torchvisions_weights_give_torchvisions_answers(name, images):
    torch.manual_seed(0)
    reference = torchvision.models.get_model(name, num_classes=CLASSES).eval()
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.3, 0.3),
                                      (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2)):  # fmt: skip
                tensor.uniform_(low, high)
    expected = reference(images)
    state = reference.state_dict()
    assert list(rename(state, name)) == [f"network.{key}" for key in state]
    logits = answers(name, state, images)
    assert (logits - expected).abs().max() <= 1e-4 * max(1, expected.abs().max())


@pytest.mark.parametrize("name", ["resnet20", "resnet20-a", "wrn-16-1", "vgg8", "mobilenet-v2", "shufflenet-v1"])
def test_our_own_names_stay(name):
    with torch.device("meta"):
        state = build(name, CLASSES).state_dict()
    assert list(rename(state, name)) == list(state)


def test_every_family_has_its_rules():
    families = [family.__name__.rpartition(".")[2] for family in FAMILIES]
    assert list(RULES) == [*families, *LIBRARIES.values()]


def weights(shortcut: str, depth: int = 20) -> dict[str, Tensor]:
    p = Pass()
    cifar_resnet(p, torch.zeros(1, 3, 8, 8), depth, shortcut, "linear")
    return p.state


@pytest.mark.parametrize("named", ["resnet20", "resnet20-a"])
def test_the_weights_tell_which_shortcuts_they_are_for(named):
    assert shortcut_variant(weights(""), named) == "resnet20-a"
    assert shortcut_variant(weights("downsample"), named) == "resnet20"
    assert shortcut_variant(rename(weights("shortcut"), named), named) == "resnet20"


def test_networks_of_one_kind_keep_their_name():
    assert shortcut_variant({}, "wrn-16-1") == "wrn-16-1"
    assert shortcut_variant(weights("", 8), "resnet8") == "resnet8"


def test_weights_of_another_network_do_not_load(images):
    with pytest.raises(RuntimeError, match=r"shortcut"):
        answers("resnet20", weights(""), images)
    with pytest.raises(RuntimeError, match="strange"):
        answers("resnet20-a", {**weights(""), "strange": torch.zeros(1)}, images)


def test_unknown_models_are_refused(refuses):
    refuses(lambda: rename({}, "resnet21"), "resnet21")
