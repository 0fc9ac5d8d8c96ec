"""The DCGAN of the PyTorch tutorial: transposed 4x4 convolutions of stride 2 and batch norm, at any power of two."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.layers.batch_norm import BatchNorm2d
from orthogan.models.families.resnet_blocks import unsupported_resolution
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator

RESOLUTIONS = tuple(8 << i for i in range(8))
SLOPE = 0.2  # of the leaky ReLU
EPS = 1e-5  # of the batch norms
STD = 0.02


@GENERATORS.register("dcgan-tutorial")
class DCGANTutorialGenerator(Generator):
    """A generator: a transposed convolution from the latent to the first map, then one per doubling, tanh.

    Each but the last is followed by batch norm and ReLU.

    Args:
        channels: width of the last hidden map; each map before it has twice as many. 64 in the paper.
        widths: widths of the hidden maps instead, from the first to the last.
        bias: whether the convolutions have a bias.
        tanh: whether the output passes through tanh.

    Raises:
        UserError: the resolution is not a power of two from 8 to 1024, without ``widths``.

    Source: Radford et al. 2016, arXiv:1511.06434, as in the DCGAN tutorial of PyTorch.

    Example:
        >>> from orthogan.models import DCGANTutorialGenerator
        >>> generator = DCGANTutorialGenerator(resolution=32, image_channels=3, channels=8, latent_dim=16)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int,
        latent_dim: int,
        num_classes: int = 0,
        widths: Sequence[int] = (),
        bias: bool = False,
        tanh: bool = True,
    ) -> None:
        super().__init__()
        widths = _widths(resolution, channels, widths, num_classes)[::-1] if not widths else list(widths)
        self.latent_dim, self.resolution, self.image_channels = latent_dim, resolution, image_channels
        bottom = _bottom(resolution, len(widths))
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4 if i else bottom, 2 if i else 1, 1 if i else 0, bias=bias)
            for i, (a, b) in enumerate(itertools.pairwise([latent_dim, *widths, image_channels]))
        )
        self.norms = nn.ModuleList(_norm(width) for width in widths)
        self.tanh = tanh
        _initialize(self)

    def first_layer(self) -> nn.Module:
        """Return the convolution that takes the latent."""
        return self.convs[0]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) in [-1, 1] of z (n, latent_dim)."""
        self.check(z, y)
        x = z[:, :, None, None]
        for conv, norm in zip(self.convs, self.norms, strict=False):
            x = functional.relu(norm(conv(x)))
        x = self.convs[-1](x)
        return x.tanh() if self.tanh else x


@DISCRIMINATORS.register("dcgan-tutorial")
class DCGANTutorialDiscriminator(Discriminator):
    """A discriminator: 4x4 convolutions of stride 2 down to the last map, and one convolution over that map.

    Leaky ReLU of slope 0.2; batch norm before it, except after the first convolution.

    Args:
        channels: width of the first map; each further map has twice as many. 64 in the paper.
        widths: widths of the maps instead, from the first to the last.
        bias: whether the convolutions have a bias.

    Raises:
        UserError: the resolution is not a power of two from 8 to 1024, without ``widths``.

    Source: Radford et al. 2016, arXiv:1511.06434, as in the DCGAN tutorial of PyTorch, without its sigmoid.

    Example:
        >>> import torch
        >>> from orthogan.models import DCGANTutorialDiscriminator
        >>> critic = DCGANTutorialDiscriminator(resolution=32, image_channels=3, channels=8)
        >>> critic(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int,
        num_classes: int = 0,
        widths: Sequence[int] = (),
        bias: bool = False,
    ) -> None:
        super().__init__()
        widths = _widths(resolution, channels, widths, num_classes)
        top = _bottom(resolution, len(widths))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, 2, 1, bias=bias) for a, b in itertools.pairwise([image_channels, *widths])
        )
        self.norms = nn.ModuleList(_norm(width) for width in widths[1:])
        self.last = nn.Conv2d(widths[-1], 1, top, bias=bias)
        _initialize(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w)."""
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = functional.leaky_relu(self.norms[i - 1](x) if i else x, SLOPE)
        return self.last(x).flatten()


def _widths(resolution: int, channels: int, widths: Sequence[int], num_classes: int) -> list[int]:
    """Return the widths of the maps of 1/2, 1/4, … of the size."""
    if num_classes:
        raise UserError(f"data.labels: dcgan-tutorial is unconditional and does not support {num_classes} classes")
    if widths:
        return list(widths)
    if resolution not in RESOLUTIONS:
        raise unsupported_resolution("dcgan-tutorial", resolution, RESOLUTIONS)
    return [channels << i for i in range(RESOLUTIONS.index(resolution) + 1)]


def _bottom(resolution: int, maps: int) -> int:
    bottom, rest = divmod(resolution, 1 << maps)
    if rest or not 1 <= bottom <= 16:
        raise ValueError(
            f"a resolution of {resolution} is not a small map doubled {maps} times, as dcgan-tutorial needs"
        )
    return bottom


def _norm(width: int) -> BatchNorm2d:
    norm = BatchNorm2d(width)
    norm.eps = EPS
    return norm


def _initialize(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, STD)
