"""Explicitness: how well a linear classifier of all codes ranks the values of each factor (Ridgeway & Mozer 2018)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from orthogan.disentanglement.arrays import TRAIN_SHARE, HeldOut, Split, split
from orthogan.disentanglement.codes.predicted import without_rare
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score

ITERATIONS = 1000  # scikit-learn's 100 may stop too early; the score would then measure the solver


def explicitness(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    train_share: float = TRAIN_SHARE,
    test: HeldOut | None = None,
    seed: int = 0,
) -> Score:
    """Mean over factors of the one-against-rest ROC area of the test rows, 0.5 (chance) to 1.

    As Locatello et al. 2019: multinomial logistic regression (C = 1) on standardized codes; for each factor, the
    unweighted mean over its values.

    Args:
        codes: (N, d).
        factors: integers (N, K).
        train_share, test: fraction of random rows for training, or (codes, factors) for testing, with all rows for
            training.

    Returns details "per_factor", "train_per_factor" (K,) and "train".

    Raises:
        ValueError: mismatched arrays, a constant factor, or a value missing from the training or test rows.

    Source: Ridgeway & Mozer 2018, arXiv:1802.05312.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import explicitness
        >>> factors = np.random.default_rng(0).integers(0, 3, (300, 2))
        >>> round(explicitness(factors.astype(float), factors).value, 2) > 0.7
        True
    """
    from sklearn.linear_model import LogisticRegression  # takes seconds to import
    from sklearn.metrics import roc_auc_score

    data = split("explicitness", codes, factors, train_share=train_share, test=test, seed=seed).standardised()
    _check_every_value_seen(data)
    areas = np.empty((2, data.factors.shape[1]))
    for j in range(data.factors.shape[1]):
        model = LogisticRegression(max_iter=ITERATIONS, random_state=seed).fit(data.codes, data.factors[:, j])
        for row, x, y in ((0, data.codes, data.factors[:, j]), (1, data.test_codes, data.test_factors[:, j])):
            chances = model.predict_proba(x)
            areas[row, j] = np.mean([roc_auc_score(y == k, chances[:, k]) for k in range(chances.shape[1])])
    train, tested = areas
    details = {"per_factor": tested, "train_per_factor": train, "train": float(train.mean())}
    return Score("explicitness", f"logistic,{data.variant}", float(tested.mean()), seed, details)


@register_metric("explicitness")
@functools.wraps(explicitness)
def _of_common_values(codes: np.ndarray, factors: np.ndarray, **options: Any) -> Score:
    return explicitness(*without_rare(codes, factors), **options)  # every value must occur in both parts of the split


def _check_every_value_seen(data: Split) -> None:
    for part, rows in (("training", data.factors), ("test", data.test_factors)):
        for j, size in enumerate(np.maximum(data.factors.max(0), data.test_factors.max(0)) + 1):
            absent = np.flatnonzero(np.bincount(rows[:, j], minlength=size) == 0)
            if len(absent):
                raise ValueError(
                    f"explicitness: {len(absent)} of the {size} values of factor {j} are missing from the "
                    f"{len(rows)} {part} rows; use more rows (at least about {20 * size})"
                )
