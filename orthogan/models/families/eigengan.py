"""EigenGAN (He, Kan & Shan 2021): every layer of the generator has a linear subspace with its own latents.

Written from the paper and from the layer lists of the authors' TensorFlow code and of its PyTorch port (which the NOG
paper used). The initialization is that of the authors (He, for leaky ReLU). With torch's default, as in the port,
signals shrink from layer to layer: at 256 px a step of 1 along a noise axis then moves a pixel by 4e-8, along the last
z by 2e-3.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.layers.subspace import LatentSubspace
from orthogan.layers.transposed import ConvTranspose2d
from orthogan.models.families.resnet_blocks import square, unsupported_resolution
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator

RESOLUTIONS = (32, 64, 128, 256)
BOTTOM = 4  # side of the smallest map
WIDEST = 512
SLOPE = 0.2
Injection = Literal["both", "single"]


class EigenBlock(nn.Module):
    """A block with a subspace: (n, inputs, s, s) and z (n, dims) -> (n, outputs, 2s, 2s).

    phi = mu + sum L_k z_k U_k is added by a 1x1 deconvolution; leaky ReLU and a 3x3 deconvolution of stride 2 follow.
    With injection "both", phi is added again by a 3x3 deconvolution of stride 2; then leaky ReLU and a 3x3
    deconvolution of stride 1 follow. The layers that phi passes through are linear.
    """

    def __init__(self, inputs: int, outputs: int, side: int, dims: int, injection: Injection) -> None:
        super().__init__()
        self.subspace = LatentSubspace(dims, (inputs, side, side))
        self.inject = ConvTranspose2d(inputs, inputs, 1)
        self.inject_up = _doubling(inputs, outputs) if injection == "both" else None
        self.up = _doubling(inputs, outputs)
        self.conv = ConvTranspose2d(outputs, outputs, 3, padding=1)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """Map (n, inputs, s, s), (n, dims) to (n, outputs, 2s, 2s)."""
        phi = self.subspace(z)
        h = self.up(functional.leaky_relu(h + self.inject(phi), SLOPE))
        if self.inject_up is not None:
            h = h + self.inject_up(phi)
        return self.conv(functional.leaky_relu(h, SLOPE))


@GENERATORS.register("eigengan")
class EigenGANGenerator(Generator):
    """A generator: linear from noise to a 4x4 map, a block with a subspace per doubling, leaky ReLU, conv7x7, tanh.

    z (n, latent_dim) holds the coordinates z_1 (of the 4x4 map), ..., z_k of the k subspaces, ``dims`` each, followed
    by the noise epsilon: latent_dim = k * dims + noise, k = log2(resolution) - 2. Published at 256 px: 6 * 6 + 512.

    Args:
        channels: width at full size, doubled at each halving up to 512. The port has 16 at every resolution; the
            authors' code has 16 at 256 px, 32 at 128 px and so on.
        dims: dimension of each subspace.
        injection: where phi enters a block: "both" before and after the doubling, as in both released codes, "single"
            only before it, as in the formula of the paper, h' = Conv2x(h + f(phi)) with f a 1x1 convolution.

    Raises:
        UserError: the resolution is not 32, 64, 128 or 256, or there are classes.
        ValueError: an unknown injection, or a latent too small to leave any noise.

    Source: He, Kan & Shan 2021, arXiv:2104.12476.

    Example:
        >>> from orthogan.models import EigenGANGenerator
        >>> generator = EigenGANGenerator(resolution=32, image_channels=1, channels=4, latent_dim=26)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int,
        latent_dim: int,
        num_classes: int = 0,
        dims: int = 6,
        injection: Injection = "both",
    ) -> None:
        super().__init__()
        widths = _widths(resolution, channels, num_classes)
        depth = len(widths) - 1
        if injection not in get_args(Injection):
            raise ValueError(f"injection is {injection!r}: choose {' or '.join(get_args(Injection))}")
        self.dims, self.noise_dim = dims, latent_dim - depth * dims
        if self.noise_dim < 1:
            raise ValueError(
                f"latent_dim is {latent_dim}: {depth} subspaces of {dims} dimensions leave no dimensions for the "
                f"noise; use at least {depth * dims + 1}"
            )
        self.latent_dim, self.num_classes = latent_dim, 0
        self.resolution, self.image_channels = resolution, image_channels
        self.linear = nn.Linear(self.noise_dim, widths[0] * BOTTOM**2)
        self.blocks = nn.ModuleList(
            EigenBlock(a, b, BOTTOM << i, dims, injection) for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.conv = nn.Conv2d(widths[-1], image_channels, 7, padding=3)
        _initialise(self)

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes only the noise: its singular vectors are not latent directions."""
        return self.linear

    def subspaces(self) -> list[tuple[str, LatentSubspace]]:
        """Return (dotted name, subspace) of each block, starting with the 4x4 map."""
        return [(f"blocks.{i}.subspace", block.subspace) for i, block in enumerate(self.blocks)]  # pyright: ignore

    def native_directions(self) -> Tensor:
        """Return the axes of z_1, ..., z_k (k * dims, latent_dim), by layer and within a layer by descending |L|."""
        order = torch.tensor([i * self.dims + dim for i, dim, _ in self._ranked()])
        return torch.eye(self.latent_dim)[order]

    def native_names(self) -> list[str]:
        """Return layer and dimension of each axis, from 1: "z1.6"."""
        return [f"z{i + 1}.{dim + 1}" for i, dim, _ in self._ranked()]

    def native_scores(self) -> dict[str, list[float]]:
        """Return |L| of each axis."""
        return {"|L|": [size for _, _, size in self._ranked()]}

    def _ranked(self) -> list[tuple[int, int, float]]:
        """Return (layer, dimension, |L|), by layer and descending |L|."""
        sizes = [subspace.L.detach().abs().tolist() for _, subspace in self.subspaces()]
        return [(i, d, row[d]) for i, row in enumerate(sizes) for d in sorted(range(len(row)), key=lambda d: -row[d])]

    def subspace_report(self) -> dict[str, dict[str, float]]:
        """Return, per subspace name, ``orthogonality_error`` ||U U^T - I||_F, and ``L0``, ``L1``, ... as they are."""
        return {
            name: {"orthogonality_error": subspace.orthogonality_error()}
            | {f"L{i}": value for i, value in enumerate(subspace.L.tolist())}
            for name, subspace in self.subspaces()
        }

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) in [-1, 1] of z (n, latent_dim); labels are not supported."""
        self.check(z, y)
        *parts, noise = z.split([self.dims] * len(self.blocks) + [self.noise_dim], 1)
        h = self.linear(noise)
        h = square(h, h.shape[1] // BOTTOM**2, BOTTOM)
        for block, part in zip(self.blocks, parts, strict=True):
            h = block(h, part)
        return self.conv(functional.leaky_relu(h, SLOPE)).tanh()


@DISCRIMINATORS.register("eigengan")
class EigenGANDiscriminator(Discriminator):
    """A discriminator: conv7x7, conv3x3 and conv3x3 of stride 2 per halving, conv3x3, two linear layers; leaky ReLU.

    Args:
        channels: width at full size, doubled at each halving up to 512; 16 at 256 px in the paper.

    Raises:
        UserError: the resolution is not 32, 64, 128 or 256, or there are classes.

    Source: He, Kan & Shan 2021, arXiv:2104.12476.

    Example:
        >>> import torch
        >>> from orthogan.models import EigenGANDiscriminator
        >>> critic = EigenGANDiscriminator(resolution=32, image_channels=1, channels=4)
        >>> critic(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(self, *, resolution: int, image_channels: int, channels: int, num_classes: int = 0) -> None:
        super().__init__()
        widths = _widths(resolution, channels, num_classes)[::-1]
        layers = [nn.Conv2d(image_channels, channels, 7, padding=3)]
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, a, 3, padding=1), nn.Conv2d(a, b, 3, stride=2, padding=1)]
        top = widths[-1]
        layers.append(nn.Conv2d(top, top, 3, padding=1))
        self.convs = nn.ModuleList(layers)
        self.hidden = nn.Linear(top * BOTTOM**2, top)
        self.linear = nn.Linear(top, 1)
        _initialise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (n,) of images (n, c, h, w); labels are not supported."""
        if y is not None:
            raise UserError("an eigengan discriminator is unconditional: it takes no labels")
        for conv in self.convs:
            x = functional.leaky_relu(conv(x), SLOPE)
        return self.linear(functional.leaky_relu(self.hidden(x.flatten(1)), SLOPE)).squeeze(1)


def _widths(resolution: int, channels: int, num_classes: int) -> list[int]:
    """Return the channels of the maps, from the 4x4 map to full size."""
    if resolution not in RESOLUTIONS:
        raise unsupported_resolution("eigengan", resolution, RESOLUTIONS)
    if num_classes:
        raise UserError(f"data.labels: eigengan is unconditional and does not support {num_classes} classes")
    depth = int(math.log2(resolution // BOTTOM))
    # never narrower than requested, if that is above the usual limit
    return [min(channels << (depth - i), max(WIDEST, channels)) for i in range(depth + 1)]


def _doubling(inputs: int, outputs: int) -> ConvTranspose2d:
    return ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


def _initialise(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            # fan of a transposed kernel is counted by its output channels here, as in TensorFlow
            nn.init.kaiming_normal_(layer.weight, SLOPE)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
