"""The beta-VAE score: can a linear classifier tell which factor two sets of observations share?"""

from __future__ import annotations

import numpy as np

from orthogan.disentanglement.arrays import exponents, rescale
from orthogan.disentanglement.codes.source import ROWS, Encoder, LabelledSource, draw, encode_images, varying
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score

LARGEST = 10  # exponent of 2: larger features are scaled down to it, because the solver fails with them
ITERATIONS = 1000  # sklearn's 100 may stop early, and then the score measures the solver


@register_metric("beta_vae", train_points=800, test_points=400)
def beta_vae(
    source: LabelledSource,
    encoder: Encoder,
    *,
    train_points: int = 10_000,
    test_points: int = 5_000,
    batch: int = 64,
    standardise: bool = False,
    seed: int = 0,
) -> Score:
    """Test accuracy of finding the shared factor, from chance (1 over the number of factors that vary) to 1.

    Higgins et al. 2017 as Locatello et al. 2019: a point is a factor k, and ``batch`` pairs of observations that share
    k's value within each pair and nothing else; its feature is the mean |code - code'| (d,), its label k. Logistic
    regression, run until it converges. It saturates near 1: even an untrained encoder may pass 0.9.

    ``standardise`` scales the features by their training deviation, so that the codes' scale plays no part.

    Encodes 2 * batch * (train_points + test_points) observations: 1.9 million by default. Factors of one value are
    never k.

    Returns details "train", "factors" (the indices that k ran over), "per_factor" (test accuracy of each; NaN where
    no test point had it) and "chance".

    Raises:
        ValueError: fewer than two factors that vary, sizes that are too small, or an encoder that breaks its shape.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import GridSource, beta_vae
        >>> factors = np.argwhere(np.ones((4, 4), bool))
        >>> source = GridSource(factors, observations=factors)
        >>> beta_vae(source, lambda codes: codes, train_points=200, test_points=100, batch=16).value > 0.9
        True
    """
    factors = varying("beta_vae", source)
    if batch < 1 or test_points < 1 or train_points < 10 * len(factors):
        raise ValueError(
            f"beta_vae: train_points={train_points}, test_points={test_points}, batch={batch}: "
            f"at least {10 * len(factors)} (10 a factor), 1 and 1"
        )
    from sklearn.linear_model import LogisticRegression  # takes seconds to import

    rng = np.random.default_rng(seed)
    x, y = _points(source, encoder, factors, train_points, batch, rng)
    test_x, test_y = _points(source, encoder, factors, test_points, batch, rng)
    by = exponents(x) if standardise else max(0, int(exponents(x).max()) - LARGEST)
    x, test_x = rescale(x, by), rescale(test_x, by)
    if standardise:
        mean, deviation = x.mean(0), x.std(0)
        x, test_x = ((part - mean) / np.where(deviation > 0, deviation, 1.0) for part in (x, test_x))
    model = LogisticRegression(max_iter=ITERATIONS, random_state=seed).fit(x, y)
    right = model.predict(test_x) == test_y
    details = {
        "train": float(model.score(x, y)),
        "factors": factors,
        "per_factor": np.array([right[test_y == k].mean() if (test_y == k).any() else np.nan for k in factors]),
        "chance": 1 / len(factors),
    }
    scale = "standardised" if standardise else "raw"
    variant = f"logistic,{scale},batch={batch},train={train_points},test={test_points}"
    return Score("beta_vae", variant, float(right.mean()), seed, details)


def _points(
    source: LabelledSource, encoder: Encoder, factors: np.ndarray, points: int, batch: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Features float64 (points, d) and labels (points,), the index of the shared factor."""
    labels = rng.choice(factors, size=points)
    group = max(1, ROWS // batch)
    features = []
    for start in range(0, points, group):
        shared = labels[start : start + group]
        first, second = (draw(source, (len(shared), batch), rng) for _ in range(2))
        each = np.arange(len(shared))
        second[each, :, shared] = first[each, :, shared]
        codes = [
            encode_images("beta_vae", source, encoder, part.reshape(-1, part.shape[-1])) for part in (first, second)
        ]
        features.append(np.abs(codes[0] - codes[1]).reshape(len(shared), batch, -1).mean(1))
    return np.concatenate(features), labels
