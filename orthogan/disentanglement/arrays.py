"""Checks of codes and factors shared by all array metrics, and the split into training and test rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from orthogan.arguments import shown
from orthogan.words import counted

HeldOut = tuple[ArrayLike, ArrayLike]
TRAIN_SHARE = 2 / 3  # 10,000 of 15,000, as in disentanglement_lib


def check_codes(metric: str, codes: ArrayLike, *, least: int = 1) -> np.ndarray:
    """Return ``codes`` as float64 (N, d).

    Raises ValueError if they are not a matrix, have no rows, fewer than ``least`` columns, or non-finite values.
    """
    array = as_array(codes)
    if array.ndim != 2 or not len(array) or array.dtype.kind not in "fiub":
        raise ValueError(f"{metric}: codes must be numbers of shape (N, d), not {array.dtype} of shape {array.shape}")
    if array.shape[1] < least:
        raise ValueError(f"{metric}: codes have shape {array.shape}, but at least {least} codes are needed")
    array = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array).all(0))
    if len(bad):
        raise ValueError(
            f"{metric}: codes contain NaN or infinite values in columns {shown(bad.tolist())}; check the encoder"
        )
    return array


def check_factors(metric: str, factors: ArrayLike, rows: int, *, least: int = 1) -> np.ndarray:
    """Return ``factors`` as int64 (N, K), with the values of each column renumbered 0, 1, 2 ... in order.

    Raises ValueError if they are not a matrix with ``rows`` rows, have fewer than ``least`` columns, values that are
    not integers, or a constant factor.
    """
    array = as_array(factors)
    if array.ndim != 2 or len(array) != rows or array.dtype.kind not in "fiub":
        raise ValueError(
            f"{metric}: factors must be ({rows}, K) as the codes have {rows} rows, not {array.dtype} of {array.shape}"
        )
    if array.shape[1] < least:
        raise ValueError(f"{metric}: factors have shape {array.shape}, but at least {least} factors are needed")
    endless = [j for j, column in enumerate(array.T) if not np.isfinite(column).all()]
    if endless:
        raise ValueError(f"{metric}: factors {endless} contain NaN or infinite values; remove the rows without a value")
    broken = [j for j, column in enumerate(array.T) if not np.array_equal(column, np.round(column))]
    if broken:
        raise ValueError(f"{metric}: factors {broken} are not integers; number their values, or bin them first")
    columns = [np.unique(column, return_inverse=True)[1] for column in array.T]
    constant = [j for j, column in enumerate(columns) if column.max() == 0]
    if constant:
        raise ValueError(f"{metric}: factors {constant} have the same value in all {rows} rows; remove these columns")
    return np.stack(columns, axis=1).astype(np.int64)


def check_both(
    metric: str, codes: ArrayLike, factors: ArrayLike, *, least_codes: int = 1, least_factors: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return checked codes float64 (N, d) and factors int64 (N, K); raises as ``check_codes`` and ``check_factors``."""
    checked = check_codes(metric, codes, least=least_codes)
    return checked, check_factors(metric, factors, len(checked), least=least_factors)


def as_array(values: ArrayLike) -> np.ndarray:
    """Convert ``values``, which may be a tensor on any device, with or without a gradient, to an array.

    Raises ValueError for a masked array with masked values.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError("a masked array with missing values: remove their rows first, from both codes and factors")
    if not isinstance(values, Tensor):
        return np.asarray(values)
    plain = values.detach().to_dense().cpu()
    return plain.float().numpy() if plain.dtype == torch.bfloat16 else plain.numpy()


def exponents(codes: np.ndarray) -> np.ndarray:
    """(d,) int: e with the largest |code| of each column in [2^(e-1), 2^e); 0 for a column of zeros."""
    return np.frexp(np.abs(codes).max(0))[1]


def rescale(codes: np.ndarray, by: np.ndarray | int | None = None) -> np.ndarray:
    """Divide ``codes`` (N, d) by 2 ^ ``by`` (default: ``exponents``): exact, and avoids overflow."""
    return np.ldexp(codes, -(exponents(codes) if by is None else by))


def constant_codes(codes: np.ndarray) -> np.ndarray:
    """Return (d,) bool: the codes that are constant up to rounding of their largest value, at any scale."""
    small = rescale(codes)
    return np.ptp(small, axis=0) <= 1e-12 * np.abs(small).max(0)


def standardize(codes: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Standardize ``codes`` (N, d), and ``others`` by the same mean and standard deviation; constant codes become 0."""
    still, by = constant_codes(codes), exponents(codes)
    small = rescale(codes, by)
    mean, deviation = small.mean(0), np.where(still, 1.0, small.std(0))
    return [np.where(still, 0.0, (rescale(part, by) - mean) / deviation) for part in (codes, *others)]


