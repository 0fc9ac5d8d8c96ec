"""InfoMEC: modularity, explicitness and compactness from information (Hsu et al. 2023)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from orthogan.disentanglement.arrays import check_both, constant_codes, rescale, standardize
from orthogan.disentanglement.mutual_information import entropies
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score

NEIGHBORS = 10
LEAST_RANGE = 1 / 20  # of the largest range of a code
ITERATIONS = 1000


@register_metric("infom")
def infom(codes: ArrayLike, factors: ArrayLike, *, neighbors: int = NEIGHBORS, seed: int = 0) -> Score:
    """InfoModularity: mean over codes of the share of a code's information that is about its best factor, 0 to 1.

    The share is of the sum over factors of I(code; factor) / H(factor), scaled so that 1/K is 0. Mutual information is
    estimated from the ``neighbors`` nearest neighbors, so nothing is binned. Codes whose range is below 1/20 of the
    largest range are ignored.

    Args:
        codes: (N, d).
        factors: integers (N, K), K >= 2.
        seed: of the noise that the estimator adds to break ties.

    Returns details "per_code" and "active" (indices), "information" (d, K), as a share of H(factor).

    Raises:
        ValueError: mismatched arrays, or a constant factor.

    Source: Hsu et al. 2023, "Disentanglement via Latent Quantization", arXiv:2305.18378, section 4.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import infom
        >>> rng = np.random.default_rng(0)
        >>> factors = rng.integers(0, 4, (500, 2))
        >>> codes = factors + 0.1 * rng.random((500, 2))
        >>> round(infom(codes, factors).value, 1), round(infom(codes @ [[1, 1], [1, -1]], factors).value, 1)
        (1.0, 0.0)
    """
    x, y = check_both("infom", codes, factors, least_factors=2)
    active, information = _information(x, y, neighbors, seed)
    return _shared("infom", information, active, 1, neighbors, len(x), seed)


@register_metric("infoc")
def infoc(codes: ArrayLike, factors: ArrayLike, *, neighbors: int = NEIGHBORS, seed: int = 0) -> Score:
    """InfoCompactness: mean over factors of the share of the information about a factor in its best code, 0 to 1.

    All is as in ``infom``, with factors and codes exchanged; 1 / (number of active codes) is 0.

    Args:
        codes: (N, d).
        factors: integers (N, K).
        neighbors: number of neighbors in the estimate of the information.
        seed: of the noise that the estimator adds to break ties.

    Returns:
        The score, with details "per_factor", "active" (indices) and "information" (d, K), as a share of H(factor).

    Raises:
        ValueError: mismatched arrays, a constant factor, or fewer than two active codes.

    Source: Hsu et al. 2023, arXiv:2305.18378, section 4.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import infoc
        >>> rng = np.random.default_rng(0)
        >>> factors = rng.integers(0, 4, (500, 2))
        >>> round(infoc(factors + 0.1 * rng.random((500, 2)), factors).value, 1)
        1.0
    """
    x, y = check_both("infoc", codes, factors, least_codes=2)
    active, information = _information(x, y, neighbors, seed)
    if len(active) < 2:
        raise ValueError(f"infoc: {len(active)} of the codes vary; at least 2 are needed")
    return _shared("infoc", information, active, 0, neighbors, len(x), seed)


@register_metric("infoe")
def infoe(codes: ArrayLike, factors: ArrayLike, *, seed: int = 0) -> Score:
    """InfoExplicitness: mean over factors of how much a linear classifier of all codes knows about it, 0 to 1.

    It is 1 - (log loss of the classifier) / (log loss without codes), where the classifier is an unpenalized logistic
    regression on standardized codes with balanced classes, and the loss is that of the same rows.

    Args:
        codes: (N, d).
        factors: integers (N, K).
        seed: only recorded; nothing is random.

    Returns details "per_factor".

    Raises:
        ValueError: mismatched arrays, or a constant factor.

    Source: Hsu et al. 2023, arXiv:2305.18378, section 4. The solver takes up to 1,000 steps; the authors' takes 100.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import infoe
        >>> rng = np.random.default_rng(0)
        >>> factors = rng.integers(0, 2, (500, 2))
        >>> round(infoe(factors + 0.1 * rng.random((500, 2)), factors).value, 1)
        1.0
    """
    from sklearn.linear_model import LogisticRegression  # takes seconds to import
    from sklearn.metrics import log_loss

    x, y = check_both("infoe", codes, factors)
    inputs = standardize(x)[0]
    per_factor = []
    for column in y.T:
        model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=ITERATIONS).fit(inputs, column)
        # without codes, balanced classes make every value equally likely
        per_factor.append(1 - log_loss(column, model.predict_proba(inputs)) / np.log(column.max() + 1))
    return Score(
        "infoe", f"logistic,n={len(x)}", float(np.mean(per_factor)), seed, {"per_factor": np.array(per_factor)}
    )


def _information(x: np.ndarray, y: np.ndarray, neighbors: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the active codes, and I(code; factor) / H(factor) of all (d, K)."""
    from sklearn.feature_selection import mutual_info_classif  # takes seconds to import

    by = int(np.frexp(np.abs(x).max())[1])
    ranges = np.ptp(rescale(x, by), axis=0)
    active = np.flatnonzero((ranges > LEAST_RANGE * ranges.max()) & ~constant_codes(x))
    inputs = standardize(x)[0]
    columns = [mutual_info_classif(inputs, column, n_neighbors=neighbors, random_state=seed) for column in y.T]
    return active, np.stack(columns, axis=1) / entropies(y)


def _shared(
    name: str, information: np.ndarray, active: np.ndarray, axis: int, neighbors: int, rows: int, seed: int
) -> Score:
    kept = information[active]
    total, size = kept.sum(axis), kept.shape[axis]
    shares = np.where(total > 0, kept.max(axis, initial=0.0) / np.where(total > 0, total, 1.0), 1 / size)
    value = (float(shares.mean()) - 1 / size) / (1 - 1 / size) if shares.size else 0.0
    details = {"per_code" if axis else "per_factor": shares, "active": active, "information": information}
    return Score(name, f"ksg={neighbors},n={rows}", value, seed, details)
