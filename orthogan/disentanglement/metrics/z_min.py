"""Z-min: the FactorVAE score from arrays of codes and factors, scaled so that chance is 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from orthogan.disentanglement.arrays import check_both, constant_codes, rescale
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score


@register_metric("z_min")
def z_min(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    train_votes: int = 800,
    test_votes: int = 800,
    batch: int = 200,
    threshold: float = 0.05,
    seed: int = 0,
) -> Score:
    """Test accuracy of the majority vote code -> factor, (accuracy - 1/K) / (1 - 1/K): 0 is chance, 1 is best.

    A vote chooses a factor and one of its values that occurs at least twice, and ``batch`` random rows with this value;
    the code with the smallest variance, relative to its variance over all rows, votes for the factor. This is
    ``factor_vae`` without a source that draws images; rows are drawn with replacement if too few have the value.

    Args:
        codes: (N, d).
        factors: integers (N, K), K >= 2.
        train_votes, test_votes: number of votes that assign the codes, and that are counted.
        batch: rows per vote.
        threshold: codes with a standard deviation below this fraction of the largest one are ignored (in the review:
            below 0.05 itself, which suits codes of a known scale only).

    Returns details "accuracy", "votes" and "test_votes" (K, d), "assigned" (d,): the factor of each code, -1 without
    votes, and "active", the indices of the codes used.

    Raises:
        ValueError: mismatched arrays, a constant factor, no repeated value, or sizes that are too small.

    Source: Kim & Mnih 2018, arXiv:1802.05983; from arrays, and the scale: Carbonneau et al. 2022, arXiv:2012.09276.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import z_min
        >>> factors = np.random.default_rng(0).integers(0, 4, (1000, 3))
        >>> z_min(factors.astype(float), factors, train_votes=60, test_votes=60, batch=30).value
        1.0
    """
    x, y = check_both("z_min", codes, factors, least_factors=2)
    if batch < 2 or min(train_votes, test_votes) < 1 or threshold < 0:
        raise ValueError(
            f"z_min: batch={batch}, train_votes={train_votes}, test_votes={test_votes}, threshold={threshold}: must be "
            "at least 2, 1, 1, 0"
        )
    rng = np.random.default_rng(seed)
    still = constant_codes(x)
    deviation = x.std(0, ddof=1) if np.abs(x).max() < 1e150 else rescale(x, int(np.frexp(np.abs(x).max())[1])).std(0)
    active = np.flatnonzero((deviation >= threshold * deviation.max()) & ~still)
    used = rescale(x)[:, active]
    rows = [[found for k in range(column.max() + 1) if len(found := np.flatnonzero(column == k)) > 1] for column in y.T]
    if not all(rows):
        raise ValueError("z_min: no value of a factor occurs twice; use more rows, or bin the factor")
    tables = np.zeros((2, y.shape[1], x.shape[1]), np.int64)
    for table, count in zip(tables, (train_votes, test_votes), strict=True) if len(active) else ():
        for held in rng.integers(y.shape[1], size=count):
            of_value = rows[held][rng.integers(len(rows[held]))]
            chosen = rng.choice(of_value, batch, replace=len(of_value) < batch)
            local = used[chosen].var(0, ddof=1)
            table[held, active[np.argmin(local / used.var(0, ddof=1))]] += 1
    voted = tables[0].sum(0) > 0
    assigned = np.where(voted, tables[0].argmax(0), -1)
    accuracy = sum(int(tables[1][assigned[i], i]) for i in np.flatnonzero(voted)) / test_votes
    chance = 1 / y.shape[1]
    details = {
        "accuracy": accuracy,
        "votes": tables[0],
        "test_votes": tables[1],
        "assigned": assigned,
        "active": active,
    }
    variant = f"prune={threshold:g}*max,batch={batch},votes={train_votes}+{test_votes},n={len(x)}"
    return Score("z_min", variant, (accuracy - chance) / (1 - chance), seed, details)
