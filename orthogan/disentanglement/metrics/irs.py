"""The interventional robustness score: how little a code changes while other factors change (Suter et al. 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from orthogan.disentanglement.arrays import check_both, constant_codes, exponents, rescale
from orthogan.disentanglement.mutual_information import discretise
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score

LEAST_ROWS = 10  # per value: a single row does not deviate from its own mean, so few rows look robust


@register_metric("irs", on_generated=False)
def irs(codes: ArrayLike, factors: ArrayLike, *, quantile: float = 0.99, bins: int = 20, seed: int = 0) -> Score:
    """Mean robustness of the codes, weighted by the largest deviation of each code; at most 1.

    As in Locatello et al. 2019 (the paper uses quantile 1): the robustness of a code is 1 - q / m for the best factor.
    For factor j, q is the ``quantile`` of |code - its mean| among rows with the same value of j, averaged over the
    values; m is the largest deviation of the code from its mean over all rows. Factors with more than ``bins``
    values are binned. If all codes are constant, the score is 0. Scores near 0 may be negative by chance. The
    weights make the score depend on the relative scale of the codes.

    Args:
        codes: (N, d).
        factors: integers (N, K).
        seed: only recorded; nothing is random.

    Returns details "matrix" (d, K), "per_code" (d,), "best_factors" (d,), "max_deviation" (d,), "active" (indices of
    the codes that change; the rows of the others are 0), "least_rows": rows of the rarest value.

    Raises:
        ValueError: mismatched arrays, a constant factor, or fewer than 10 rows for some value.

    Source: Suter et al. 2019, arXiv:1811.00007.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import irs
        >>> factors = np.random.default_rng(0).integers(0, 4, (500, 2))
        >>> round(irs(factors.astype(float), factors).value, 2)
        1.0
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"irs: quantile={quantile}: must be above 0 and at most 1")
    x, y = check_both("irs", codes, factors)
    many = y.max(0) >= bins
    y[:, many] = discretise(y[:, many].astype(np.float64), bins)
    counts = [np.bincount(column) for column in y.T]
    least = [int(count[count > 0].min()) for count in counts]
    if min(least) < LEAST_ROWS:
        j = int(np.argmin(least))
        raise ValueError(
            f"irs: factor {j} has a value with {least[j]} rows, but at least {LEAST_ROWS} are needed; use more rows"
        )
    active = np.flatnonzero(~constant_codes(x))
    scales = exponents(x)
    x = rescale(x)
    deviation = np.abs(x - x.mean(0)).max(0)
    matrix = np.zeros((x.shape[1], y.shape[1]))
    for j, column in enumerate(y.T):
        groups = [x[column == value][:, active] for value in np.unique(column)]
        spread = [np.quantile(np.abs(group - group.mean(0)), quantile, axis=0) for group in groups]
        matrix[active, j] = 1 - np.mean(spread, axis=0) / deviation[active]
    per_code = matrix.max(1)
    weights = np.ldexp(deviation, scales - scales.max())  # relative to each other
    value = float(np.average(per_code[active], weights=weights[active])) if len(active) else 0.0
    details = {
        "matrix": matrix,
        "per_code": per_code,
        "best_factors": matrix.argmax(1),
        "max_deviation": np.ldexp(deviation, scales),
        "active": active,
        "least_rows": min(least),
    }
    return Score("irs", f"quantile={quantile:g},bins={bins},n={len(x)}", value, seed, details)
