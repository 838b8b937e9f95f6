from __future__ import annotations

import pytest
import torch
from torch import nn

from iekd.models.factors import AutoEncoder, FactorEncoder


def layout(coder: nn.Module) -> list:
    """Types in order; convolutions with their channels."""
    return [
        (m.in_channels, m.out_channels, m.kernel_size, m.bias is None) if isinstance(m, nn.Conv2d) else type(m).__name__
        for m in coder.modules()
        if not list(m.children())
    ]


def expected(*widths: tuple[int, int]) -> list:
    """LeakyReLU, then 3 x [3x3 convolution without bias, batch norm, LeakyReLU]."""
    return ["LeakyReLU", *(x for a, b in widths for x in ((a, b, (3, 3), True), "BatchNorm2d", "LeakyReLU"))]


def test_the_encoder_is_built_as_in_the_paper():
    assert layout(AutoEncoder(64, 32).encoder) == expected((64, 64), (64, 32), (32, 32))


def test_the_decoder_is_the_encoder_with_channels_swapped():
    assert layout(AutoEncoder(64, 32).decoder) == expected((32, 32), (32, 64), (64, 64))


def test_the_factor_encoder_keeps_the_half():
    assert layout(FactorEncoder(32, 32)) == expected((32, 32), (32, 32), (32, 32))


def test_leaks_are_a_tenth():
    slopes = {m.negative_slope for m in AutoEncoder(8, 4).modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.1}


@pytest.mark.parametrize(("c", "k", "side"), [(64, 32, 8), (64, 32, 7), (10, 3, 5), (2, 1, 1)])
def test_a_feature_becomes_a_factor_and_comes_back(c, k, side):
    feature = torch.randn(3, c, side, side)
    factor, back = AutoEncoder(c, k)(feature)
    assert factor.shape == (3, k, side, side)
    assert back.shape == feature.shape
    assert FactorEncoder(c, k)(feature).shape == (3, k, side, side)


def test_the_forward_pass_is_encoder_then_decoder():
    coder = AutoEncoder(8, 4).eval()
    feature = torch.randn(2, 8, 4, 4)
    with torch.no_grad():
        factor, back = coder(feature)
        assert torch.equal(factor, coder.encoder(feature))
        assert torch.equal(back, coder.decoder(factor))


def test_the_auto_encoder_learns_to_reconstruct():
    torch.manual_seed(0)
    coder, feature = AutoEncoder(8, 4), torch.randn(16, 8, 4, 4).relu()
    optimizer = torch.optim.SGD(coder.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = (coder(feature)[1] - feature).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
