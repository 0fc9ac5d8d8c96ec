"""A penalty's weight over a run: piecewise constant, a function of the position, so it needs no state."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Schedule:
    """The value of the last point at or before a position: ``Schedule([(0, 1e-2), (20, 1e-3)])(19.5)`` is 1e-2.

    The positions are in any one unit: epochs or steps done, or the share of the run.

    Args:
        points: (position, value), the positions rising from 0, the values finite and at least 0.

    Raises:
        ValueError: points that are not so.

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
        """The value at ``position``.

        Raises:
            ValueError: a position before 0.
        """
        if not position >= 0:
            raise ValueError(f"position {position}: must be at least 0")
        return self.points[bisect_right(self.points, position, key=lambda point: point[0]) - 1][1]

    def stretched(self, factor: float) -> Schedule:
        """The same schedule with every position times ``factor``: into another unit, or for a run of another length.

        Raises:
            ValueError: a factor that is not above 0.
        """
        if not 0 < factor < math.inf:
            raise ValueError(f"factor is {factor}: it must be above 0")
        return Schedule([(position * factor, value) for position, value in self.points])


# Bansal et al. 2018, their code for Wide-ResNets on CIFAR: the factor on ``srip``'s weight by epochs done of 200
SRIP_EPOCHS = 200
SRIP_WEIGHT = 1e-2
SRIP_SCHEDULE = Schedule([(0, 1.0), (20, 1e-3), (50, 1e-4), (70, 1e-6), (120, 0.0)])
