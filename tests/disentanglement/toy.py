"""Data whose scores are known: ten factors of ten values, and encoders of them that are right or wrong by design."""

from __future__ import annotations

import numpy as np

from orthogan.disentanglement.codes.source import draw


def factors(rows: int, count: int = 10, size: int = 10, seed: int = 0) -> np.ndarray:
    """Integers 1 ... size, (rows, count)."""
    return np.random.default_rng(seed).integers(1, size + 1, (rows, count))


def encoders(y: np.ndarray) -> dict[str, np.ndarray]:
    """Codes of ``y`` by name."""
    rng = np.random.default_rng(1)
    x = y.astype(float)
    rotation = np.linalg.qr(rng.standard_normal((y.shape[1], y.shape[1])))[0]
    return {
        "identity": x,
        "zeros": 0 * x,
        "duplicated": np.hstack([x, x]),
        "row-permuted": np.stack([rng.permutation(row) for row in x]),
        "rotated": x @ rotation,
    }


def noisy(rows: int, sizes: tuple[int, ...], codes: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (rows, codes), random mixtures of random factors (rows, len(sizes)) and noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, sizes, (rows, len(sizes)))
    x = (y / np.array(sizes)) @ rng.standard_normal((len(sizes), codes)) ** 3
    return x + noise * rng.standard_normal(x.shape), y


class Recorder:
    """A source whose observations are its factors, and which keeps what it was asked for."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.factor_sizes = sizes
        self.asked: list[np.ndarray] = []

    def sample(self, factors: np.ndarray, /) -> np.ndarray:
        self.asked.append(factors.copy())
        return factors

    def all(self) -> np.ndarray:
        return np.concatenate(self.asked)


def some(sizes: tuple[int, ...], rows: int) -> np.ndarray:
    return draw(Recorder(sizes), (rows,), np.random.default_rng(0))
