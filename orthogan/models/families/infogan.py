"""The small networks of InfoGAN and InfoGAN-CR on sprites (Lin et al. 2020), as in their released code at 64 px.

At other sizes there are fewer or more halvings, which is our own choice, as is what ``channels`` scales. The networks
follow those of InfoGAN (Chen et al. 2016); the output is tanh, not a sigmoid, as images here are in [-1, 1].
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.layers.batch_norm import BatchNorm1d, BatchNorm2d
from orthogan.layers.transposed import ConvTranspose2d
from orthogan.models.families.resnet_blocks import unsupported_resolution
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator
from orthogan.models.recognition import BOTTOM, SLOPE, halvings, initialise

RESOLUTIONS = (16, 32, 64, 128, 256)
EPS = 1e-5  # of the batch norms
MOMENTUM = 0.1  # of the batch norms; 1 - decay of the released code


@GENERATORS.register("infogan")
class InfoGANGenerator(Generator):
    """A generator: two linear layers to a 4x4 map, transposed conv4x4 of stride 2, batch norm after each activation.

    Widths, in multiples of ``channels``: 4 and 2 * 4 * 4 for the linear layers with ReLU, then 2, 1, 1, ... with leaky
    ReLU of slope 0.2, and tanh.

    Args:
        channels: width of the last map before the image; 32 in the paper.

    Raises:
        UserError: the resolution is not 16, 32, 64, 128 or 256, or there are classes.

    Source: the released code of Lin et al. 2020, arXiv:1906.06034.

    Example:
        >>> from orthogan.models import InfoGANGenerator
        >>> generator = InfoGANGenerator(resolution=64, image_channels=1, channels=8, latent_dim=10)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self, *, resolution: int, image_channels: int, channels: int, latent_dim: int, num_classes: int = 0
    ) -> None:
        super().__init__()
        _check(resolution, num_classes)
        self.latent_dim, self.num_classes = latent_dim, 0
        self.resolution, self.image_channels = resolution, image_channels
        self.width = 2 * channels
        stages = halvings(resolution)
        widths = [self.width, *([2 * channels] if stages > 1 else []), *([channels] * (stages - 2)), image_channels]
        self.linear = nn.Linear(latent_dim, 4 * channels)
        self.norm = BatchNorm1d(4 * channels, eps=EPS, momentum=MOMENTUM)
        self.square = nn.Linear(4 * channels, self.width * BOTTOM**2)
        self.square_norm = BatchNorm1d(self.width * BOTTOM**2, eps=EPS, momentum=MOMENTUM)
        self.ups = nn.ModuleList(ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(BatchNorm2d(width, eps=EPS) for width in widths[1:-1])
        initialise(self)

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the latent."""
        return self.linear

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) in [-1, 1] of z (n, latent_dim); labels are not supported."""
        self.check(z, y)
        x = self.norm(functional.relu(self.linear(z)))
        x = self.square_norm(functional.relu(self.square(x))).view(-1, self.width, BOTTOM, BOTTOM)
        *ups, last = self.ups
        for up, norm in zip(ups, self.norms, strict=True):
            x = norm(functional.leaky_relu(up(x), SLOPE))
        return last(x).tanh()


@DISCRIMINATORS.register("infogan")
class InfoGANDiscriminator(Discriminator):
    """A discriminator: conv4x4 of stride 2 down to 4x4, two linear layers; leaky ReLU of slope 0.2, no norm.

    Widths, in multiples of ``channels``: 1, 1, 2, 2, ... for the convolutions, 4 for the hidden layer.

    Args:
        channels: width of the first two maps; 32 in the paper.

    Raises:
        UserError: the resolution is not 16, 32, 64, 128 or 256, or there are classes.

    Source: the released code of Lin et al. 2020, arXiv:1906.06034.

    Example:
        >>> import torch
        >>> from orthogan.models import InfoGANDiscriminator
        >>> critic = InfoGANDiscriminator(resolution=64, image_channels=1, channels=8)
        >>> critic(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2])
    """

    def __init__(self, *, resolution: int, image_channels: int, channels: int, num_classes: int = 0) -> None:
        super().__init__()
        _check(resolution, num_classes)
        stages = halvings(resolution)
        widths = [image_channels, *(channels * (1 if i < 2 else 2) for i in range(stages))]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.hidden = nn.Linear(widths[-1] * BOTTOM**2, 4 * channels)
        self.linear = nn.Linear(4 * channels, 1)
        initialise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w); labels are not supported."""
        if y is not None:
            raise UserError("an infogan discriminator is unconditional: it takes no labels")
        for conv in self.convs:
            x = functional.leaky_relu(conv(x), SLOPE)
        return self.linear(functional.leaky_relu(self.hidden(x.flatten(1)), SLOPE)).squeeze(1)


def _check(resolution: int, num_classes: int) -> None:
    if resolution not in RESOLUTIONS:
        raise unsupported_resolution("infogan", resolution, RESOLUTIONS)
    if num_classes:
        raise UserError(f"data.labels: infogan is unconditional and does not support {num_classes} classes")
