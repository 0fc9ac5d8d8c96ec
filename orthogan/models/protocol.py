"""What every generator and discriminator is to the rest of orthogan, and how a foreign net joins."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.rng import generator as seeded


class Generator(nn.Module):
    """z (n, latent_dim) and, if ``num_classes`` > 0, labels (n,) -> images (n, c, h, w) in [-1, 1]."""

    latent_dim: int
    num_classes: int = 0
    image_channels: int
    resolution: int

    def sample_latent(self, n: int, *, seed: int) -> Tensor:
        """``n`` latents from the prior N(0, I): (n, latent_dim) float32 on the CPU, a function of n and seed."""
        return standard_normal(n, self.latent_dim, seed=seed)

    def first_layer(self) -> nn.Module:
        """The layer whose weight maps the latent to the first features."""
        raise AttributeError(f"{type(self).__name__} names no first layer")


class Discriminator(nn.Module):
    """Images (n, c, h, w) in [-1, 1] and, if ``num_classes`` > 0, labels (n,) -> logits (n,)."""

    num_classes: int = 0


def standard_normal(n: int, dim: int, *, seed: int) -> Tensor:
    """(n, dim) float32 standard normal numbers on the CPU, a function of the arguments alone."""
    return torch.randn(n, dim, generator=seeded("cpu", seed, "latent"))


def as_generator(module: nn.Module) -> Generator:
    """``module`` as a Generator: itself, with the prior and attributes it lacks filled in.

    Raises:
        UserError: it has no integer ``latent_dim``.
    """
    if isinstance(module, Generator):
        return module
    dim = getattr(module, "latent_dim", None)
    if not isinstance(dim, int) or dim < 1:
        raise UserError(f"{type(module).__name__}: a generator needs an integer attribute latent_dim, not {dim!r}")
    if not hasattr(module, "num_classes"):
        module.num_classes = 0  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    if not hasattr(module, "sample_latent"):
        module.sample_latent = lambda n, *, seed: standard_normal(n, dim, seed=seed)  # pyright: ignore
    return module  # pyright: ignore[reportReturnType]


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8; values outside are clipped, the rest rounded to nearest."""
    return ((images.float().clamp(-1, 1) * 127.5) + 127.5).round().to(torch.uint8)
