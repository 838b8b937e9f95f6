"""The networks that turn features into factors (Huang et al. 2021, section 3; Kim et al. 2018 call them paraphraser
and translator).
"""

from __future__ import annotations

from torch import Tensor, nn


def _coder(c_in: int, c_out: int) -> nn.Sequential:
    """LeakyReLU, then three 3x3 convolutions c_in -> c_in -> c_out -> c_out, each with batch norm and LeakyReLU."""
    layers: list[nn.Module] = [nn.LeakyReLU(0.1)]
    for a, b in ((c_in, c_in), (c_in, c_out), (c_out, c_out)):
        conv = nn.Conv2d(a, b, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, nn.BatchNorm2d(b), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


class AutoEncoder(nn.Module):
    """Teacher side: feature (B,c,h,w) -> factor (B,k,h,w) -> reconstruction (B,c,h,w).

    Trained by reconstruction, then frozen; only the encoder is used while students train.

    Args:
        channels: c, of the teacher's feature.
        factor_channels: k, of the factor; half of c in the papers.
    Args of forward:
        feature: (B,c,h,w).
    Returns:
        The factor (B,k,h,w) and the reconstruction (B,c,h,w).

    >>> factor, reconstruction = AutoEncoder(64, 32)(torch.randn(8, 64, 7, 7))
    >>> factor.shape, reconstruction.shape
    (torch.Size([8, 32, 7, 7]), torch.Size([8, 64, 7, 7]))
    """

    def __init__(self, channels: int, factor_channels: int) -> None:
        super().__init__()
        self.encoder = _coder(channels, factor_channels)
        self.decoder = _coder(factor_channels, channels)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        factor = self.encoder(feature)
        return factor, self.decoder(factor)


class FactorEncoder(nn.Module):
    """Student side: feature (B,c,h,w) -> factor (B,k,h,w); trained together with the student.

    Args:
        channels: c, of the student's channels that are compared.
        factor_channels: k, of the factor; as the teacher's.
    Args of forward:
        feature: (B,c,h,w).
    Returns:
        The factor (B,k,h,w).

    >>> FactorEncoder(16, 32)(torch.randn(8, 16, 7, 7)).shape
    torch.Size([8, 32, 7, 7])
    """

    def __init__(self, channels: int, factor_channels: int) -> None:
        super().__init__()
        self.layers = _coder(channels, factor_channels)

    def forward(self, feature: Tensor) -> Tensor:
        factor: Tensor = self.layers(feature)
        return factor
