"""A generator and labelled pictures that belong together: four quadrants, each as bright as one number says."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.data import ArraySource
from orthogan.disentanglement import Oracle, train_oracle

SIDE = 4
LEVELS = (-0.8, 0.0, 0.8)
NAMES = ("nw", "ne", "sw", "se")


def paint(values: Tensor) -> Tensor:
    """Brightness (n, 4) -> images (n, 1, 4, 4)."""
    return values.reshape(-1, 1, 2, 2).repeat_interleave(SIDE // 2, 2).repeat_interleave(SIDE // 2, 3)


class Quadrants(nn.Module):
    """z (n, dim): coordinate i moves quadrant ``moves[i]``, None nothing; with classes the whole gets darker."""

    num_classes = 0

    def __init__(
        self, moves: tuple[int | None, ...] = (0, 1, 2, 3), *, num_classes: int = 0, gain: float = 0.5
    ) -> None:
        super().__init__()
        self.latent_dim, self.num_classes = len(moves), num_classes
        self.resolution, self.image_channels = SIDE, 1
        weight = torch.zeros(4, len(moves))
        for i, quadrant in enumerate(moves):
            if quadrant is not None:
                weight[quadrant, i] = gain
        self.weight = nn.Parameter(weight)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        values = (z @ self.weight.T).clamp(-1, 1)
        if self.num_classes:
            assert y is not None
            values = values - y[:, None] * 0.2
        return paint(values)


def labelled(copies: int = 6, seed: int = 0) -> ArraySource:
    """All 81 combinations of three levels, ``copies`` times with noise, in random order."""
    rng = np.random.default_rng(seed)
    factors = rng.permutation(np.tile(np.indices((3,) * 4).reshape(4, -1).T, (copies, 1)))
    values = np.array(LEVELS)[factors] + rng.uniform(-0.3, 0.3, factors.shape)
    images = paint(torch.from_numpy(values))
    pixels = ((images * 127.5) + 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    return ArraySource("quadrants", pixels, factors=factors, factor_names=NAMES, factor_sizes=(3,) * 4)


@cache
def taught() -> Oracle:
    """An oracle of ``labelled()``."""
    return train_oracle(labelled(), steps=80, batch_size=64, progress=False)