@dataclass(frozen=True)
class Split:
    """Training and test rows: codes float64, factors int64, with the same numbering of values in both."""

    codes: np.ndarray
    factors: np.ndarray
    test_codes: np.ndarray
    test_factors: np.ndarray

    @property
    def variant(self) -> str:
        """``train=10000,test=5000``."""
        return f"train={len(self.codes)},test={len(self.test_codes)}"

    def rescaled(self, by: np.ndarray | None = None) -> Split:
        """Apply ``rescale`` to both parts, by default with the ``exponents`` of the training codes."""
        by = exponents(self.codes) if by is None else by
        return Split(rescale(self.codes, by), self.factors, rescale(self.test_codes, by), self.test_factors)

    def without_offset(self) -> Split:
        """Subtract the training mean of each code whose range is small next to its values, for use in float32."""
        small = np.ptp(self.codes, axis=0) < np.abs(self.codes).max(0) / 256
        offset = np.where(small, self.codes.mean(0), 0.0)
        return Split(self.codes - offset, self.factors, self.test_codes - offset, self.test_factors)

    def standardised(self) -> Split:
        """Standardize each code by its training mean and standard deviation; constant codes become 0."""
        train, test = standardize(self.codes, self.test_codes)
        return Split(train, self.factors, test, self.test_factors)


def split(
    metric: str,
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    train_share: float,
    test: HeldOut | None,
    seed: int,
    least: int = 1,
) -> Split:
    """Split rows by ``seed``: a fraction ``train_share`` for training, or all if ``test`` = (codes, factors) is given.

    ``least``: fewest codes and fewest factors.
    Raises ValueError as ``check_both``, and for a fraction outside (0, 1), test arrays of another width, too few
    training rows (fewer than 2 for each value of the largest factor), no test rows, or a factor that is constant in the
    training rows.
    """
    arrays = as_array(codes), as_array(factors)
    train = arrays[0].shape[0] if arrays[0].ndim else 0
    if test is not None:
        arrays = _joined(
            metric, arrays, test
        )  # before the values are numbered, so that both parts get the same numbering
    x, y = check_both(metric, *arrays, least_codes=least, least_factors=least)
    if test is None:
        if not 0 < train_share < 1:
            raise ValueError(f"{metric}: train_share={train_share}: must be between 0 and 1, or pass test arrays")
        order = np.random.default_rng(seed).permutation(len(x))
        x, y, train = x[order], y[order], round(train_share * len(x))
    needed = 2 * (int(y.max()) + 1)
    if train < needed or train == len(x):
        raise ValueError(
            f"{metric}: {train} rows to train on and {len(x) - train} to test; "
            f"at least {needed} (2 for each value of the largest factor) and 1 are needed"
        )
    single = np.flatnonzero(np.ptp(y[:train], axis=0) == 0)
    if len(single):
        raise ValueError(
            f"{metric}: factors {single.tolist()} have the same value in all {train} training rows; use more rows"
        )
    return Split(x[:train], y[:train], x[train:], y[train:])


def _joined(metric: str, train: tuple[np.ndarray, np.ndarray], test: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """Training rows above test rows."""
    pairs = [
        (kind, first, as_array(second)) for kind, first, second in zip(("codes", "factors"), train, test, strict=True)
    ]
    for kind, first, second in pairs:
        if second.ndim != 2 or first.shape[1:] != second.shape[1:]:
            raise ValueError(
                f"{metric}: test {kind} have shape {second.shape}, which does not match the training shape "
                f"{first.shape}"
            )
    if len(train[0]) != len(train[1]):
        raise ValueError(
            f"{metric}: {counted(len(train[0]), 'row')} of codes but "
            f"{counted(len(train[1]), 'row')} of factors for training"
        )
    return np.concatenate([pairs[0][1], pairs[0][2]]), np.concatenate([pairs[1][1], pairs[1][2]])
