"""The mutual information gap between the best and the second-best code of each factor."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from orthogan.disentanglement.arrays import check_both
from orthogan.disentanglement.mutual_information import (
    MAX_BIAS,
    check_bias,
    discretise,
    entropies,
    mutual_information_matrix,
)
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score


@register_metric("mig")
def mig(codes: ArrayLike, factors: ArrayLike, *, bins: int = 20, max_bias: float = MAX_BIAS, seed: int = 0) -> Score:
    """Mean over factors of (largest - second largest I(code; factor)) / H(factor), in [0, 1].

    The estimator is that of Locatello et al. 2019: codes in ``bins`` bins of equal width and empirical entropies. Chen
    et al. 2018 defined the score with q(z|x) of a VAE, which gives different numbers. Counting has a bias of about
    (bins - 1)(K_j - 1) / (2 N) nats in every entry, which is reported but not subtracted.

    Args:
        codes: (N, d), d >= 2.
        factors: integers (N, K).
        max_bias: largest allowed bias, as a fraction of the entropy of a factor.
        seed: only recorded; nothing is random.

    Returns details "gaps" (K,), "best_codes" (K,), "mutual_information" (d, K) and "entropy" (K,) in nats, "bias" (K,)
    in nats, "relative_bias" (K,) as a fraction of the entropy.

    Raises:
        ValueError: mismatched arrays, a constant factor, or too few rows for ``max_bias``.

    Source: Chen et al. 2018, arXiv:1802.04942.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import mig
        >>> factors = np.random.default_rng(0).integers(0, 4, (1000, 2))
        >>> perfect = factors.astype(float)
        >>> mixed = perfect @ np.array([[1.0, 1.0], [1.0, -1.0]])
        >>> mig(perfect, factors).value > 0.95, mig(mixed, factors).value < 0.3
        (True, True)
    """
    x, y = check_both("mig", codes, factors, least_codes=2)
    entropy = entropies(y)
    bias = check_bias("mig", len(x), bins, y.max(0) + 1, entropy, max_bias)
    information = mutual_information_matrix(discretise(x, bins), y)
    ranked = np.sort(information, axis=0)
    gaps = (ranked[-1] - ranked[-2]) / entropy
    details = {
        "gaps": gaps,
        "best_codes": information.argmax(0),
        "mutual_information": information,
        "entropy": entropy,
        "bias": bias,
        "relative_bias": bias / entropy,
    }
    return Score("mig", f"bins={bins},n={len(x)}", float(gaps.mean()), seed, details)
