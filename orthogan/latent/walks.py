"""The paths of a traversal through the latent space: a straight line, or the great circle that keeps the length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from orthogan.errors import UserError

Walk = Literal["line", "sphere"]
WALKS: tuple[Walk, ...] = get_args(Walk)
_PARALLEL = 1e-6  # the sine of an angle that counts as none


def path(start: np.ndarray, rows: np.ndarray, walk: Walk, centred: bool) -> Callable[[float], np.ndarray]:
    """offset -> latents (k, dim) float64, one for each direction of ``rows`` (k, dim), from ``start`` (dim,).

    "line": ``z + offset * d``.

    "sphere" (Spingarn-Eliezer, Banner & Michaeli 2021, "GAN Steerability without optimization", great circle):
    ``cos(a) z + sin(a) |z| t``, where t is the unit vector along the part of d at right angles to z, and
    ``a = offset * |d| / |z|``. The length |z| stays, offset * |d| is the length of the arc walked, and the first
    step is along t: that of the line, less what would change the length. A whole turn takes 2 pi |z| / |d|.

    ``centred``: z without its own part along d, ``z - <z, d> d / |d|^2``, so that the offset is the coordinate along
    d; on the sphere brought back to the length of ``start``, so that the coordinate is |z| sin(a).

    Raises ``UserError`` for an unknown walk, and on the sphere where there is no circle: z is zero, or along d.
    """
    if walk not in WALKS:
        raise UserError(f"walk='{walk}': choose {' or '.join(WALKS)}")
    squares = (rows**2).sum(axis=1, keepdims=True)
    origins = np.broadcast_to(start, rows.shape)
    if centred:
        origins = start - (rows @ start)[:, None] / squares * rows
    if walk == "line":
        return lambda offset: origins + offset * rows

    radius = float(np.linalg.norm(start))
    if radius == 0:
        raise UserError("walk='sphere' from the mode of the prior: its length is zero; walk='line', or another base")
    units = rows / np.sqrt(squares)
    across = units - (units @ start)[:, None] / radius**2 * start
    sines = np.linalg.norm(across, axis=1, keepdims=True)
    if (sines < _PARALLEL).any():
        raise UserError(
            f"walk='sphere': direction {int((sines < _PARALLEL).argmax())} is parallel to the base latent, so there "
            "is no circle through both; walk='line', or another seed"
        )
    tangents = units if centred else across / sines
    if centred:
        origins = origins / sines
    angles = np.sqrt(squares) / radius

    def circle(offset: float) -> np.ndarray:
        return np.cos(offset * angles) * origins + np.sin(offset * angles) * radius * tangents

    return circle
