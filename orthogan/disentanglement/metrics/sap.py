"""The SAP score: the gap between the two codes that best predict a factor (Kumar et al. 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from orthogan.disentanglement.arrays import (
    TRAIN_SHARE,
    HeldOut,
    as_array,
    check_both,
    check_codes,
    exponents,
    rescale,
    split,
    standardize,
)
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score

C = 0.01
EXACT = 2**53  # float64 holds every integer up to this
LARGEST = 10  # exponent of 2: with larger codes the penalty on the slope has no effect, but the solver may fail


@register_metric("sap", standardise=True)
def sap(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    standardise: bool = False,
    train_share: float = TRAIN_SHARE,
    test: HeldOut | None = None,
    seed: int = 0,
) -> Score:
    """Mean over factors of the gap between the two best test accuracies of a linear SVM on a single code, in [0, 1].

    As in Locatello et al. 2019 for factors that are classes: ``LinearSVC(C=0.01, class_weight="balanced")``. Such a
    small C makes the score depend on the scale of the codes; ``standardise`` removes this dependence and is part of
    the name. Codes beyond 1024 are scaled down, since a larger scale makes no difference. The problem is solved in
    its primal form, which has the same solution and needs no random order.

    Args:
        codes: (N, d), d >= 2.
        factors: integers (N, K), K >= 2.
        train_share, test: fraction of random rows for training, or (codes, factors) for testing, with all rows for
            training.

    Returns details "gaps" (K,), "best_codes" (K,), "accuracy" (d, K).

    Raises:
        ValueError: mismatched arrays, a constant factor, or too few rows.

    Source: Kumar, Sattigeri & Balakrishnan 2018, arXiv:1711.00848.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import sap
        >>> factors = np.random.default_rng(0).integers(0, 2, (300, 2))
        >>> sap(factors.astype(float), factors).value > 0.3
        True
    """
    from sklearn.svm import LinearSVC  # takes seconds to import

    data = split("sap", codes, factors, train_share=train_share, test=test, seed=seed, least=2)
    data = data.standardised() if standardise else data.rescaled((exponents(data.codes) - LARGEST).clip(0))
    accuracy = np.empty((data.codes.shape[1], data.factors.shape[1]))
    for i, j in np.ndindex(accuracy.shape):
        model = LinearSVC(C=C, class_weight="balanced", dual=False, random_state=seed)  # pyright: ignore[reportArgumentType]
        model.fit(data.codes[:, [i]], data.factors[:, j])
        accuracy[i, j] = model.score(data.test_codes[:, [i]], data.test_factors[:, j])
    variant = f"svc,{'standardised' if standardise else 'raw'},{data.variant}"
    return _score(variant, "accuracy", accuracy, seed)


def sap_correlation(codes: ArrayLike, factors: ArrayLike, *, seed: int = 0) -> Score:
    """SAP for numeric factors, from the squared correlation over all rows; 0 for constant codes.

    Args:
        codes: (N, d), d >= 2.
        factors: integers (N, K); only their linear scale matters.
        seed: only recorded; nothing is random.

    Returns details "gaps" (K,), "best_codes" (K,), "squared_correlation" (d, K).

    Raises:
        ValueError: mismatched arrays, or a constant factor.

    Source: Kumar, Sattigeri & Balakrishnan 2018, arXiv:1711.00848.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import sap_correlation
        >>> factors = np.random.default_rng(0).integers(0, 4, (1000, 2))
        >>> sap_correlation(factors.astype(float), factors).value > 0.95
        True
    """
    x, _ = check_both("sap_correlation", codes, factors, least_codes=2)
    y = rescale(
        check_codes("sap_correlation", _small(factors))
    )  # not the renumbered values: 1, 2, 4 are not equally spaced
    x = standardize(x)[0]
    y = (y - y.mean(0)) / y.std(0)
    return _score(f"correlation,n={len(x)}", "squared_correlation", (x.T @ y / len(x)) ** 2, seed)


def _small(factors: ArrayLike) -> np.ndarray:
    """Subtract the smallest values from ``factors`` if they are integers that float64 would round."""
    array = as_array(factors)
    large = array.dtype.kind in "iu" and (array.max() > EXACT or array.min() < -EXACT)
    return array - array.min(0) if large else array


def _score(variant: str, kind: str, matrix: np.ndarray, seed: int) -> Score:
    ranked = np.sort(matrix, axis=0)
    gaps = ranked[-1] - ranked[-2]
    details = {"gaps": gaps, "best_codes": matrix.argmax(0), kind: matrix}
    return Score("sap", variant, float(gaps.mean()), seed, details)
