"""A generator of coloured noise patches and a source of them, both without weights to speak of."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.data import ArraySource
from orthogan.models.protocol import Generator

EXTRACTOR = "tests.training.extractor:Moments"


class Patches(Generator):
    """Images that are smooth functions of z; with classes, brighter ones for higher labels."""

    def __init__(self, num_classes: int = 0, channels: int = 3) -> None:
        super().__init__()
        self.latent_dim, self.num_classes = 6, num_classes
        self.resolution, self.image_channels = 16, channels
        weight = torch.randn(6, channels * 16, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        coarse = (self.norm(z) @ self.weight).view(len(z), self.image_channels, 4, 4)  # pyright: ignore
        if y is not None:
            coarse = coarse + y[:, None, None, None] - (self.num_classes - 1) / 2
        return nn.functional.interpolate(coarse, scale_factor=4).tanh()


class Classifying(nn.Module):
    """Features and logits that a deterministic linear map gives."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 5, bias=False)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(5, 48, generator=generator))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.adaptive_avg_pool2d(images.float() / 255, 4).flatten(1)
        return x, self.linear(x)


class Pictures(nn.Module):
    """An extractor that forgets to pool."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float()


class Broken(nn.Module):
    """An extractor that cannot be built."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1 // 0


def source(count: int = 64, seed: int = 0, channels: int = 3) -> ArraySource:
    images = np.random.default_rng(seed).integers(0, 256, (count, channels, 16, 16), dtype=np.uint8)
    return ArraySource("noise", images)
