"""JEMMIG: the joint entropy of each factor and its best code, minus the gap to the second-best (Do & Tran 2020)."""

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


@register_metric("jemmig")
def jemmig(codes: ArrayLike, factors: ArrayLike, *, bins: int = 10, max_bias: float = MAX_BIAS, seed: int = 0) -> Score:
    """Mean over factors of 1 - (H(code*, factor) - gap) / (H(factor) + log bins), in [0, 1]; higher is better.

    code* has the largest mutual information with the factor, and gap is the difference to the second-largest. Unlike
    ``mig``, the score also falls if code* varies with anything else, because that adds to its entropy. In the paper,
    lower is better; this is 1 minus its normalized form, as in the review of Carbonneau et al. 2022, whose 10 bins of
    equal width are the default.

    Args:
        codes: (N, d), d >= 2.
        factors: integers (N, K).
        bins: number of bins of each code.
        max_bias: largest allowed bias of the mutual information, as a fraction of the entropy of a factor.
        seed: only recorded; nothing is random.

    Returns details "per_factor" (K,), "best_codes" (K,), "joint_entropy", "gaps" (K,) in nats, "mutual_information"
    (d, K) and "bias" (K,) in nats.

    Raises:
        ValueError: mismatched arrays, a constant factor, or too few rows for ``max_bias``.

    Source: Do & Tran 2020, arXiv:1908.09961, section 4; normalized form: Carbonneau et al. 2022, arXiv:2012.09276.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import jemmig
        >>> factors = np.random.default_rng(0).integers(0, 10, (4000, 2))
        >>> mixed = factors @ np.array([[1.0, 1.0], [1.0, -1.0]])
        >>> round(jemmig(factors.astype(float), factors).value, 1), round(jemmig(mixed, factors).value, 1)
        (1.0, 0.1)
    """
    x, y = check_both("jemmig", codes, factors, least_codes=2)
    entropy = entropies(y)
    bias = check_bias("jemmig", len(x), bins, y.max(0) + 1, entropy, max_bias)
    binned = discretise(x, bins)
    information = mutual_information_matrix(binned, y)
    ranked = np.sort(information, axis=0)
    gaps, best = ranked[-1] - ranked[-2], information.argmax(0)
    joint = entropies(binned)[best] + entropy - ranked[-1]
    # the largest possible joint entropy; the gap of a perfect code is H(factor), which makes the difference 0
    per_factor = 1 - (joint - gaps) / (entropy + np.log(bins))
    details = {
        "per_factor": per_factor,
        "best_codes": best,
        "joint_entropy": joint,
        "gaps": gaps,
        "mutual_information": information,
        "bias": bias,
    }
    return Score("jemmig", f"bins={bins},n={len(x)}", float(per_factor.mean()), seed, details)
