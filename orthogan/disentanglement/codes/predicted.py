"""Codes and predicted factors of generated images, which make array metrics applicable to a GAN."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.disentanglement.codes.coordinates import BATCH, LatentCoordinates, subject
from orthogan.disentanglement.codes.oracle import FactorClassifier
from orthogan.latent.directions import Directions
from orthogan.progress import progress_bar
from orthogan.rng import derive

STEADY = 0.999  # a factor counts as constant if this fraction of the images has the same value
RARE = 20  # values with fewer images are too rare to split into training and test rows


class Predicted(NamedTuple):
    """Predictions of an oracle on n images drawn from the prior.

    Attributes:
        codes: coordinates along the directions, float64 (n, k).
        factors: predicted factors, int64 (n, K).
        confidence: their mean probability, (K,).
        latents: (n, latent_dim).

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from orthogan.disentanglement import Predicted
        >>> seen = Predicted(np.zeros((8, 3)), np.zeros((8, 2), np.int64), np.ones(2), torch.zeros(8, 3))
        >>> codes, factors, confidence, latents = seen
        >>> codes.shape
        (8, 3)
    """

    codes: np.ndarray
    factors: np.ndarray
    confidence: np.ndarray
    latents: Tensor


def predicted_factors(
    generator: nn.Module,
    oracle: FactorClassifier,
    directions: Directions | None = None,
    n: int = 10_000,
    seed: int = 0,
    *,
    y: int | None = None,
    progress: bool = False,
) -> Predicted:
    """Predict the factors of ``n`` images of ``generator``, with their coordinates along ``directions``.

    In the spirit of MIG-gen (Nie et al., ICML 2020): ``mig(codes, factors)`` and others then apply unchanged. Compare
    the confidence with that on real images (``oracle.confidence``) to see whether the images resemble them.

    Args:
        generator: the generator of the images.
        oracle: the classifier of the factors, from ``train_oracle`` or ``oracle_for``.
        directions: the directions of the coordinates; default: the native ones.
        n: number of images.
        seed: of the latents.
        y: class of all images; None means a random class per image, if there are classes.
        progress: show a progress bar.

    Raises:
        ValueError: the oracle has another image size.
        UserError: the directions or the class are invalid.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import predicted_factors, train_oracle
        >>> sprites = orthogan.open_source("sprites", count=64, channels=1)
        >>> oracle = train_oracle(sprites, steps=2, batch_size=8, held_out=20, precision="float32", progress=False)
        >>> seen = predicted_factors(orthogan.load("sprites-sngan"), oracle, n=8)
        >>> seen.codes.shape, len(seen.factors)
        ((8, 16), 8)
    """
    with subject(generator, directions, y=y) as seen:
        return predict_factors(seen, oracle, n, seed, progress=progress)


def predict_factors(
    seen: LatentCoordinates, oracle: FactorClassifier, n: int, seed: int, *, progress: bool = False
) -> Predicted:
    """Compute Compute ``predicted_factors`` of an open subject."""
    if n < 1:
        raise ValueError(f"samples={n}: must be at least 1")
    z, labels = seen.draw(n, derive(seed, "predicted factors"))
    answers, sure = [], []
    with progress_bar(total=n, desc="factors of fakes", unit="img", disable=not progress, leave=False) as bar:
        for few in torch.arange(n).split(BATCH):
            read = oracle.read(seen.images(z[few], None if labels is None else labels[few]))
            answers.append(read[0])
            sure.append(read[1])
            bar.update(len(few))
    confidence = np.concatenate(sure).mean(0, dtype=np.float64)
    return Predicted(seen.coordinates.of(z).double().numpy(), np.concatenate(answers), confidence, z)


def varying_factors(factors: np.ndarray) -> list[int]:
    """Return the columns of (n, K) in which no value takes up ``STEADY`` or more of the rows."""
    shares = [np.bincount(column).max() / len(column) for column in factors.T]
    return [j for j, share in enumerate(shares) if share < STEADY]


def without_rare(codes: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows whose value of every factor occurs in at least ``RARE`` of the remaining rows."""
    kept = np.ones(len(factors), bool)
    while True:
        common = kept.copy()
        for column in factors.T:
            common &= np.bincount(column[kept], minlength=int(column.max()) + 1)[column] >= RARE
        if (common == kept).all():
            return codes[kept], factors[kept]
        kept = common
