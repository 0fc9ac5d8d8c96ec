"""Ordering of directions by singular values, and warnings if these are not informative."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.models.generate import model_hash
from orthogan.models.protocol import Generator

SIGMA = "sigma"
DEGENERATE_RATIO = 1.05
# Below this fraction of the largest singular value there are only float32 rounding errors.
DEAD_RATIO = 1e-5


def sort_by_spectrum(
    rows: Tensor,
    sigma: Tensor,
    generator: nn.Module,
    *,
    method: str,
    layer: str = "",
    seed: int = 0,
    scores: Mapping[str, Sequence[float]] | None = None,
) -> Directions:
    """Sort ``rows`` (k, latent_dim) by descending ``sigma`` (k,) and fix signs; sigma is the first score.

    Rows whose sigma is only rounding error get the note "changes nothing".
    """
    floor = DEAD_RATIO * float(sigma.max())
    return (
        Directions(
            rows.cpu().numpy(),
            method=method,
            layer=layer,
            scores={SIGMA: sigma.tolist(), **(scores or {})},
            notes=["changes nothing" if value <= floor else "" for value in sigma.tolist()],
            model_hash=model_hash(generator),
            seed=seed,
        )
        .oriented()
        .sorted_by(SIGMA)
    )


def warn_of_tie(sigma: Tensor, where: str, *, noise: float = 1.0) -> None:
    """Warn if the largest over the smallest ``sigma`` is below 1.05 times what sampling ``noise`` explains."""
    largest, smallest = float(sigma.max()), float(sigma.min())
    if len(sigma) > 1 and largest < DEGENERATE_RATIO * noise * smallest:
        warnings.warn(
            f"{where}: the singular values tie ({largest:.4g} to {smallest:.4g}), so the directions are "
            "arbitrary; use another method or layer, or the latent axes",
            stacklevel=3,
        )


def check_components(generator: Generator, components: int | None) -> int:
    """Return ``components``, or the latent dimension for None. Raises ``UserError`` outside 1 … latent dimension."""
    dim = generator.latent_dim
    if components is not None and not 1 <= components <= dim:
        raise UserError(f"components={components}: must be between 1 and the latent dimension, {dim}")
    return dim if components is None else components


def check_positive(**values: int) -> None:
    """Raise ``UserError`` naming the first argument that is below 1."""
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{name}={value}: must be at least 1")
