"""Observations of chosen factors and their encoders, for metrics that intervene on factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from orthogan.data.sprites import FACTOR_SIZES, render
from orthogan.disentanglement.arrays import check_codes
from orthogan.words import counted

Encoder = Callable[[Any], ArrayLike]
ROWS = 1024  # approximate number of observations per call of the encoder


@runtime_checkable
class LabelledSource(Protocol):
    """Draws an observation for every combination of factors.

    Example:
        >>> from orthogan.disentanglement import LabelledSource, SpriteSource
        >>> isinstance(SpriteSource(), LabelledSource)  # anything with factor_sizes and sample is one
        True
    """

    @property
    def factor_sizes(self) -> Sequence[int]:
        """Return the number of values of each factor."""
        ...

    def sample(self, factors: np.ndarray, /) -> Any:
        """Return observations, as the encoder takes them, of factors int64 (n, K), each from 0 to its size - 1."""
        ...


class GridSource:
    """Observations in memory, one for each combination of factors.

    Args:
        factors: integers (N, K): every combination of 0 ... size - 1 once, in any order.
        observations: (N, ...), images or codes (then the encoder is ``lambda x: x``).

    Raises ValueError for other shapes, or a combination that is missing or occurs twice.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import GridSource
        >>> factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> source = GridSource(factors, observations=10.0 * factors)
        >>> source.factor_sizes, source.sample(np.array([[1, 0]])).tolist()
        ((2, 2), [[10.0, 0.0]])
    """

    def __init__(self, factors: ArrayLike, observations: np.ndarray) -> None:
        grid = np.asarray(factors)
        if grid.ndim != 2 or not len(grid) or grid.dtype.kind not in "iu" or len(grid) != len(observations):
            raise ValueError(
                f"GridSource: factors must be integers (N, K), one row for each of the {len(observations)} "
                f"observations, not {grid.dtype} of shape {grid.shape}"
            )
        if grid.min() < 0:
            raise ValueError(
                f"GridSource: factor {int(grid.min(0).argmin())} has a negative value; number the values from 0"
            )
        self.factor_sizes: tuple[int, ...] = tuple(int(size) for size in grid.max(0) + 1)
        combinations = int(np.prod([float(size) for size in self.factor_sizes]))
        place = np.ravel_multi_index(tuple(grid.T), self.factor_sizes) if combinations == len(grid) else grid[:0, 0]
        if len(np.unique(place)) != combinations:
            raise ValueError(
                f"GridSource: {counted(len(grid), 'row')}; expected each of the {combinations} combinations of "
                f"{self.factor_sizes} once"
            )
        self._row = np.argsort(place)
        self._observations = observations

    def sample(self, factors: np.ndarray, /) -> np.ndarray:
        """Return the observations (n, ...) of factors (n, K). Raises ValueError for values out of range."""
        return self._observations[self._row[np.ravel_multi_index(tuple(factors.T), self.factor_sizes)]]


class SpriteSource:
    """``orthogan.data.sprites``, drawn on demand: uint8 (n, 64, 64) of 0 and 1.

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import SpriteSource
        >>> source = SpriteSource()
        >>> source.sample(np.array([[0, 5, 0, 16, 16]])).shape  # a square
        (1, 64, 64)
    """

    factor_sizes: tuple[int, ...] = FACTOR_SIZES

    def sample(self, factors: np.ndarray, /) -> np.ndarray:
        """Draw images of (shape, scale, orientation, x, y). Raises UserError for values out of range."""
        return render(factors)


def encode_images(metric: str, source: LabelledSource, encoder: Encoder, factors: np.ndarray) -> np.ndarray:
    """Encode observations of ``factors`` (n, K) to codes float64 (n, d), about 1000 at a time.

    Raises ValueError if the encoder returns another number of rows, not a matrix, or non-finite values.
    """
    parts = []
    for start in range(0, len(factors), ROWS):
        wanted = factors[start : start + ROWS]
        codes = check_codes(metric, encoder(source.sample(wanted)))
        if len(codes) != len(wanted):
            raise ValueError(
                f"{metric}: the encoder returned shape {codes.shape} for {counted(len(wanted), 'observation')}; it "
                "must return one row each"
            )
        parts.append(codes)
    return np.concatenate(parts)


def varying(metric: str, source: LabelledSource) -> np.ndarray:
    """Return the indices of the factors with more than one value. Raises ValueError if there are fewer than two."""
    if not isinstance(source, LabelledSource):
        raise TypeError(
            f"{metric}: the first argument must be a source of observations with factors, such as GridSource or "
            f"SpriteSource, not {type(source).__name__}; this metric draws its own observations"
        )
    found = np.flatnonzero(np.array(source.factor_sizes) > 1)
    if len(found) < 2:
        raise ValueError(
            f"{metric}: factor_sizes={source.factor_sizes}: at least two factors with two or more values are needed"
        )
    return found


def draw(source: LabelledSource, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw factors uniformly: int64 (*shape, K)."""
    return rng.integers(0, source.factor_sizes, size=(*shape, len(source.factor_sizes)))
