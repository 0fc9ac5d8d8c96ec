"""Modularity: whether each code depends on a single factor (Ridgeway & Mozer 2018)."""

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


def modularity_per_code(information: np.ndarray) -> np.ndarray:
    """1 - sum of the other squares / ((K - 1) largest square) of each row of (d, K), K >= 2; 0 for a row of zeros.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import modularity_per_code
        >>> modularity_per_code(np.array([[1.0, 0.0], [0.5, 0.5]])).tolist()
        [1.0, 0.0]
    """
    top = information.max(1)
    share = information / np.where(top > 0, top, 1.0)[:, None]  # before squaring, which may underflow
    return np.where(top > 0, 1 - ((share**2).sum(1) - 1) / (information.shape[1] - 1), 0.0)


@register_metric("modularity")
def modularity(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    bins: int = 20,
    prune: float = 0.0,
    max_bias: float = MAX_BIAS,
    seed: int = 0,
) -> Score:
    """Mean over codes of ``modularity_per_code`` of the mutual information with each factor, in [0, 1].

    The estimator is that of Locatello et al. 2019, in which codes of pure noise get a random score; ``prune`` ignores
    codes whose mutual information with every factor j is below this fraction of H_j (0 if all are pruned).

    Args:
        codes: (N, d).
        factors: integers (N, K), K >= 2.
        seed: only recorded; nothing is random.

    Returns details "per_code" (d,), "kept" (indices), "mutual_information" (d, K) and "bias" (K,) in nats.

    Raises:
        ValueError: mismatched arrays, a constant factor, or too few rows (see ``mig``).

    Source: Ridgeway & Mozer 2018, arXiv:1802.05312.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import modularity
        >>> factors = np.random.default_rng(0).integers(0, 4, (1000, 2))
        >>> round(modularity(factors.astype(float), factors).value, 2)
        1.0
    """
    if not 0 <= prune < 1:
        raise ValueError(f"modularity: prune={prune}: must be a fraction of the entropy in [0, 1)")
    x, y = check_both("modularity", codes, factors, least_factors=2)
    entropy = entropies(y)
    bias = check_bias("modularity", len(x), bins, y.max(0) + 1, entropy, max_bias)
    information = mutual_information_matrix(discretise(x, bins), y)
    per_code = modularity_per_code(information)
    kept = np.flatnonzero((information / entropy).max(1) >= prune)
    value = float(per_code[kept].mean()) if len(kept) else 0.0
    variant = f"bins={bins},prune={prune:g},n={len(x)}"
    details = {"per_code": per_code, "kept": kept, "mutual_information": information, "bias": bias}
    return Score("modularity", variant, value, seed, details)
