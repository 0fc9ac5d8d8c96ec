"""The networks of SN-GAN at 32 px in the form of the paper, with ordinary layers, for the plain loop.

They compute the same functions as ``orthogan.models.families.sngan`` and have the same parameters in the same order. A
block that upsamples does so before each convolution, including that of the shortcut; a block that downsamples averages
after each convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from orthogan.models.protocol import Generator

GAIN = 2**0.5  # gain of the weights before a ReLU
EPS = 2e-5  # epsilon of the batch norms in the authors' code


class Up(nn.Module):
    """A residual block that doubles the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(width, eps=EPS),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width, eps=EPS),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.shortcut = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, 2h, 2w)."""
        return self.residual(x) + self.shortcut(x)


class Down(nn.Module):
    """A residual block of D; ``half``: it halves the size; ``first``: its inputs are the images."""

    def __init__(self, inputs: int, width: int, *, half: bool, first: bool = False) -> None:
        super().__init__()
        layers = [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
        self.residual = nn.Sequential(*([] if first else [nn.ReLU()]), *layers, *([nn.AvgPool2d(2)] if half else []))
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1), nn.AvgPool2d(2)) if half else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, width, h/2, w/2), or the same size without ``half``."""
        return self.residual(x) + self.shortcut(x)


class PlainGenerator(Generator):
    """z (n, latent_dim) -> images (n, c, 32, 32) in [-1, 1]."""

    resolution = 32

    def __init__(self, channels: int, latent_dim: int, image_channels: int) -> None:
        super().__init__()
        self.latent_dim, self.image_channels = latent_dim, image_channels
        self.first = nn.Linear(latent_dim, channels * 4 * 4)
        self.blocks = nn.Sequential(Up(channels), Up(channels), Up(channels))
        last = nn.Conv2d(channels, image_channels, 3, padding=1)
        self.last = nn.Sequential(nn.BatchNorm2d(channels, eps=EPS), nn.ReLU(), last, nn.Tanh())
        initialise(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Not conditional: ``y`` is None."""
        x = self.first(z)
        return self.last(self.blocks(x.view(len(x), -1, 4, 4)))


class PlainDiscriminator(nn.Module):
    """Images (n, c, 32, 32) -> logits (n, 1)."""

    def __init__(self, channels: int, image_channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            Down(image_channels, channels, half=True, first=True),
            Down(channels, channels, half=True),
            Down(channels, channels, half=False),
            Down(channels, channels, half=False),
            nn.ReLU(),
        )
        self.last = nn.Linear(channels, 1, bias=False)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """A linear layer maps the SUM over the last feature map to the logit."""
        return self.last(self.blocks(x).sum((2, 3)))


def initialise(net: nn.Module) -> None:
    """Glorot-uniform weights (with the gain of a ReLU for 3x3 convolutions in blocks) and zero biases."""
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, GAIN if "residual" in name else 1.0)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def normalised(net: nn.Module) -> nn.Module:
    """``net`` with torch's spectral norm on every convolution and linear layer."""
    for layer in list(net.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            spectral_norm(layer)
    return net


def copy_parameters(net: nn.Module, to: nn.Module) -> None:
    """Copy the parameters of ``net`` to ``to``, in order; raises ValueError if their shapes differ."""
    with torch.no_grad():
        for theirs, ours in zip(net.parameters(), to.parameters(), strict=True):
            if theirs.shape != ours.shape:
                raise ValueError(f"{tuple(theirs.shape)} does not go into {tuple(ours.shape)}")
            ours.copy_(theirs)
