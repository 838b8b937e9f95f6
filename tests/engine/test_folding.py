"""Batch norms folded by watching a forward pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from iekd.engine.accelerate import freeze
from iekd.engine.folding import fold
from iekd.models.registry import build


def lived_in(network: nn.Module) -> nn.Module:
    """With statistics and weights of its own in each batch norm."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
    return network


class Small(nn.Module):
    """One convolution and its batch norm; `also` is what else is made of the convolution's output."""

    def __init__(self, also=None, norm=None) -> None:
        super().__init__()
        self.conv, self.norm, self.also = nn.Conv2d(3, 4, 3), norm or nn.BatchNorm2d(4), also

    def forward(self, images):
        made = self.conv(images)
        answer = self.norm(made)
        return answer if self.also is None else answer + self.also(made)


def left(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", ["timm:tf_efficientnet_lite0", "timm:vgg11_bn"])
def test_networks_that_fx_cannot_follow_lose_all_their_batch_norms(name):
    torch.manual_seed(0)
    network = lived_in(build(name, 3))
    with pytest.raises(Exception, match="control flow"):
        freeze(network)
    before, images = copy.deepcopy(network.state_dict()), torch.randn(2, 3, 32, 32)
    folded = fold(network, images)
    assert left(network) > left(folded) == 0
    assert network.training
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with torch.no_grad():
        expected, found = network.eval()(images), folded(images)
    for one, other in zip((expected.logits, *expected.stages), (found.logits, *found.stages), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


def test_what_somebody_else_reads_is_noticed():
    images = torch.randn(2, 3, 8, 8)
    assert left(fold(lived_in(Small()), images)) == 0
    with pytest.raises(ValueError, match="would change"):
        fold(lived_in(Small(also=nn.ReLU())), images)


def test_what_is_used_twice_or_has_no_statistics_stays():
    class Twice(Small):
        def forward(self, images):
            return super().forward(images) + self.conv(images).relu()

    images = torch.randn(2, 3, 8, 8)
    assert left(fold(lived_in(Twice()), images)) == 1
    assert left(fold(lived_in(Small(norm=nn.BatchNorm2d(4, track_running_stats=False))), images)) == 1
