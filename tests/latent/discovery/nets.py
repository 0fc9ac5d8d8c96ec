"""Generators whose directions are known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


def frame(dim: int, seed: int = 0) -> np.ndarray:
    """A fixed orthogonal matrix (dim, dim)."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def assert_same_lines(found: np.ndarray, expected: np.ndarray, cosine: float = 1 - 1e-6) -> None:
    """Row i of both lies on one line through 0, up to ``cosine``."""
    assert found.shape == expected.shape
    size = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert (np.abs((found * expected).sum(axis=1)) / size).min() > cosine


def assert_same_frame(found: np.ndarray, expected: np.ndarray, cosine: float) -> None:
    """Each row of ``found`` lies on a line of its own among the orthonormal rows of ``expected``."""
    overlap = np.abs(found @ expected.T)
    assert sorted(overlap.argmax(axis=1)) == list(range(len(expected)))
    assert overlap.max(axis=1).min() > cosine


class Linear(nn.Module):
    """Images (n, 1, 1, outputs) = U diag(sigma) V z + 3, with V and sigma known; batch norm and ReLU on demand."""

    def __init__(self, sigma: list[float], *, outputs: int = 12, seed: int = 0, num_classes: int = 0) -> None:
        super().__init__()
        self.latent_dim, self.num_classes = len(sigma), num_classes
        self.v = frame(self.latent_dim, seed)
        u = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(outputs, self.latent_dim)))[0]
        self.fc = nn.Linear(self.latent_dim, outputs)
        with torch.no_grad():
            self.fc.weight.copy_(torch.from_numpy(u @ np.diag(sigma) @ self.v))
            self.fc.bias.fill_(3.0)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        out = self.fc(z)
        if y is not None:
            out = out * (1 + y.float())[:, None]
        return out[:, None, None]


class Factors(nn.Module):
    """Pixel i = curve((V z)_i): in the basis V, and in no other, each direction moves one pixel."""

    def __init__(self, dim: int = 3, *, curve: Callable[[Tensor], Tensor] = torch.sin, seed: int = 0) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.curve = dim, 0, curve
        self.v = frame(dim, seed)
        self.register_buffer("rotation", torch.from_numpy(self.v).float())

    def forward(self, z: Tensor) -> Tensor:
        return self.curve(z @ self.rotation.T)[:, None, None]  # pyright: ignore


class Bars(nn.Module):
    """8 x 8 images of ``live`` horizontal bars whose brightness is tanh of a coordinate; the other ones do nothing."""

    def __init__(self, dim: int, live: int) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.live = dim, 0, live

    def forward(self, z: Tensor) -> Tensor:
        bright = (z[:, : self.live] * 0.3).tanh()
        rows = bright.repeat_interleave(8 // self.live, dim=1)
        return rows[:, None, :, None].expand(-1, 1, -1, 8)
