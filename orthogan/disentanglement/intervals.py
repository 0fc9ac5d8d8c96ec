"""Mean and confidence interval of one metric over several runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from orthogan.disentanglement.score import Score


@dataclass(frozen=True)
class Interval:
    """The mean over ``runs`` and the bounds between which the true mean lies with ``confidence``."""

    name: str
    mean: float
    low: float
    high: float
    confidence: float
    runs: int

    def __float__(self) -> float:
        return self.mean

    def __str__(self) -> str:
        half = (self.high - self.low) / 2
        return f"{self.name} {self.mean:.4g} ± {half:.2g} ({self.confidence:.0%}, {self.runs} runs)"


def interval(results: Sequence[Score], *, detail: str | None = None, confidence: float = 0.95) -> Interval:
    """Student's t interval over runs that differ in their seed (the model's, the metric's or both).

    ``detail``: take this number of the details rather than the value, as "completeness" of ``dci``.
    The interval supposes roughly normal scores; near 0 or 1 it may reach beyond them.

    Raises:
        ValueError: fewer than two results, results of unlike variants, a detail that is no number, a number that is
            not finite, or a confidence outside (0, 1).
    """
    if len(results) < 2:
        raise ValueError(f"interval: {len(results)} results: at least 2, one a seed")
    if not 0 < confidence < 1:
        raise ValueError(f"interval: confidence={confidence}: between 0 and 1")
    names = sorted({result.name for result in results})
    if len(names) > 1:
        raise ValueError(f"interval: results of different variants have no mean: {', '.join(names)}")
    numbers = np.array([_number(result, detail) for result in results])
    if not np.isfinite(numbers).all():
        raise ValueError(f"interval: {names[0]} is not finite in run {int(np.flatnonzero(~np.isfinite(numbers))[0])}")
    mean = float(numbers.mean())
    reach = (
        float(stdtrit(len(numbers) - 1, 0.5 + confidence / 2)) * float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    )
    name = names[0] if detail is None else f"{names[0]} {detail}"
    return Interval(name, mean, mean - reach, mean + reach, confidence, len(numbers))


def _number(result: Score, detail: str | None) -> float:
    if detail is None:
        return result.value
    found = result.details.get(detail)
    if not isinstance(found, int | float):
        numbers = [key for key, value in result.details.items() if isinstance(value, int | float)]
        raise ValueError(
            f"interval: detail={detail!r} is no number of {result.name}; it has {', '.join(numbers) or 'none'}"
        )
    return float(found)
