"""The vanilla GAN in which NOG (Song, Sebe & Wang 2022) and OroJaR (Wei et al. 2021) look for latent directions.

The layer lists are those of the released code at 64 and 128 px; the shorter one at 32 px is our own, and so is the
choice of what ``channels`` scales. The initialization is torch's default, as in that code.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.layers.transposed import ConvTranspose2d
from orthogan.models.families.resnet_blocks import unsupported_resolution
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator

BOTTOM = 4  # side of the smallest map
SLOPE = 0.2  # of the generator's leaky ReLU
EPS = 1e-6


@dataclass(frozen=True)
class Plan:
    """Widths of the layers, in multiples of the base ``channels``."""

    up: tuple[int, ...]  # G: width of the 4x4 map, then after each doubling
    down: tuple[int, ...]  # D: width after each halving; the last is also that of the hidden linear layer
    hidden_relu: bool  # D: whether there is a ReLU between its two linear layers


PLANS = {
    32: Plan((4, 4, 2, 1), (1, 2, 4), hidden_relu=True),
    64: Plan((8, 4, 2, 1, 1), (1, 2, 4, 8), hidden_relu=True),
    128: Plan((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16), hidden_relu=False),
}


@GENERATORS.register("simple-gan")
class SimpleGANGenerator(Generator):
    """A generator of transposed convolutions with instance norm.

    A transposed conv4x4 from z to a 4x4 map (no norm, no activation), then one of stride 2 per doubling, with instance
    norm and leaky ReLU; conv3x3, tanh.

    Args:
        channels: width at full size; 64 in the papers, which makes the first map 1,024 x 4 x 4 at 128 px.

    Raises:
        UserError: the resolution is not 32, 64 or 128, or there are classes.

    Example:
        >>> from orthogan.models import SimpleGANGenerator
        >>> generator = SimpleGANGenerator(resolution=32, image_channels=3, channels=8, latent_dim=16)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, *, resolution: int, image_channels: int, channels: int, latent_dim: int, num_classes: int = 0
    ) -> None:
        super().__init__()
        plan = _plan(resolution, num_classes)
        self.latent_dim, self.num_classes = latent_dim, 0
        self.resolution, self.image_channels = resolution, image_channels
        widths = [channels * factor for factor in plan.up]
        self.first = ConvTranspose2d(latent_dim, widths[0], BOTTOM)
        self.ups = nn.ModuleList(
            ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(_norm(width) for width in widths[1:])
        self.conv = nn.Conv2d(widths[-1], image_channels, 3, padding=1)

    def first_layer(self) -> nn.Module:
        """Return the transposed convolution that takes the latent: the layer of NOG, OLR and SeFa in the paper."""
        return self.first

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) in [-1, 1] of z (n, latent_dim); labels are not supported."""
        self.check(z, y)
        x = self.first(z[:, :, None, None])
        for up, norm in zip(self.ups, self.norms, strict=True):
            x = functional.leaky_relu(norm(up(x)), SLOPE)
        return self.conv(x).tanh()


@DISCRIMINATORS.register("simple-gan")
class SimpleGANDiscriminator(Discriminator):
    """A discriminator: conv4x4 of stride 2 per halving, ReLU, instance norm from the second on; two linear layers.

    At 128 px there is no activation between the two linear layers, as in the released code; at the other sizes there is
    a ReLU.

    Args:
        channels: width after the first halving; 64 in the papers.

    Raises:
        UserError: the resolution is not 32, 64 or 128, or there are classes.

    Example:
        >>> import torch
        >>> from orthogan.models import SimpleGANDiscriminator
        >>> critic = SimpleGANDiscriminator(resolution=32, image_channels=3, channels=8)
        >>> critic(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(self, *, resolution: int, image_channels: int, channels: int, num_classes: int = 0) -> None:
        super().__init__()
        plan = _plan(resolution, num_classes)
        widths = [image_channels, *(channels * factor for factor in plan.down)]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1, bias=i == 0) for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.norms = nn.ModuleList(_norm(width) for width in widths[2:])
        self.hidden = nn.Linear(widths[-1] * BOTTOM**2, widths[-1])
        self.hidden_relu = plan.hidden_relu
        self.linear = nn.Linear(widths[-1], 1)

    def image_blocks(self) -> list[tuple[str, list[nn.Module]]]:
        """Return the blocks by name; a convolution and its norm are one block."""
        norms = [[], *([norm] for norm in self.norms)]
        blocks = [(f"convs.{i}", [conv, *norm]) for i, (conv, norm) in enumerate(zip(self.convs, norms, strict=True))]
        return [*blocks, ("hidden", [self.hidden]), ("linear", [self.linear])]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w); labels are not supported."""
        if y is not None:
            raise UserError("a simple-gan discriminator is unconditional: it takes no labels")
        x = functional.relu(self.convs[0](x))
        for conv, norm in zip(list(self.convs)[1:], self.norms, strict=True):
            x = functional.relu(norm(conv(x)))
        hidden = self.hidden(x.flatten(1))
        return self.linear(functional.relu(hidden) if self.hidden_relu else hidden).squeeze(1)


def _norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, eps=EPS, affine=True)


def _plan(resolution: int, num_classes: int) -> Plan:
    if resolution not in PLANS:
        raise unsupported_resolution("simple-gan", resolution, PLANS)
    if num_classes:
        raise UserError(f"data.labels: simple-gan is unconditional and does not support {num_classes} classes")
    return PLANS[resolution]
