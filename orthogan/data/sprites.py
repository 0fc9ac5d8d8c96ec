"""The sprites of dSprites, drawn from formulas: a square, an ellipse or a heart of known size, angle and position.

The geometry was fitted to the published images of dSprites (Matthey et al. 2017). On a 64 x 64 canvas with pixel
centers at i + 1/2 and y pointing down, a pixel is on if its center is inside the shape; there is no anti-aliasing. The
scale is 0.5, 0.6 ... 1, the angle 2 pi k / 39 (so classes 0 and 39 are the same image) and the center 16 + 32 k / 31 in
x and y.
"""

from __future__ import annotations

import numpy as np

from orthogan.data.factors import check_factors

CANVAS = 64
FACTOR_NAMES = ("shape", "scale", "orientation", "x", "y")
FACTOR_SIZES = (3, 6, 40, 32, 32)
SHAPE_NAMES = ("square", "ellipse", "heart")
GRID_SIZE = 3 * 6 * 40 * 32 * 32  # 737,280 pictures

SQUARE_HALF_SIDE = 9.6  # lengths in pixels at scale 1
ELLIPSE_SEMI_AXES = (12.8, 7.2)
WINDOW = 30  # every sprite fits into this many rows and columns: none reaches farther than 14 pixels from its center


def _heart_outline(points: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Return the outline of the heart as (angles, radii), sorted by angle; it is star-shaped about its origin."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    u = 9.6 * np.sin(t) ** 3
    v = -1.44 - 0.6625 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    angles = np.arctan2(v, u)
    order = np.argsort(angles)
    return angles[order], np.hypot(u, v)[order]


HEART_ANGLES, HEART_RADII = _heart_outline()
_HEART_INNER, _HEART_OUTER = HEART_RADII.min() - 1e-6, HEART_RADII.max() + 1e-6


def _in_square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.abs(u) <= SQUARE_HALF_SIDE) & (np.abs(v) <= SQUARE_HALF_SIDE)


def _in_ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u / ELLIPSE_SEMI_AXES[0]) ** 2 + (v / ELLIPSE_SEMI_AXES[1]) ** 2 <= 1


def _in_heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    radius = np.hypot(u, v)
    inside = radius < _HEART_INNER
    # The angle, which is expensive to compute, matters only between the two circles.
    ring = ~inside & (radius <= _HEART_OUTER)
    angle = np.arctan2(v[ring], u[ring])
    inside[ring] = radius[ring] <= np.interp(angle, HEART_ANGLES, HEART_RADII, period=2 * np.pi)
    return inside


_INSIDE = (_in_square, _in_ellipse, _in_heart)


def render(classes: np.ndarray) -> np.ndarray:
    """Draw sprites from integers (B, 5) = shape, scale, orientation, x, y: uint8 (B, 64, 64) of 0 and 1.

    Only a window around each sprite is computed, with the formula of the whole canvas. Raises UserError for a class
    outside ``FACTOR_SIZES``.
    """
    classes = check_factors("sprites", classes, FACTOR_NAMES, FACTOR_SIZES)
    canvas = np.zeros((len(classes), CANVAS, CANVAS), np.uint8)
    for start in range(0, len(classes), 256):  # small enough to stay in the cache
        _draw(classes[start : start + 256], canvas[start : start + 256])
    return canvas


def _draw(classes: np.ndarray, canvas: np.ndarray) -> None:
    shape, scale, orientation, x, y = classes.T
    size = (0.5 + 0.1 * scale)[:, None, None]
    theta = 2 * np.pi * orientation / 39
    cos, sin = np.cos(theta)[:, None, None], np.sin(theta)[:, None, None]
    centre_x, centre_y = 16 + 32 * x / 31, 16 + 32 * y / 31
    left, top = (np.floor(centre).astype(np.int64) - WINDOW // 2 for centre in (centre_x, centre_y))
    offset = np.arange(WINDOW)
    dx = ((left[:, None] + offset + 0.5) - centre_x[:, None])[:, None, :]
    dy = ((top[:, None] + offset + 0.5) - centre_y[:, None])[:, :, None]
    for kind, inside in enumerate(_INSIDE):
        (rows,) = np.nonzero(shape == kind)
        if not len(rows):
            continue
        u = (dx[rows] * cos[rows] - dy[rows] * sin[rows]) / size[rows]
        v = (dx[rows] * sin[rows] + dy[rows] * cos[rows]) / size[rows]
        pictures = inside(u, v)
        for row, picture in zip(rows, pictures, strict=True):
            r, c = top[row], left[row]
            canvas[row, r : r + WINDOW, c : c + WINDOW] = picture
