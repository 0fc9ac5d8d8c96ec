"""Shuffling without state: the image at a position depends on (seed, position) alone.

An epoch is one pass over all images. Epoch e is ordered by sorting n random 64-bit keys, drawn from a Philox stream
seeded by ``derive(seed, "epoch", e)``. The raw Philox stream is fixed by its definition (Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", 2011), so the order does not change between NumPy releases, unlike
``Generator.permutation``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from orthogan.rng import derive


def _keys(seed: int, count: int) -> np.ndarray:
    return np.asarray(np.random.Philox(key=seed).random_raw(count))


@lru_cache(maxsize=2)  # a batch may span two epochs; older ones are not needed again in training
def epoch_permutation(seed: int, n: int, epoch: int) -> np.ndarray:
    """Return the order of the ``n`` images in one epoch: a read-only int64 permutation of ``range(n)``."""
    order = np.argsort(_keys(derive(seed, "epoch", epoch), n), kind="stable").astype(np.int64, copy=False)
    order.flags.writeable = False
    return order


def permuted_index(seed: int, n: int, position: int, count: int) -> np.ndarray:
    """Return the image indices at positions ``position .. position + count - 1`` of the endless shuffled stream.

    Positions ``e*n .. (e+1)*n - 1`` are epoch e, a permutation of ``range(n)``; int64 of shape (count,).
    Raises ValueError for an empty set or a negative position or count.

    Example:
        >>> from orthogan.data import permuted_index
        >>> sorted(permuted_index(seed=0, n=5, position=0, count=5).tolist())  # every image once per epoch
        [0, 1, 2, 3, 4]
    """
    if n < 1 or position < 0 or count < 0:
        raise ValueError(f"need n >= 1, position >= 0 and count >= 0, got {n}, {position}, {count}")
    parts: list[np.ndarray] = []
    while count > 0:
        epoch, start = divmod(position, n)
        part = epoch_permutation(seed, n, epoch)[start : start + count]
        parts.append(part)
        position += len(part)
        count -= len(part)
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def subset(seed: int, n: int, count: int) -> np.ndarray:
    """Draw ``count`` distinct integers of ``range(n)`` in random order, int64; a pure function of its arguments.

    Small subsets of a very large range are drawn by rejection, without an array of length n. Raises ValueError unless 0
    <= count <= n.
    """
    if not 0 <= count <= n:
        raise ValueError(f"cannot take {count} distinct items out of {n}")
    if 4 * count >= n:
        return epoch_permutation(derive(seed, "subset"), n, 0)[:count].copy()
    draws = 2 * count + 16  # the fraction of distinct values is at least 1 - draws / n / 2 > 3/4 here
    while True:
        # A longer stream begins with the shorter one, so the result does not depend on how often this repeats.
        drawn = (_keys(derive(seed, "subset"), draws) % np.uint64(n)).astype(np.int64)
        _, first = np.unique(drawn, return_index=True)
        if len(first) >= count:
            return drawn[np.sort(first)[:count]]
        draws *= 2
