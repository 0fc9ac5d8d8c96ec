"""Images of more than 8 bits (uint16 and floats), rounded to 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from orthogan.errors import UserError
from orthogan.io.read import printable

AT_ONCE = 1 << 24  # values that are converted at a time
MOST_OF_12_BITS = 4095

log = logging.getLogger("orthogan.data")


def white_level(dtype: np.dtype[Any], value_range: Sequence[float] | None) -> tuple[float, float]:
    """Return black and white: ``value_range`` if given, else 0 and 65535 for uint16, and 0 and 1 for floats."""
    if value_range is not None:
        return float(value_range[0]), float(value_range[1])
    return 0.0, 1.0 if dtype.kind == "f" else 65535.0


def check_levels(
    pieces: Iterable[np.ndarray], value_range: Sequence[float] | None, name: object
) -> tuple[float, float]:
    """Return the smallest and the largest value of all pieces.

    Raises UserError, naming ``name`` and these values, if they are not between black and white.
    """
    low, high, black, white, numbers = np.inf, -np.inf, 0.0, 0.0, True
    for piece in pieces:
        black, white = white_level(piece.dtype, value_range)
        if piece.size:
            low, high = min(low, float(np.fmin.reduce(piece, None))), max(high, float(np.fmax.reduce(piece, None)))
            numbers = numbers and not np.isnan(piece.max())
    where = printable(name)
    if not numbers:
        others = f"the other values are from {low:.9g} to {high:.9g}; " if low <= high else ""
        raise UserError(f"{where}: images contain NaN; {others}replace the NaN")
    if low < black or high > white:
        raise UserError(
            f"{where}: images have values from {low:.9g} to {high:.9g}, outside of {black:g} to {white:g}; set "
            "data.options.range to [black, white], such as [-1, 1]"
        )
    return low, high


def check_deep(
    pieces: Iterable[np.ndarray], dtype: np.dtype[Any], value_range: Sequence[float] | None, name: object
) -> None:
    """Check all values as ``check_levels``, and warn if those of uint16 images only use 12 bits or less."""
    high = check_levels(pieces, value_range, name)[1]
    if dtype.kind == "u" and value_range is None and high <= MOST_OF_12_BITS:
        log.warning(
            "%s: the largest of its 16-bit values is %g, so the images are almost black; if white is, for example, "
            "255 or 4095, set data.options.range to [0, 255] or [0, 4095]",
            printable(name),
            high,
        )


def check_unused(value_range: Sequence[float] | None, name: object, dtype: np.dtype[Any]) -> None:
    """Raise UserError if ``value_range`` is given for images of another type."""
    if value_range is not None:
        raise UserError(
            f"data.options.range: is for uint16 and float images, but those of {printable(name)} are {dtype}; remove it"
        )


def to_eight_bits(images: np.ndarray, value_range: Sequence[float] | None, name: object) -> np.ndarray:
    """Convert uint16 or float images to uint8: black is 0, white is 255, and the rest is rounded to the nearest level.

    Raises UserError, naming ``name``, if values are not between black and white.

    Example:
        >>> import numpy as np
        >>> from orthogan.data.formats.levels import to_eight_bits
        >>> to_eight_bits(np.array([0, 128, 129, 65535], np.uint16), None, "a.npy")
        array([  0,   0,   1, 255], dtype=uint8)
    """
    result = np.empty(images.shape, np.uint8)
    for piece, target in zip(_blocks(images), _blocks(result), strict=True):
        check_levels([piece], value_range, name)
        black, white = white_level(piece.dtype, value_range)
        target[...] = np.floor((piece.astype(np.float64) - black) * (255 / (white - black)) + 0.5)
    return result


def _blocks(images: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, AT_ONCE // max(1, images[:1].size))
    for start in range(0, len(images), step):
        yield images[start : start + step]
