"""A generator by hand: a soft disc whose position, radius, brightness … are the latent's coordinates."""

from __future__ import annotations

import torch
from torch import nn


class Disc(nn.Module):
    """z (n, dim): x, y, radius, brightness, ring and further coordinates that change nothing."""

    def __init__(self, *, dim: int = 6, resolution: int = 32, channels: int = 1, num_classes: int = 0) -> None:
        super().__init__()
        self.latent_dim = dim
        self.resolution = resolution
        self.image_channels = channels
        self.num_classes = num_classes
        axis = torch.linspace(-1, 1, resolution)
        self.register_buffer("x", axis[None, None, :])
        self.register_buffer("y", axis[None, :, None])
        self.strength = nn.Parameter(torch.tensor(0.22))

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        part = z[:, :, None, None].tanh()
        reach = self.strength * 2
        distance = ((self.x - reach * part[:, 0]) ** 2 + (self.y - reach * part[:, 1]) ** 2).sqrt()
        radius = 0.35 + 0.2 * part[:, 2]
        disc = torch.sigmoid((radius - distance) * 18)
        image = (disc * (0.6 + 0.4 * part[:, 3]))[:, None] * 2 - 1
        if self.num_classes:
            assert y is not None
            image = image * (0.4 + 0.6 * (y.float()[:, None, None, None] + 1) / self.num_classes)
        if self.image_channels == 3:
            tint = torch.stack([torch.ones_like(part[:, 4, 0, 0]), part[:, 4, 0, 0], -part[:, 4, 0, 0]], dim=1)
            image = image * (0.6 + 0.4 * tint[:, :, None, None])
        return image

    def sample_latent(self, n: int, *, seed: int) -> torch.Tensor:
        return torch.randn(n, self.latent_dim, generator=torch.Generator().manual_seed(seed))


class Affine(nn.Module):
    """images = W z + b through one linear layer: every frame of a traversal is known in closed form."""

    def __init__(self, *, dim: int = 5, resolution: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.latent_dim = dim
        self.num_classes = 0
        self.image_channels = 1
        self.resolution = resolution
        self.fc = nn.Linear(dim, resolution**2)
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.fc.weight.copy_(torch.randn(resolution**2, dim, generator=source) * 0.1)
            self.fc.bias.copy_(torch.randn(resolution**2, generator=source) * 0.1)

    def first_layer(self) -> nn.Module:
        return self.fc

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.fc(z).reshape(-1, 1, self.resolution, self.resolution)

    def sample_latent(self, n: int, *, seed: int) -> torch.Tensor:
        return torch.randn(n, self.latent_dim, generator=torch.Generator().manual_seed(seed))
