"""Means and confidence intervals of numbers and of paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
        raise ValueError(f"interval: {len(numbers)} results; at least 2 are needed, one per seed")
    if not 0 < confidence < 1:
        raise ValueError(f"interval: confidence={confidence}: must be between 0 and 1")
    if not np.isfinite(numbers).all():
        raise ValueError(f"interval: the value of run {int(np.flatnonzero(~np.isfinite(numbers))[0])} is not finite")
    mean = float(numbers.mean())
    spread = float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    reach = float(stdtrit(len(numbers) - 1, 0.5 + confidence / 2)) * spread
    return mean, mean - reach, mean + reach


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
