"""Means and confidence intervals of numbers and of paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orthogan.words import counted

CONFIDENCE = 0.95


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Return (mean, low, high) of at least two values: Student's t interval for their mean.

    It assumes roughly normal values; for scores near 0 or 1 it may extend beyond them.

    Raises:
        ValueError: fewer than two values, a value that is not finite, or a confidence outside (0, 1).
    """
    from scipy.special import stdtrit  # slow to import: a quarter of the time of torch

    numbers = np.array(values, dtype=float)
    if len(numbers) < 2:
        raise ValueError(f"interval: {counted(len(numbers), 'result')}; at least 2 are needed, one per seed")
    if not 0 < confidence < 1:
        raise ValueError(f"interval: confidence={confidence}: must be between 0 and 1")
    if not np.isfinite(numbers).all():
        raise ValueError(f"interval: the value of run {int(np.flatnonzero(~np.isfinite(numbers))[0])} is not finite")
    mean, spread = _mean_and_error(numbers)
    reach = float(stdtrit(len(numbers) - 1, 0.5 + confidence / 2)) * spread
    return mean, mean - reach, mean + reach


def t_test(values: Sequence[float], bound: float = 0.0) -> float:
    """Return the two-sided p-value of Student's t-test that the mean of at least two values is ``bound``.

    Example:
        >>> from orthogan.stats import t_test
        >>> round(t_test([1.0, 2.0, 3.0]), 4)
        0.0742
    """
    from scipy.special import stdtr  # slow to import: a quarter of the time of torch

    numbers = np.array(values, dtype=float)
    mean, error = _mean_and_error(numbers)
    difference = mean - bound
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stdtr(len(numbers) - 1, -abs(difference) / error))


def _mean_and_error(numbers: np.ndarray) -> tuple[float, float]:
    """Return the mean of at least two values, and its standard error, which is exactly 0 for equal values."""
    if (numbers == numbers[0]).all():  # their computed mean may differ from them by rounding, as that of 0.1, 0.1, 0.1
        return float(numbers[0]), 0.0
    return float(numbers.mean()), float(numbers.std(ddof=1)) / math.sqrt(len(numbers))


def holm_levels(p_values: Sequence[float], alpha: float = 1 - CONFIDENCE) -> list[float]:
    """Return the level at which Holm's procedure decides each of several tests (Holm 1979).

    The smallest p-value is compared with alpha / m, the next one with alpha / (m - 1), and so on. After the first test
    that does not reject, the others do not reject either, so they get its level. A test rejects if its p-value is at
    most its level; equivalently, if its confidence interval at 1 - level excludes the bound.

    Example:
        >>> from orthogan.stats import holm_levels
        >>> [round(level, 4) for level in holm_levels([0.01, 0.04, 0.03])]
        [0.0167, 0.025, 0.025]
    """
    m = len(p_values)
    levels = [alpha] * m
    level, open_ = alpha, True
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        if open_:
            level = alpha / (m - rank)
            open_ = p_values[index] <= level
        levels[index] = level
    return levels


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the number of tests by Holm's procedure (Holm 1979).

    Example:
        >>> from orthogan.stats import holm_adjusted
        >>> holm_adjusted([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, largest, m = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable(n: int, *, alpha: float = 1 - CONFIDENCE, power: float = 0.8) -> float:
    """Return the smallest mean that a two-sided t-test on ``n`` values finds with probability ``power``.

    The unit is the standard deviation of the values (of the paired differences, for a comparison).

    Raises:
        ValueError: fewer than two values.

    Example:
        >>> from orthogan.stats import detectable
        >>> round(detectable(5), 2)
        1.68
    """
    from scipy.optimize import brentq
    from scipy.special import nctdtr, stdtrit

    if n < 2:
        raise ValueError(f"power: n = {n}; at least 2 runs are needed")
    critical = float(stdtrit(n - 1, 1 - alpha / 2))

    def missing(size: float) -> float:
        shift = size * math.sqrt(n)
        return float(nctdtr(n - 1, shift, critical)) - (1 - power)

    high = 1.0
    while missing(high) > 0:
        high *= 2
    root: Any = brentq(missing, 0.0, high)
    return float(root)


@dataclass(frozen=True)
class Estimate:
    """``n`` values, their mean, and the 95 % interval for it: None for fewer than two values.

    If a value is not finite, both are missing: a mean over the others would omit the worst value.
    """

    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Estimate from the values of runs that differ in their random seed."""
        found = tuple(float(value) for value in values)
        if not found or not all(map(math.isfinite, found)):
            return cls(found, math.nan, None, None)
        if len(found) == 1:
            return cls(found, found[0], None, None)
        return cls(found, *t_interval(found))

    @property
    def n(self) -> int:
        """The number of values."""
        return len(self.values)

    def at(self, confidence: float) -> Estimate:
        """Return the same estimate with its interval at another confidence; unchanged if it has no interval."""
        if self.low is None:
            return self
        return Estimate(self.values, *t_interval(self.values, confidence))

    def __str__(self) -> str:
        """Format as ``7.31 ± 0.24``; ``7.31`` for a single value or equal values; ``–`` if there is none."""
        if not self.values:
            return "–"
        lost = sum(not math.isfinite(value) for value in self.values)
        if lost:
            return f"not finite in {lost} of {self.n}"
        if self.low is None or self.high is None:
            return format_number(self.mean)
        half = (self.high - self.low) / 2
        if half == 0:
            return format_number(self.mean)
        decimals = 1 - math.floor(math.log10(half))
        if decimals > 6 or abs(self.mean) >= 1e7:
            return f"{self.mean:.3g} ± {half:.2g}"
        places = max(0, decimals)
        return f"{self.mean:,.{places}f} ± {half:,.{places}f}"

    def bounds(self) -> str:
        """Return ``[7.07, 7.55]``, or why there are no bounds."""
        if self.low is None or self.high is None:
            return f"n = {self.n}, no interval"
        return f"[{format_number(self.low)}, {format_number(self.high)}]"

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; non-finite values are left to the writer."""
        return {"n": self.n, "mean": self.mean, "low": self.low, "high": self.high, "values": list(self.values)}


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate:
    """Estimate a - b over common seeds, so that the effect of the seed on data order and initial weights cancels.

    Values that differ only by rounding have a difference of 0.
    """
    seeds = sorted(a.keys() & b.keys())
    return Estimate.of([0.0 if math.isclose(a[s], b[s], rel_tol=1e-12) else a[s] - b[s] for s in seeds])


def format_number(value: float) -> str:
    """Format a single number: integers in full, others with four digits."""
    if not math.isfinite(value):
        return "not finite"
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:.4g}"
