"""Disentanglement, completeness and informativeness of codes, from the feature importance of predictors."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from orthogan.disentanglement.arrays import TRAIN_SHARE, HeldOut, Split, split
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score

Classifier = Literal["gbt", "random_forest", "lasso"]
MaxFeatures = Literal["sqrt", "log2"] | int | float | None
TREES = 100
ALPHA = 0.02  # Eastwood & Williams 2018
ITERATIONS, TOLERANCE = 100_000, 1e-6  # scikit-learn stops too early for nearly identical codes


def disentanglement(importance: np.ndarray) -> tuple[float, np.ndarray]:
    """Return (D, D_i (d,)) of an importance matrix >= 0 (d, K), K >= 2.

    D_i = 1 - entropy to base K of the normalized row i; D is their mean weighted with the total importance of each row.
    A row of zeros has D_i = 0 and no weight; a matrix of zeros has D = 0. Raises ValueError for any other matrix.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import disentanglement
        >>> value, of_codes = disentanglement(np.array([[1.0, 0.0], [0.5, 0.5]]))
        >>> round(value, 3), of_codes.round(3).tolist()
        (0.5, [1.0, 0.0])
    """
    if importance.ndim != 2 or importance.shape[1] < 2 or (importance < 0).any():
        raise ValueError(
            f"importance must be a non-negative matrix (m, n) with n >= 2, not of shape {importance.shape}"
        )
    total = importance.sum()
    per_row = _concentration(importance)
    weights = importance.sum(1) / total if total > 0 else np.zeros(len(importance))
    return min(1.0, float(per_row @ weights)), per_row


def completeness(importance: np.ndarray) -> tuple[float, np.ndarray]:
    """(C, C_j (K,)) of an importance matrix (d, K), d >= 2: ``disentanglement`` of its transpose.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import completeness
        >>> completeness(np.eye(3))[0]
        1.0
    """
    return disentanglement(importance.T)


def _concentration(rows: np.ndarray) -> np.ndarray:
    """Return 1 - entropy to base n of each normalized row of (m, n) >= 0; 0 for a row of zeros."""
    total = rows.sum(1, keepdims=True)
    share = np.where(total > 0, rows / np.where(total > 0, total, 1.0), 1 / rows.shape[1])
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.clip(1 + (share * logs).sum(1) / np.log(rows.shape[1]), 0.0, 1.0)


@register_metric("dci", classifier="random_forest")
def dci(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    classifier: Classifier = "gbt",
    estimators: int | None = None,
    max_features: MaxFeatures = None,
    train_share: float = TRAIN_SHARE,
    test: HeldOut | None = None,
    seed: int = 0,
) -> Score:
    """D, C and I of Eastwood & Williams 2018; the value is D, the others are details. Higher is better, except "nrmse".

    The choice of predictor changes the numbers more than most models do, so it is part of the name:

    * "gbt": gradient boosted trees for each factor, as Locatello et al. 2019 (who left them unseeded). The cost grows
      with the number of values: minutes for 40 of them.
    * "random_forest": random forests; half of the time, and far less if factors have many values.
    * "lasso": L1 regression (alpha 0.02) on standardized codes and factors, importance |coefficient|. Detects only
      linear dependence, and treats the values of a factor as a scale.

    Args:
        codes: (N, d), d >= 2.
        factors: integers (N, K), K >= 2.
        estimators: trees (default 100); not for "lasso".
        max_features: for "random_forest": number of codes that each split of a tree chooses from (None: all). With any
            other value, a split often has to use an uninformative code, so perfect codes do not reach 1: with "sqrt",
            the default of scikit-learn, 3 factors of 5 values get D = 0.56 from 3 perfect codes, 0.67 with 3 additional
            noise codes, 0.53 with 15, 0.41 with 29.
        train_share, test: fraction of random rows for training, or (codes, factors) for testing, with all rows for
            training.

    Returns details "disentanglement", "completeness" (numbers), "per_code" (d,), "per_factor" (K,), "importance"
    (d, K), and the means over factors "informativeness_train" and "_test": accuracy, or for "lasso" "nrmse_train" and
    "_test", the root mean squared error relative to the standard deviation of the factor (1: no better than its mean).

    Raises:
        ValueError: mismatched arrays, a constant factor, too few rows, or an unknown classifier.

    Source: Eastwood & Williams 2018; Locatello et al. 2019, arXiv:1811.12359.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import dci
        >>> factors = np.random.default_rng(0).integers(0, 3, (300, 2))
        >>> score = dci(factors.astype(float), factors, classifier="random_forest", estimators=3)
        >>> round(score.value, 2), sorted(score.details)[:2]
        (1.0, ['completeness', 'disentanglement'])
    """
    if classifier not in get_args(Classifier):
        raise ValueError(f"dci: classifier={classifier!r}: choose one of {', '.join(get_args(Classifier))}")
    if classifier == "lasso" and estimators is not None:
        raise ValueError(f"dci: estimators={estimators} does not apply to the lasso; omit it")
    if max_features is not None and classifier != "random_forest":
        raise ValueError(f"dci: max_features={max_features!r} applies only to random_forest; omit it")
    data = split("dci", codes, factors, train_share=train_share, test=test, seed=seed, least=2)
    if classifier == "lasso":
        importance, fit, kind, variant = *_lasso(data, seed), "nrmse", f"lasso,alpha={ALPHA}"
    else:
        trees = TREES if estimators is None else estimators
        importance, fit, kind = (
            *_trees(data.without_offset().rescaled(), classifier, trees, max_features, seed),
            "informativeness",
        )
        variant = f"{classifier},trees={trees}"
        if classifier == "random_forest":
            variant += f",features={'all' if max_features is None else max_features}"
    d, per_code = disentanglement(importance)
    c, per_factor = completeness(importance)
    details = {
        "disentanglement": d,
        "completeness": c,
        f"{kind}_train": float(fit[0].mean()),
        f"{kind}_test": float(fit[1].mean()),
        f"{kind}_test_per_factor": fit[1],
        "per_code": per_code,
        "per_factor": per_factor,
        "importance": importance,
    }
    return Score("dci_d", f"{variant},{data.variant}", d, seed, details)


def _trees(
    data: Split, classifier: str, trees: int, max_features: MaxFeatures, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return importance (d, K) and accuracies (2, K) on training and test rows."""
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier  # takes seconds to import

    importance, accuracy = [], []
    for target, test_target in zip(data.factors.T, data.test_factors.T, strict=True):
        family = GradientBoostingClassifier if classifier == "gbt" else RandomForestClassifier
        model = family(n_estimators=trees, max_features=max_features, random_state=seed)  # pyright: ignore[reportArgumentType]
        model.fit(data.codes, target)
        importance.append(np.abs(model.feature_importances_))
        accuracy.append([model.score(data.codes, target), model.score(data.test_codes, test_target)])
    return np.stack(importance, axis=1), np.array(accuracy).T


def _lasso(data: Split, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return importance (d, K) and root mean squared errors (2, K) in standard deviations of the training factor."""
    from sklearn.linear_model import Lasso  # takes seconds to import

    data = data.standardised()
    mean, deviation = data.factors.mean(0), data.factors.std(0)
    importance, error = [], []
    for j in range(data.factors.shape[1]):
        pairs = [
            (x, (y[:, j] - mean[j]) / deviation[j])
            for x, y in ((data.codes, data.factors), (data.test_codes, data.test_factors))
        ]
        model = Lasso(alpha=ALPHA, max_iter=ITERATIONS, tol=TOLERANCE, random_state=seed).fit(*pairs[0])
        importance.append(np.abs(model.coef_))
        error.append([np.sqrt(np.mean((model.predict(x) - y) ** 2)) for x, y in pairs])
    return np.stack(importance, axis=1), np.array(error).T
