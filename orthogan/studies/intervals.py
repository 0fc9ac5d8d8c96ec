"""Mean and 95 % interval of one number over seeds, and of its difference between two methods on equal seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orthogan.disentanglement.intervals import interval
from orthogan.disentanglement.score import Score

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """``n`` values, their mean, and Student's t interval for it: None for fewer than two values.

    Where a value is not finite there is neither: a mean over the others would leave out the worst.
    """

    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Of the values of runs that differ in their seed."""
        found = tuple(float(value) for value in values)
        if not found or not all(map(math.isfinite, found)):
            return cls(found, math.nan, None, None)
        if len(found) == 1:
            return cls(found, found[0], None, None)
        scores = [Score("number", "", value, seed) for seed, value in enumerate(found)]
        over = interval(scores, confidence=CONFIDENCE)
        return cls(found, over.mean, over.low, over.high)

    @property
    def n(self) -> int:
        """How many values there are."""
        return len(self.values)

    def __str__(self) -> str:
        """``7.31 ± 0.24``; ``7.31`` of one value or where all are equal; ``–`` where there is none."""
        if not self.values:
            return "–"
        lost = sum(not math.isfinite(value) for value in self.values)
        if lost:
            return f"not finite in {lost} of {self.n}"
        if self.low is None or self.high is None:
            return plain(self.mean)
        half = (self.high - self.low) / 2
        if half == 0:
            return plain(self.mean)
        decimals = 1 - math.floor(math.log10(half))
        if decimals > 6 or abs(self.mean) >= 1e7:
            return f"{self.mean:.3g} ± {half:.2g}"
        places = max(0, decimals)
        return f"{self.mean:,.{places}f} ± {half:,.{places}f}"

    def bounds(self) -> str:
        """``[7.07, 7.55]``, or why there are none."""
        if self.low is None or self.high is None:
            return f"n = {self.n}, no interval"
        return f"[{plain(self.low)}, {plain(self.high)}]"

    def as_dict(self) -> dict[str, Any]:
        """For JSON (values that are not finite are the writer's business)."""
        return {"n": self.n, "mean": self.mean, "low": self.low, "high": self.high, "values": list(self.values)}


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate:
    """a - b over the seeds that both have: the seed's own luck, in data order and initial weights, cancels."""
    return Estimate.of([_less(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys())])


def _less(a: float, b: float) -> float:
    """a - b; 0 where they differ by rounding alone."""
    return 0.0 if math.isclose(a, b, rel_tol=1e-12) else a - b


def plain(value: float) -> str:
    """A number on its own: whole ones whole, others with four digits."""
    if not math.isfinite(value):
        return "not finite"
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:.4g}"
