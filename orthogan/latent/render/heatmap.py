"""Where a direction changes the picture: a map of differences in colours whose lightness rises evenly."""

from __future__ import annotations

import math

import numpy as np

from orthogan.latent.traverse import Traversal

# Even steps of CIE lightness from 8 to 95, the hue from violet over red to yellow: also readable in grey.
_TABLE = np.array(
    [
        (15, 22, 48),
        (57, 34, 89),
        (117, 35, 111),
        (171, 43, 114),
        (214, 69, 108),
        (244, 108, 101),
        (252, 156, 112),
        (253, 200, 147),
        (254, 239, 207),
    ]
)


def differences(traversal: Traversal) -> np.ndarray:
    """(rows, h, w) float64, in grey levels 0 … 255: how far the two ends are from the centre, pixel by pixel.

    The mean over channels and both ends of |end - centre|; its mean over the pixels is the row's score "change".
    """
    frames = traversal.frames.astype(np.float64)
    return np.abs(frames[:, [0, -1]] - frames[:, [traversal.centre]]).mean(axis=(1, 2))


def ceiling(maps: np.ndarray) -> float:
    """The grey level of the last colour, for all of ``maps`` (…, h, w): their largest value, rounded up to a few."""
    largest = float(maps.max())
    step = 5 if largest > 20 else 1
    return max(1, math.ceil(largest / step)) * step


def colours(values: np.ndarray, top: float) -> np.ndarray:
    """``values`` (h, w) from 0 to ``top`` as uint8 (3, h, w)."""
    return palette()[np.rint(np.clip(values / top, 0, 1) * 255).astype(int)].transpose(2, 0, 1)


def palette() -> np.ndarray:
    """The 256 colours, from no change to the most: uint8 (256, 3)."""
    at, knots = np.linspace(0, len(_TABLE) - 1, 256), np.arange(len(_TABLE))
    return np.rint(np.stack([np.interp(at, knots, channel) for channel in _TABLE.T], axis=1)).astype(np.uint8)
