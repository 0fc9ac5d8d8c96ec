"""DCI-MIG (3CharM): the gap of each code between its two best factors, where it is the best of its factor."""

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


@register_metric("dci_mig")
def dci_mig(
    codes: ArrayLike, factors: ArrayLike, *, bins: int = 10, max_bias: float = MAX_BIAS, seed: int = 0
) -> Score:
    """Sum over factors of the largest gap of a code that belongs to the factor, over the sum of H(factor), in [0, 1].

    A code belongs to the factor with which it has the largest mutual information; its gap is the difference to the
    second-largest. Unlike ``mig``, a second code for the same factor costs nothing, and a code that also varies with
    another factor does.

    Args:
        codes: (N, d).
        factors: integers (N, K), K >= 2.
        bins: number of bins of equal width of each code.
        max_bias: largest allowed bias of the mutual information, as a fraction of the entropy of a factor.
        seed: only recorded; nothing is random.

    Returns details "per_code" (d,), the gaps in nats, "belongs" (d,), "per_factor" (K,), the share of H(factor), and
    "mutual_information" (d, K) and "bias" (K,) in nats.

    Raises:
        ValueError: mismatched arrays, a constant factor, or too few rows for ``max_bias``.

    Source: Sepliarskaia et al. 2019, arXiv:1910.05587; name and 10 bins: Carbonneau et al. 2022, arXiv:2012.09276.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import dci_mig
        >>> factors = np.random.default_rng(0).integers(0, 4, (1000, 2))
        >>> perfect = factors.astype(float)
        >>> mixed = perfect @ np.array([[1.0, 1.0], [1.0, -1.0]])
        >>> dci_mig(perfect, factors).value > 0.95, dci_mig(mixed, factors).value < 0.1
        (True, True)
    """
    x, y = check_both("dci_mig", codes, factors, least_factors=2)
    entropy = entropies(y)
    bias = check_bias("dci_mig", len(x), bins, y.max(0) + 1, entropy, max_bias)
    information = mutual_information_matrix(discretise(x, bins), y)
    ranked = np.sort(information, axis=1)
    gaps, belongs = ranked[:, -1] - ranked[:, -2], information.argmax(1)
    best = np.zeros(y.shape[1])
    np.maximum.at(best, belongs, gaps)
    details = {
        "per_code": gaps,
        "belongs": belongs,
        "per_factor": best / entropy,
        "mutual_information": information,
        "bias": bias,
    }
    return Score("dci_mig", f"bins={bins},n={len(x)}", float(best.sum() / entropy.sum()), seed, details)
