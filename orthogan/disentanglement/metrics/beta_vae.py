"""The beta-VAE score: can a linear classifier tell which factor two sets of observations share?"""

from __future__ import annotations

import numpy as np

from orthogan.disentanglement.arrays import exponents, rescale
from orthogan.disentanglement.codes.source import ROWS, Encoder, LabelledSource, draw, encode_images, varying
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score

LARGEST = 10  # exponent of 2: larger features are scaled down to it, because the solver fails otherwise
ITERATIONS = 1000  # scikit-learn's 100 may stop too early; the score would then measure the solver


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
    """Test accuracy of predicting the shared factor, from chance (1 / number of varying factors) to 1.

    Higgins et al. 2017 as in Locatello et al. 2019: a data point is a factor k and ``batch`` pairs of observations;
    each pair shares the value of k and nothing else. Its feature is the mean |code - code'| (d,), its label k. Logistic
    regression is run until convergence. The score saturates near 1: even an untrained encoder may exceed 0.9.

    It encodes 2 * batch * (train_points + test_points) observations: 1.9 million by default. Constant factors are never
    chosen as k.

    Args:
        source: observations of chosen factors.
        encoder: maps observations to codes (n, d).
        train_points: number of data points for the regression.
        test_points: number of data points for the accuracy.
        batch: pairs of observations per data point.
        standardise: divide the features by their training standard deviation, so that the scale of the codes does not
            matter.
        seed: of the factors and the observations.

    Returns:
        The score, with details "train", "factors" (the indices of possible k), "per_factor" (test accuracy of each; NaN
            if no test point has it) and "chance".

    Raises:
        ValueError: fewer than two varying factors, sizes that are too small, or an encoder with an invalid output
            shape.

    Source: Higgins et al. 2017; Locatello et al. 2019, arXiv:1811.12359.

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
            f"must be at least {10 * len(factors)} (10 per factor), 1 and 1"
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
    """Return features float64 (points, d) and labels (points,), the index of the shared factor."""
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
