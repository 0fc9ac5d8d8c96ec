"""Data sets with known generative factors: annotations, and the image of any combination of factors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orthogan.data.source import Annotation, ImageSource
from orthogan.errors import UserError


def check_factors(where: object, factors: np.ndarray, names: Sequence[str], sizes: Sequence[int]) -> np.ndarray:
    """``factors`` as int64 (N, K). Raises UserError naming ``where`` and the column that leaves 0 ... size - 1."""
    factors = np.asarray(factors)
    if factors.ndim != 2 or factors.shape[1] != len(names) or not np.issubdtype(factors.dtype, np.integer):
        raise UserError(
            f"{where}: factors must be integers (n, {len(names)}), not {factors.dtype} of shape {factors.shape}"
        )
    for k, (name, size) in enumerate(zip(names, sizes, strict=True)):
        column = factors[:, k]
        if column.min(initial=0) < 0 or column.max(initial=0) >= size:
            raise UserError(
                f"{where}: {name} (column {k}) runs from {column.min()} to {column.max()}, expected 0 to {size - 1}"
            )
    return factors.astype(np.int64, copy=False)


def factor_value(where: str, names: Sequence[str], values: Sequence[Sequence[str]], name: str, value: str | int) -> int:
    """Return the number of a factor's value that is given by its name or number; ``values``: of each of ``names``.

    Raises UserError naming ``where`` for a factor or a value that does not exist.
    """
    if name not in names:
        raise UserError(f"{where}: unknown factor {name!r}; the factors are {', '.join(names)}")
    known = values[names.index(name)]
    if isinstance(value, str) and value in known:
        return known.index(value)
    if isinstance(value, int) and 0 <= value < len(known):
        return value
    raise UserError(f"{where}: {name}={value!r}: must be a number below {len(known)} or one of {', '.join(known)}")


def known_factors(
    factors: np.ndarray, names: Sequence[str], sizes: Sequence[int], *, label: str, class_names: Sequence[str]
) -> Annotation:
    """Annotate factors (N, K); the one called ``label`` is also the class."""
    factors = factors.astype(np.int64)
    return Annotation(factors[:, names.index(label)].copy(), list(class_names), factors, list(names), list(sizes))


def full_grid(sizes: Sequence[int]) -> np.ndarray:
    """Return every combination int64 (prod(sizes), K); the last factor varies fastest."""
    return np.indices(tuple(sizes), np.int64).reshape(len(sizes), -1).T


class FactorGrid:
    """A source whose factors are known, as the ``LabelledSource`` of ``factor_vae`` and ``beta_vae``.

    Args:
        source: an image source with ``factors`` (N, K); no combination may occur twice.
        occurring: number only the values that occur, so that the five training instances of SmallNORB, 4 6 7 8 9,
            become 0 to 4 and the grid has no holes. ``values[k][j]`` is the source's class of value j of factor k.

    A full grid in the order of its factors needs only arithmetic; any other grid needs a sorted table of N keys.
    Raises ValueError if the source has no factors, or a combination occurs twice.

    Example:
        >>> import numpy as np
        >>> from orthogan.data import ArraySource, FactorGrid
        >>> factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> about = {"factors": factors, "factor_names": ["size", "hue"], "factor_sizes": [2, 2]}
        >>> source = ArraySource("mine", np.zeros((4, 1, 8, 8), np.uint8), **about)
        >>> FactorGrid(source).sample(np.array([[1, 0]])).shape
        (1, 1, 8, 8)
    """

    def __init__(self, source: ImageSource, *, occurring: bool = False) -> None:
        factors = source.factors
        if factors is None or not len(source.factor_sizes):
            raise ValueError(f"{source.name}: its factors are not known; FactorGrid needs a source with factors (N, K)")
        self.source, self.occurring = source, occurring
        self.factor_names = tuple(source.factor_names)
        if occurring:
            self.values = tuple(np.unique(column) for column in factors.T)
            factors = np.stack([np.searchsorted(v, c) for v, c in zip(self.values, factors.T, strict=True)], axis=1)
        else:
            self.values = tuple(np.arange(size) for size in source.factor_sizes)
        self.factor_sizes: tuple[int, ...] = tuple(len(v) for v in self.values)
        self.combinations = int(np.prod([int(size) for size in self.factor_sizes], dtype=object))
        pieces = range(0, len(factors), 1 << 20)  # the table of the colored sprites has 35 million rows
        keys = np.concatenate([self._keys(factors[i : i + (1 << 20)]) for i in pieces])
        self._table: tuple[np.ndarray, np.ndarray] | None = None  # sorted keys and their rows
        if len(keys) == self.combinations and (keys == np.arange(len(keys))).all():
            return
        rows = np.argsort(keys, kind="stable")
        ordered = keys[rows]
        self._table = ordered, rows
        double = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(double):
            first, second = rows[double[0]], rows[double[0] + 1]
            raise ValueError(
                f"{source.name}: images {first} and {second} have the same factors, {self._words(factors[first])}; "
                "FactorGrid needs a different combination of factors for every image"
            )

    def rows(self, factors: np.ndarray) -> np.ndarray:
        """Return the indices int64 (n,) of the images with the factors (n, K).

        Raises ValueError for another shape, a value out of range, or a combination that no image has.
        """
        keys = self._keys(factors)
        if self._table is None:
            return keys
        ordered, rows = self._table
        place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
        absent = np.flatnonzero(ordered[place] != keys)
        if len(absent):
            remedy = "" if self.occurring else "; FactorGrid(source, occurring=True) numbers only values that occur"
            raise ValueError(
                f"{self.source.name}: no image has {self._words(factors[absent[0]])}: {len(self.source):,} of "
                f"{self.combinations:,} combinations exist{remedy}"
            )
        return rows[place]

    def sample(self, factors: np.ndarray, /) -> np.ndarray:
        """Return images uint8 (n, channels, resolution, resolution) of factors (n, K); raises as ``rows``."""
        return self.source.read(self.rows(factors))[0]

    def _keys(self, factors: np.ndarray) -> np.ndarray:
        if factors.ndim != 2 or factors.shape[1] != len(self.factor_sizes) or factors.dtype.kind not in "iu":
            raise ValueError(
                f"{self.source.name}: factors must be integers (n, {len(self.factor_sizes)}), "
                f"not {factors.dtype} of shape {factors.shape}"
            )
        wrong = np.argwhere((factors < 0) | (factors >= np.array(self.factor_sizes)))
        if len(wrong):
            row, k = wrong[0]
            raise ValueError(
                f"{self.source.name}: {self.factor_names[k]}={factors[row, k]}: must be 0 to {self.factor_sizes[k] - 1}"
            )
        return np.asarray(np.ravel_multi_index(tuple(factors.astype(np.int64).T), self.factor_sizes))

    def _words(self, factors: np.ndarray) -> str:
        return ", ".join(f"{name}={value}" for name, value in zip(self.factor_names, factors, strict=True))
