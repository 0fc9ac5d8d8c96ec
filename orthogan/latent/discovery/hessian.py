"""The Hessian penalty (Peebles et al., ECCV 2020): no two directions act on a feature together.

As a regulariser of any training, and to find directions of a generator that is trained already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.rotate import learn_rotation
from orthogan.linalg.precision import at_least_float32

Features = Tensor | Sequence[Tensor]


def hessian_penalty(
    function: Callable[[Tensor], Features],
    z: Tensor,
    k: int = 2,
    epsilon: float = 0.1,
    reduction: Literal["max", "mean"] = "max",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Scalar: the variance over ``k`` sign vectors x of the second derivative of ``function`` along x (equation 5).

    In expectation twice the sum of the squared off-diagonal entries of each feature's Hessian. ``function`` maps
    latents (n, d) to features (n, ...), or to several such; it must be deterministic: no noise, dropout or batch
    statistics. The derivative is the central difference with step ``epsilon``, without its middle term: that is the
    same for every x. The variances are reduced over the features of each latent (the paper's "max", or "mean"),
    averaged over the latents, and summed over several features. ``generator``: of the signs.

    Raises ``UserError`` for k below 2, epsilon not positive, or an unknown reduction.
    """
    check_difference(k, epsilon)
    if reduction not in ("max", "mean"):
        raise UserError(f"reduction='{reduction}': 'max' or 'mean' over the features")
    with torch.autocast(z.device.type, enabled=False):
        z = at_least_float32(z)
        curves: list[list[Tensor]] = []
        for _ in range(k):
            step = epsilon * signs(z, generator)
            ahead, behind = listed(function(z + step)), listed(function(z - step))
            curves.append(
                [(at_least_float32(a) + at_least_float32(b)) / epsilon**2 for a, b in zip(ahead, behind, strict=True)]
            )
        spread = [torch.stack(same).var(dim=0).flatten(1) for same in zip(*curves, strict=True)]
        reduced = [part.amax(1) if reduction == "max" else part.mean(1) for part in spread]
        return torch.stack([part.mean() for part in reduced]).sum()


@DIRECTION_METHODS.register("hessian")
def hessian(
    generator: nn.Module,
    *,
    components: int | None = None,
    layer: str | None = None,
    resolution: int | None = None,
    y: int | None = None,
    steps: int = 300,
    batch_size: int = 16,
    lr: float = 0.03,
    k: int = 2,
    epsilon: float = 0.1,
    reduction: Literal["max", "mean"] = "mean",
    seed: int = 0,
) -> Directions:
    """Orthonormal directions of a frozen generator that minimise the Hessian penalty along them.

    The search, its scores and warnings are those of ``learn_rotation``. ``layer``, ``resolution``: where the
    features are taken (None: the whole image). ``reduction``: "mean" has less noise than the paper's "max".
    Raises ``UserError`` for arguments that do not fit.
    """
    penalty = partial(hessian_penalty, k=k, epsilon=epsilon, reduction=reduction)
    return learn_rotation(
        generator,
        lambda function, z, source: penalty(function, z, generator=source),
        method="hessian",
        components=components,
        layer=layer,
        resolution=resolution,
        y=y,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
    )


def signs(z: Tensor, generator: torch.Generator | None) -> Tensor:
    """Independent -1 or +1 (Rademacher) in the shape of ``z``, drawn on the generator's device."""
    device = z.device if generator is None else generator.device
    return (2 * torch.randint(0, 2, z.shape, generator=generator, device=device) - 1).to(z)


def listed(features: Features) -> list[Tensor]:
    """One or several features as a list."""
    return [features] if isinstance(features, Tensor) else list(features)


def check_difference(k: int, epsilon: float) -> None:
    """Raises ``UserError`` unless there are two vectors or more and a positive step."""
    if k < 2:
        raise UserError(f"k={k}: at least 2 random vectors, their variance is wanted")
    if not epsilon > 0:
        raise UserError(f"epsilon={epsilon}: a positive step")
