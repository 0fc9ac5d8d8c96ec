"""The StyleGAN2 of lucidrains/stylegan2-pytorch exactly as its code computes it, so that it takes its weights.

It differs from the published one: styles are added to 1, one w serves all layers of a size, the noise is uniform and
enters each channel by a weight and a bias, maps and images are doubled bilinearly, and images are blurred on top.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.linalg.precision import at_least_float32
from orthogan.models.families.modulation import (
    Style,
    double,
    hash_noise,
    latent_seeds,
    modulated_conv2d,
    style_of,
)
from orthogan.models.families.official.stylegan2 import NoiseMode
from orthogan.models.families.resnet_blocks import unsupported_resolution
from orthogan.models.families.style_based import StyleBased
from orthogan.models.families.stylegan2 import BOTTOM
from orthogan.models.protocol import GENERATORS, standard_normal

SIZES = tuple(8 << i for i in range(9))
SLOPE = 0.2
MEAN_OF = 2000  # latents for the mean of w, as its code draws them


class ScaledLinear(nn.Linear):
    """A linear layer whose weight and bias are multiplied by ``rate``."""

    def __init__(self, width: int, rate: float) -> None:
        super().__init__(width, width)
        self.rate = rate
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map (n, width) to (n, width)."""
        return functional.linear(input, self.weight * self.rate, self.bias * self.rate)


class ShiftedConv(nn.Module):
    """A modulated convolution: the style is 1 + ``affine`` of w. ``noise``: its noise has a weight per channel."""

    def __init__(self, inputs: int, outputs: int, kernel: int, w_dim: int, *, noise: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="leaky_relu")
        self.affine: nn.Module = nn.Linear(w_dim, inputs)
        self.noise = nn.Linear(1, outputs) if noise else None
        if self.noise is not None:
            nn.init.zeros_(self.noise.weight)
            nn.init.zeros_(self.noise.bias)

    def forward(self, x: Tensor, w: Tensor | Style, noise: Tensor | None = None) -> Tensor:
        """Apply to maps (n, in, s, s), w (n, w_dim) or a style, and noise (1 or n, 1, s, s)."""
        h = modulated_conv2d(x, self.weight, 1 + style_of(self, w), demodulate=self.noise is not None)
        if self.noise is None:
            return h
        added = self.noise.bias[:, None, None]
        if noise is not None:
            added = added + noise.to(added.dtype) * self.noise.weight[:, :, None]
        return functional.leaky_relu(h + added.to(h.dtype), SLOPE)


class LucidBlock(nn.Module):
    """Two convolutions after a bilinear doubling (not in the first block), and one to the image."""

    def __init__(self, inputs: int, outputs: int, image_channels: int, w_dim: int) -> None:
        super().__init__()
        self.conv1 = ShiftedConv(inputs, outputs, 3, w_dim, noise=True)
        self.conv2 = ShiftedConv(outputs, outputs, 3, w_dim, noise=True)
        self.to_rgb = ShiftedConv(outputs, image_channels, 1, w_dim, noise=False)


