"""The weight of a penalty during a run: piecewise constant and stateless, because it depends only on the position."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Schedule:
    """A piecewise constant schedule: the value of the last point at or before a position.

    For example, ``Schedule([(0, 1e-2), (20, 1e-3)])(19.5)`` is 1e-2. All positions use the same unit: epochs or steps
    completed, or the fraction of the run.

    Args:
        points: (position, value), with positions that increase from 0 and finite values of at least 0.

    Raises:
        ValueError: the points are invalid.

    Example:
        >>> from orthogan.penalties import Schedule
        >>> schedule = Schedule([(0, 1e-2), (20, 1e-3)])
        >>> schedule(19.5), schedule(20)
        (0.01, 0.001)
    """

    points: Sequence[tuple[float, float]]

    def __post_init__(self) -> None:
        points = tuple((float(position), float(value)) for position, value in self.points)
        object.__setattr__(self, "points", points)
        if not points or points[0][0] != 0:
            raise ValueError(f"points {list(points)}: the first must be at position 0")
        for (before, _), (after, _) in pairwise(points):
            if not before < after < math.inf:
                raise ValueError(f"points {list(points)}: position {after} must come after {before}; sort them")
        for position, value in points:
            if not 0 <= value < math.inf:
                raise ValueError(f"points: the value {value} at {position} must be a finite number of at least 0")

    def __call__(self, position: float) -> float:
        """Return the value at ``position``.

        Raises:
            ValueError: the position is below 0.
        """
        if not position >= 0:
            raise ValueError(f"position {position}: must be at least 0")
        return self.points[bisect_right(self.points, position, key=lambda point: point[0]) - 1][1]

    def stretched(self, factor: float) -> Schedule:
        """Return this schedule with all positions multiplied by ``factor``, for another unit or length of the run.

        Raises:
            ValueError: the factor is not positive.
        """
        if not 0 < factor < math.inf:
            raise ValueError(f"factor is {factor}: it must be above 0")
        return Schedule([(position * factor, value) for position, value in self.points])


# Bansal et al. 2018, code for Wide-ResNets on CIFAR: the factor on the weight of ``srip`` by epochs completed, of 200
SRIP_EPOCHS = 200
SRIP_WEIGHT = 1e-2
SRIP_SCHEDULE = Schedule([(0, 1.0), (20, 1e-3), (50, 1e-4), (70, 1e-6), (120, 0.0)])
