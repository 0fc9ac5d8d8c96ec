"""Mutual information of binned codes and factors in nats, by counting, and its bias."""

from __future__ import annotations

import numpy as np

from orthogan.disentanglement.arrays import constant_codes, rescale

MAX_BIAS = 0.05  # of a factor's entropy


def discretise(codes: np.ndarray, bins: int) -> np.ndarray:
    """Bin ``codes`` (N, d) into ``bins`` bins of equal width between the smallest and largest value: int64 (N, d).

    Bins are closed on the left, and the last one includes the largest value. A constant code is entirely in bin 0.
    Outliers make the bins wide and the result coarse: clip unbounded codes first.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import discretise
        >>> discretise(np.array([[0.0], [0.4], [1.0]]), bins=2).tolist()
        [[0], [0], [1]]
    """
    if bins < 2:
        raise ValueError(f"bins={bins}: must be at least 2")
    codes = rescale(codes)
    binned = np.zeros(codes.shape, np.int64)
    for i in np.flatnonzero(~constant_codes(codes)):
        edges = np.histogram_bin_edges(codes[:, i], bins)
        binned[:, i] = np.searchsorted(edges[:-1], codes[:, i], side="right") - 1
    return binned


def mutual_information_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """I(first_i; second_j) of counted frequencies: classes >= 0 (N, d) and (N, K) to float64 (d, K) in nats.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import mutual_information_matrix
        >>> first = np.array([[0], [0], [1], [1]])
        >>> second = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> mutual_information_matrix(first, second).round(3).tolist()
        [[0.693, 0.0]]
    """
    matrix = np.empty((first.shape[1], second.shape[1]))
    for j, y in enumerate(second.T):
        size = int(y.max()) + 1
        for i, x in enumerate(first.T):
            table = np.bincount(x * size + y, minlength=(int(x.max()) + 1) * size).reshape(-1, size)
            expected = table.sum(1, keepdims=True) * table.sum(0)
            seen = table > 0
            # integers up to the logarithm, so that exact independence gives exactly 0
            ratio = table[seen] * len(x) / expected[seen]
            matrix[i, j] = max(0.0, float((table[seen] / len(x) * np.log(ratio)).sum()))
    return matrix


def entropies(classes: np.ndarray) -> np.ndarray:
    """H of counted frequencies of each column: classes >= 0 (N, K) to float64 (K,) in nats.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import entropies
        >>> entropies(np.array([[0, 0], [1, 0], [0, 0], [1, 0]])).round(3).tolist()
        [0.693, -0.0]
    """
    shares = [np.bincount(column) / len(column) for column in classes.T]
    return np.array([-sum(p * np.log(p) for p in share if p > 0) for share in shares])


def check_bias(
    metric: str, rows: int, bins: int, sizes: np.ndarray, entropy: np.ndarray, max_bias: float
) -> np.ndarray:
    """Return the bias of the mutual information of independent variables, (bins - 1)(K_j - 1) / (2 N) nats: (K,).

    ``sizes``, ``entropy``: number of values and H of each variable, (K,).
    Raises ValueError if it exceeds ``max_bias`` of the entropy, and says how many rows are needed.
    """
    per_row = (bins - 1) * (sizes - 1) / 2
    share = per_row / (rows * entropy)
    worst = int(np.argmax(share))
    if not max_bias > 0:
        raise ValueError(f"{metric}: max_bias={max_bias}: must be a fraction of the entropy above 0")
    if share[worst] > max_bias:
        needed = int(np.ceil(per_row[worst] / (max_bias * entropy[worst])))
        raise ValueError(
            f"{metric}: {rows} rows are too few: with {bins} bins and {sizes[worst]} values, the bias of column "
            f"{worst} is {share[worst]:.0%} of its entropy (allowed: {max_bias:.0%}); use at least {needed} rows, or "
            "fewer bins"
        )
    return per_row / rows