@GENERATORS.register("stylegan2-lucidrains")
class LucidrainsStyleGAN2Generator(StyleBased):
    """The generator of lucidrains/stylegan2-pytorch, without attention: z -> ``mapping`` -> w -> image.

    In eval mode the noise is one stored map of uniform numbers (``noise_mode`` "fixed"), a hash of the latent
    ("random"), or absent ("none"). In training it is a hash of the latent.

    Args:
        channels: width at full size, twice the ``network_capacity``; doubled at each halving up to ``widest``.
        mapping_layers, mapping_rate: number of layers of the mapping network, and the factor of their weights.

    Raises:
        UserError: the resolution is not a power of two from 8 to 2048, or there are classes.

    Source: https://github.com/lucidrains/stylegan2-pytorch, after Karras et al. 2020, arXiv:1912.04958.

    Example:
        >>> from orthogan.models import LucidrainsStyleGAN2Generator
        >>> generator = LucidrainsStyleGAN2Generator(resolution=32, image_channels=3, channels=8, latent_dim=16)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 32, 32])
    """

    noise_const: Tensor

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int,
        latent_dim: int,
        num_classes: int = 0,
        mapping_layers: int = 8,
        mapping_rate: float = 0.1,
        widest: int = 512,
        noise_mode: NoiseMode = "fixed",
    ) -> None:
        super().__init__()
        if resolution not in SIZES:
            raise unsupported_resolution("stylegan2-lucidrains", resolution, SIZES)
        if num_classes:
            raise UserError(f"data.labels: stylegan2-lucidrains does not support {num_classes} classes")
        widths = [min(channels * (resolution >> i), widest) for i in range(2, resolution.bit_length())]
        self.latent_dim, self.w_dim, self.noise_mode = latent_dim, latent_dim, noise_mode
        self.resolution, self.image_channels, self.num_ws = resolution, image_channels, len(widths)
        self.mapper = nn.ModuleList(ScaledLinear(latent_dim, mapping_rate) for _ in range(mapping_layers))
        self.constant = nn.Parameter(torch.randn(widths[0], BOTTOM, BOTTOM))
        self.conv = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        pairs = itertools.pairwise([widths[0], *widths])
        self.blocks = nn.ModuleList(LucidBlock(a, b, image_channels, latent_dim) for a, b in pairs)
        self.register_buffer("w_mean", torch.zeros(latent_dim))
        self.register_buffer("noise_const", torch.rand(resolution, resolution))

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the latent, after its normalization."""
        return self.mapper[0]

    def style_parts(self) -> list[tuple[str, nn.Module, int]]:
        """Return (dotted name, layer, row of ws) of every style; all layers of a size take the same row."""
        return [
            (f"blocks.{i}.{name}", block.get_submodule(name), i)
            for i, block in enumerate(self.blocks)
            for name in ("conv1", "conv2", "to_rgb")
        ]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of z (n, latent_dim); near [-1, 1], unbounded."""
        drawn = self.training or self.noise_mode == "random"
        return self.synthesis(self.mapping(z, y), latent_seeds(z) if drawn else None)

    def map_latent(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Map z (n, latent_dim) to w (n, latent_dim), in at least float32."""
        with torch.autocast(z.device.type, enabled=False):
            w = functional.normalize(at_least_float32(z), dim=1)
            for layer in self.mapper:
                w = functional.leaky_relu(layer(w), SLOPE)
        return w

    @torch.no_grad()
    def measure_mean(self) -> None:
        """Set ``w_mean`` to the mean of w of some latents; the files of its authors do not hold it."""
        training, self.training = self.training, False
        self.w_mean.copy_(self.mapping(standard_normal(MEAN_OF, self.latent_dim, seed=0).to(self.w_mean)).mean(0))
        self.training = training

    def render(self, takes: Sequence[Tensor | Style], seeds: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of a w (n, w_dim) or a ``Style`` per entry of ``style_parts``."""
        noise = None
        if seeds is not None:
            noise = (1 + torch.erf(hash_noise(seeds, 0, self.resolution) / math.sqrt(2))) / 2
        elif self.noise_mode != "none":
            noise = self.noise_const[None, None]
        x, image, rest = self.conv(self.constant[None]), None, iter(takes)
        for i, block in enumerate(self.blocks):
            x = double(x) if i else x
            side = BOTTOM << i
            part = None if noise is None else noise[:, :, :side, :side].mT
            x = block.conv1(x, next(rest), part)  # pyright: ignore[reportCallIssue]
            x = block.conv2(x, next(rest), part)  # pyright: ignore[reportCallIssue]
            rgb = at_least_float32(block.to_rgb(x, next(rest)))  # pyright: ignore[reportCallIssue]
            image = rgb if image is None else image + rgb
            image = image if i == len(self.blocks) - 1 else soften(double(image))
        assert image is not None
        return image * 2 - 1


def soften(x: Tensor) -> Tensor:
    """Convolve every channel with the outer product of [1, 2, 1] / 4 with itself, with reflected edges."""
    place = torch.arange(3, device=x.device, dtype=x.dtype)
    taps = (1 + place * (2 - place)) / 4
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)
    return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1])
