"""Merging of factor values that small images cannot distinguish, so that a classifier is not asked to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orthogan.data.source import ImageSource
from orthogan.data.sprites import FACTOR_SIZES

LEVELS = 6
TURNS = 2
KINDS = (
    "shape",
    "object",
    "category",
    "instance",
    "colour",
)  # words in the names of factors whose values have no order
SPRITE_TURN = FACTOR_SIZES[2] - 1  # orientations 0 and 39 of the sprites are the same image


@dataclass(frozen=True)
class Merging:
    """The factors to keep, and the class of each of their values.

    ``columns``: indices of the factors in the source. ``tables``: for each factor, the class of value 0, 1, 2, ...;
    classes are numbered from 0 without gaps. ``notes``: for each factor, how its values were merged ("" if they were
    not).

    Example:
        >>> import numpy as np
        >>> from orthogan.disentanglement import Merging
        >>> merging = Merging(("x",), (0,), ((0, 0, 1, 1),), ("",))
        >>> merging(np.array([[0], [1], [3]])).tolist(), merging.variant
        ([[0], [0], [1]], 'x 4>2')
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    tables: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of classes of each factor."""
        return tuple(max(table) + 1 for table in self.tables)

    @property
    def variant(self) -> str:
        """``orientation 40>2 mod 90 degrees;x 32>8;y 32>8``, or ``none``."""
        merged = [
            f"{name} {len(table)}>{max(table) + 1}{note and ' '}{note}"
            for name, table, note in zip(self.names, self.tables, self.notes, strict=True)
            if len(set(table)) < len(table)
        ]
        return ";".join(merged) or "none"

    def __call__(self, factors: np.ndarray) -> np.ndarray:
        """Return the classes int64 (n, kept) of source factors, integers (n, K)."""
        pairs = zip(self.columns, self.tables, strict=True)
        return np.stack([np.array(table)[factors[:, column]] for column, table in pairs], axis=1)


def get_merging(source: ImageSource, *, levels: int = LEVELS, turns: int = TURNS) -> Merging:
    """Return the default merging of the factors of ``source``; constant factors are dropped.

    * Factors whose values have names (``source.factor_values``): names that differ only in a number at their end are
      one class, so that the hair long01 ... long24, short01 ... short21 is long or short, and a hat is there or not.
      Where that leaves a single class, as for the clothes of the faces, every value is its own.
    * Ordered factors of more than ``levels`` values: neighbors share a bin, ceil(values / levels) of them or one
      fewer, so there are at most ``levels`` bins. Unordered factors (a word of ``KINDS`` in the name) are never merged.
      (The position of a sprite heart is a point beside its centroid, so 32 positions are hard to distinguish.)
    * The orientation of the sprites (40 values, of which 0 and 39 are the same image): the angle modulo 90 degrees,
      after which a square looks the same, in ``turns`` equal bins; 1 drops it. The ellipse repeats after 180 degrees
      and the heart after 360; one rule for all shapes keeps the factor independent of the shape.

    Raises ValueError for unknown factors, fewer than 2 levels or 1 turn, or if no factor varies.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import get_merging
        >>> merging = get_merging(orthogan.open_source("sprites", count=16, channels=1))
        >>> merging.names, merging.sizes
        (('shape', 'scale', 'orientation', 'x', 'y'), (3, 6, 2, 6, 6))
    """
    if not len(source.factor_sizes):
        raise ValueError(f"{source.name}: its factors are not known; choose one with factors, such as faces")
    if levels < 2 or turns < 1:
        raise ValueError(f"levels={levels}, turns={turns}: must be at least 2 and 1")
    names, sizes = tuple(source.factor_names), tuple(int(size) for size in source.factor_sizes)
    if source.factor_values:
        tables = [_by_name(values) for values in source.factor_values]
    else:
        tables = [
            _turned(turns) if _is_sprite_orientation(names, sizes, j) else _binned(names[j], sizes[j], levels)
            for j in range(len(names))
        ]
    kept = [j for j, table in enumerate(tables) if max(table) > 0]
    if not kept:
        raise ValueError(f"{source.name}: no factor has more than one value")
    notes = ("mod 90 degrees" if _is_sprite_orientation(names, sizes, j) else "" for j in kept)
    return Merging(tuple(names[j] for j in kept), tuple(kept), tuple(tables[j] for j in kept), tuple(notes))


def _binned(name: str, size: int, levels: int) -> tuple[int, ...]:
    width = 1 if any(word in name for word in KINDS) else -(-size // levels)
    bins = -(-size // width)
    return tuple(value * bins // size for value in range(size))


def _by_name(values: Sequence[str]) -> tuple[int, ...]:
    stems = [value if value.startswith("#") else value.rstrip("0123456789") for value in values]
    numbers = {stem: number for number, stem in enumerate(dict.fromkeys(stems))}
    return tuple(numbers[stem] for stem in stems) if len(numbers) > 1 else tuple(range(len(values)))


def _turned(turns: int) -> tuple[int, ...]:
    # 4k / 39 of a right angle: integers, so that rounding does not affect the bins
    quarters = [4 * (value % SPRITE_TURN) % SPRITE_TURN for value in range(SPRITE_TURN + 1)]
    return tuple(quarter * turns // SPRITE_TURN for quarter in quarters)


def _is_sprite_orientation(names: Sequence[str], sizes: Sequence[int], j: int) -> bool:
    known = dict(zip(names, sizes, strict=True))
    return names[j] == "orientation" and sizes[j] == SPRITE_TURN + 1 and known.get("shape") == FACTOR_SIZES[0]
