"""Dependence among codes, which needs no labels: 0 if they are independent."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from orthogan.disentanglement.arrays import check_codes, constant_codes, exponents, rescale
from orthogan.disentanglement.mutual_information import MAX_BIAS, check_bias, discretise, mutual_information_matrix
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score
from orthogan.words import counted

EPS = 1e-12  # relative to the largest eigenvalue; below, a correlation matrix counts as singular


@register_metric("total_correlation", on_generated=False)
def gaussian_total_correlation(codes: ArrayLike, *, seed: int = 0) -> Score:
    """KL of a Gaussian with the codes' covariance S from the product of its marginals, in nats; lower is better.

    (sum log diag S - log det S) / 2, computed from correlations, so the scale does not matter; constant codes are
    ignored. Infinite if a code is a linear function of others, such as a copy. Locatello et al. 2019.

    Args:
        codes: (N, d), N > d, d >= 2.
        seed: recorded; nothing is drawn.

    Returns details "correlation" (a, a) and "active" (a,), the indices of the codes that change.

    Raises:
        ValueError: codes that do not fit, or no more rows than codes.

    Source: Locatello et al. 2019, arXiv:1811.12359.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import gaussian_total_correlation
        >>> codes = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> round(gaussian_total_correlation(codes).value, 6)
        0.0
    """
    x = rescale(_checked("gaussian_total_correlation", codes))
    active = np.flatnonzero(~constant_codes(x))
    correlation = (
        np.corrcoef(x[:, active], rowvar=False).reshape(len(active), len(active)) if len(active) else np.eye(0)
    )
    values = np.linalg.eigvalsh(correlation) if len(active) else np.ones(1)
    singular = values[0] <= EPS * values[-1]
    value = math.inf if singular else max(0.0, -0.5 * float(np.log(values).sum()))
    details = {"correlation": correlation, "active": active}
    return Score("gaussian_total_correlation", f"n={len(x)}", value, seed, details)


def gaussian_wasserstein_correlation(codes: ArrayLike, *, seed: int = 0) -> Score:
    """Squared 2-Wasserstein distance of the Gaussian of the codes from the product of its marginals; lower is better.

    2 tr S - 2 tr (D^1/2 S D^1/2)^1/2 with D = diag S (Locatello et al. 2019), in squared units of the codes; the detail
    "normalised" is relative to tr S and has no unit (0 for constant codes).

    Args:
        codes: (N, d), N > d, d >= 2.
        seed: recorded; nothing is drawn.

    Raises:
        ValueError: codes that do not fit, or no more rows than codes.

    Source: Locatello et al. 2019, arXiv:1811.12359.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import gaussian_wasserstein_correlation
        >>> codes = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> abs(round(gaussian_wasserstein_correlation(codes).value, 6))
        0.0
    """
    x = _checked("gaussian_wasserstein_correlation", codes)
    scale = exponents(x).max()
    x = rescale(x, scale)
    covariance = np.cov(x, rowvar=False)
    variance = np.diag(covariance)
    root = np.sqrt(variance)
    values = np.linalg.eigvalsh(root[:, None] * covariance * root).clip(0)
    total = float(variance.sum())
    value = max(0.0, 2 * total - 2 * float(np.sqrt(values).sum()))
    details = {"normalised": value / total if total > 0 else 0.0}
    value = float(np.ldexp(value, 2 * scale))
    return Score("gaussian_wasserstein_correlation", f"n={len(x)}", value, seed, details)


def mean_pairwise_mutual_information(
    codes: ArrayLike, *, bins: int = 20, max_bias: float = MAX_BIAS, seed: int = 0
) -> Score:
    """Mean mutual information of pairs of codes in nats, each in ``bins`` bins; lower is better.

    Counting has a bias of about (bins - 1)^2 / (2 N) nats, which is reported; above ``max_bias`` of log(bins) it is an
    error.

    Args:
        codes: (N, d), d >= 2.
        seed: recorded; nothing is drawn.

    Returns details "mutual_information" (d, d), the entropies on its diagonal, and "bias" in nats.

    Raises:
        ValueError: invalid codes, or too few rows.

    Source: Locatello et al. 2019, arXiv:1811.12359.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import mean_pairwise_mutual_information
        >>> x = np.random.default_rng(0).normal(size=2000)
        >>> score = mean_pairwise_mutual_information(np.stack([x, x], 1), bins=8)
        >>> score.value > 1
        True
    """
    metric = "mean_pairwise_mutual_information"
    x = check_codes(metric, codes, least=2)
    binned = discretise(x, bins)
    bias = check_bias(metric, len(x), bins, np.array([bins]), np.log([bins]), max_bias)
    information = mutual_information_matrix(binned, binned)
    value = float(information[~np.eye(len(information), dtype=bool)].mean())
    details = {"mutual_information": information, "bias": float(bias[0])}
    return Score(metric, f"bins={bins},n={len(x)}", value, seed, details)


def _checked(metric: str, codes: ArrayLike) -> np.ndarray:
    x = check_codes(metric, codes, least=2)
    if len(x) <= x.shape[1]:
        raise ValueError(
            f"{metric}: {counted(len(x), 'row')} of {x.shape[1]} codes have a singular covariance; use more rows"
        )
    return x
