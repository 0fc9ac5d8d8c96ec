"""A small classifier and images that it classifies rightly, for the tests of attacks."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from orthogan.data import ArraySource, to_float

CLASSES, SIDE = 4, 8


def net(seed: int = 0, *, channels: int = 3) -> nn.Module:
    """Convolution, batch norm with statistics of its own, ReLU, a linear layer; in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * SIDE**2, CLASSES),
        )
        norm = made[1]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        norm.running_mean.normal_(std=0.1)
    return made


def pictures(count: int = 24, *, channels: int = 3, seed: int = 1) -> np.ndarray:
    """uint8 (count, channels, 8, 8), none of them at the ends of the range."""
    return np.random.default_rng(seed).integers(40, 216, (count, channels, SIDE, SIDE), dtype=np.uint8)


def answers(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the net says in eval mode; its mode is restored."""
    mode = module.training
    with torch.no_grad():
        found = module.eval()(images).argmax(1)
    module.train(mode)
    return found


def source(module: nn.Module, count: int = 24, *, wrong: int = 0, channels: int = 3) -> ArraySource:
    """Pictures with the net's own answers as labels, but for the first ``wrong``, whose labels are others."""
    images = pictures(count, channels=channels)
    labels = answers(module, to_float(torch.from_numpy(images), dequantize=False)).numpy()
    labels[:wrong] = (labels[:wrong] + 1) % CLASSES
    return ArraySource("pictures", images, labels=labels, class_names=[f"class {k}" for k in range(CLASSES)])
