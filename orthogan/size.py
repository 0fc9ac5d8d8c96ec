"""The size of images: one number for squares, (height, width) for rectangles."""

from __future__ import annotations

from typing import Any

from orthogan.errors import UserError


class UnsupportedSize(UserError):
    """A network cannot be built for this size of images."""


def sides(resolution: Any) -> tuple[int, int]:
    """Return height and width of a resolution, which is a number or (height, width).

    Example:
        >>> from orthogan.size import sides
        >>> sides(32), sides((64, 96))
        ((32, 32), (64, 96))
    """
    return (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)


def as_resolution(height: int, width: int) -> int | tuple[int, int]:
    """Return the resolution of images of this height and width."""
    return height if height == width else (height, width)


def size_key(resolution: Any) -> int | str:
    """Return the resolution for a fingerprint: the number of a square, or ``64x96``."""
    return resolution if isinstance(resolution, int) else "x".join(map(str, resolution))


def size_in_words(resolution: Any) -> str:
    """Return ``32`` or, for height 64 and width 96, ``64 x 96``; the unit follows."""
    return " x ".join(map(str, [resolution] if isinstance(resolution, int) else resolution))


def color_in_words(channels: int) -> str:
    """Return ``gray``, ``RGB``, the same with alpha, or the number of channels."""
    names = {1: "gray", 2: "gray with alpha", 3: "RGB", 4: "RGB with alpha"}
    return names.get(channels, f"{channels} channels")
